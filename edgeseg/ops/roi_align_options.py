"""The settings of RoIAlign, as its node's attributes carry them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.ops.launch import MAX_LEVELS

REACH = 512
"""Feature pixels beyond the edges of a map to which scaled coordinates are clamped."""

MAX_SAMPLES = 128
MAX_BINS = 1024


@dataclass(frozen=True)
class RoiAlignOptions:
    """The attributes of a RoIAlign node.

    Attributes:
        output_height, output_width: bins of a box.
        spatial_scales: feature pixels per image pixel, one a level, finest first.
        sampling_ratio: samples a bin and axis; 0: as many as the bin has feature pixels, rounded up.
        mode: "avg" or "max" (ONNX's, see edgeseg.ops.roi_align).
        aligned: half a pixel is subtracted from scaled coordinates (ONNX's half_pixel).
        canonical_size, canonical_level: a box of this side in image pixels goes to this level; the level may lie
            outside the pyramid.
    """

    output_height: int
    output_width: int
    spatial_scales: Sequence[float]
    sampling_ratio: int = 0
    mode: str = "avg"
    aligned: bool | int = True
    canonical_size: float = 224.0
    canonical_level: int = 0

    def check(self, levels: int) -> None:
        """Raises ValueError where a setting is out of range, or does not fit the number of levels."""
        problems = {
            f"{levels} levels of features; expected 1..{MAX_LEVELS}": 1 <= levels <= MAX_LEVELS,
            f"{len(self.spatial_scales)} spatial_scales; expected one for each of {levels} levels": len(self.spatial_scales)
            == levels,
            f"spatial_scales {list(self.spatial_scales)}; expected finite and above 0": all(
                0 < s < math.inf for s in self.spatial_scales
            ),
            f"output {self.output_height}x{self.output_width}; expected sides 1..{MAX_BINS}": (
                min(self.output_height, self.output_width) >= 1 and max(self.output_height, self.output_width) <= MAX_BINS
            ),
            f"sampling_ratio {self.sampling_ratio}; expected 0..{MAX_SAMPLES}": 0 <= self.sampling_ratio <= MAX_SAMPLES,
            f"mode {self.mode!r}; expected avg or max": self.mode in ("avg", "max"),
            f"canonical_size {self.canonical_size}; expected finite and above 0": 0 < self.canonical_size < math.inf,
        }
        for problem, fine in problems.items():
            if not fine:
                raise ValueError(f"roi_align: {problem}")


def least_areas(options: RoiAlignOptions) -> list[np.float32]:
    """The least area in square image pixels of the boxes of level l and coarser ones, for l = 1, 2, ...

    Where log2(sqrt(area) / canonical_size) + 1e-6 >= l - canonical_level, solved for the area.
    """
    size = float(np.float32(options.canonical_size))
    limits = np.finfo(np.float32)
    areas = []
    for level in range(1, len(options.spatial_scales)):
        exponent = min(max(2 * (level - options.canonical_level), -300), 300)
        area = math.ldexp(size * size * 0.9999986137065998, exponent)
        areas.append(np.float32(min(max(area, float(limits.tiny)), float(limits.max))))
    return areas
