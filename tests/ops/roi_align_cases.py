"""Boxes, pyramids and options for the tests of RoIAlign, drawn from one seed each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.ops.roi_align import RoiAlignOptions

LARGEST = float(np.finfo(np.float32).max)
BAD_COORDINATES = [np.nan, np.inf, -np.inf, LARGEST, -LARGEST, 1e9, -1e9, 0.0, -0.0, 1e-40, 5.0, 17.0, -600.0, 2100.0]
BAD_IMAGES = [-1, 2, 2**31, 2**32 + 1, -(2**63), 2**63 - 1]


@dataclass(frozen=True)
class Case:
    rois: NDArray[np.float32]
    images: NDArray[np.int64]
    features: list[NDArray[Any]]
    options: RoiAlignOptions

    def typed(self, dtype: str) -> Case:
        """The same with features of another type; int8 codes fill their range."""
        codes = [np.clip(np.rint(level * 50), -128, 127) for level in self.features] if dtype == "int8" else self.features
        return replace(self, features=[level.astype(dtype) for level in codes])

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.rois, self.images, self.features, self.options

    @property
    def scale(self) -> float:
        return max(float(np.abs(level.astype(np.float64)).max(initial=1e-30)) for level in self.features)


def boxes(rng: np.random.Generator, count: int, width: float, height: float) -> NDArray[np.float32]:
    """Corners in and around the image; every third box as drawn, reversed as often as not."""
    corners = rng.uniform(-0.3, 1.3, (count, 2, 2)) * [width, height]
    sorted_ = np.sort(corners, axis=1)
    sorted_[::3] = corners[::3]
    return sorted_.reshape(count, 4).astype(np.float32)


def make(
    seed: int,
    levels: int = 3,
    mode: str = "avg",
    ratio: int = 2,
    aligned: bool = True,
    size: tuple[int, int] = (23, 31),
    channels: int = 5,
    count: int = 6,
    images: int = 2,
    output: tuple[int, int] = (3, 2),
) -> Case:
    """A pyramid whose finest map is ``size`` at a quarter of the image."""
    rng = np.random.default_rng(seed)
    shapes = [(images, channels, max(size[0] >> level, 1), max(size[1] >> level, 1)) for level in range(levels)]
    features = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    scales = [0.25 / 2**level for level in range(levels)]
    options = RoiAlignOptions(*output, scales, ratio, mode, aligned, 48.0, int(rng.integers(-1, levels + 1)))
    rois = boxes(rng, count, 4 * size[1], 4 * size[0])
    return Case(rois, rng.integers(-1, images + 1, count), features, options)


def spoil(case: Case, seed: int) -> Case:
    """Coordinates and batch indices that no detector should give."""
    rng = np.random.default_rng(seed)
    rois = rng.choice(np.array(BAD_COORDINATES, np.float32), case.rois.shape)
    images = np.where(rng.random(len(rois)) < 0.3, rng.choice(np.array(BAD_IMAGES), len(rois)), 0)
    return replace(case, rois=rois, images=images)


cases = st.builds(
    make,
    seed=st.integers(0, 10**6),
    levels=st.integers(1, 5),
    mode=st.sampled_from(["avg", "max"]),
    ratio=st.sampled_from([0, 0, 1, 2, 3]),
    aligned=st.booleans(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(1, 37),
    count=st.integers(0, 6),
    images=st.integers(1, 3),
    output=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
"""Any case; a third of the boxes reversed, some of unknown images."""
