"""Segmentation output to label map at any size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import BackendError
from edgeseg.manifest import OutputSpec

Labels = NDArray[np.uint8]


class LabelDecoder:
    """Turns the network's output into labels at the frame's size; full-resolution logits never exist.

    - ``logits``, ``softmax``, ``sigmoid`` with several channels: bilinear upsampling fused with argmax;
    - one channel: 1 where the upsampled value exceeds the threshold (a probability; for logits, its logit);
    - ``labels``: nearest neighbour.

    Args:
        output: the manifest's output.
        num_classes: number of classes of the manifest; an output of one channel serves one or two.
        threads: rows are split over so many threads.
    """

    def __init__(self, output: OutputSpec, num_classes: int, threads: int = 1) -> None:
        self.output, self.num_classes, self.threads = output, num_classes, threads
        self._cut = decision_cut(output)

    def __call__(self, array: NDArray[Any], size: tuple[int, int], out: Labels | None = None) -> Labels:
        """Labels (H, W) uint8 at ``size`` = (H, W), written to ``out`` if given.

        Args:
            array: (1, C, h, w) or (C, h, w) float for scores; (1, h, w), (h, w) or (1, 1, h, w) integer for labels.

        Raises:
            BackendError: the array's shape does not fit the manifest.
        """
        if self.output.kind == "labels":
            return native.upsample_nearest(self._label_plane(array), size, out)
        scores = self._scores(array)
        if scores.shape[0] == 1:
            return native.upsample_threshold(scores, size, self._cut, out, threads=self.threads)
        return native.upsample_argmax(scores, size, out, threads=self.threads)

    def _scores(self, array: NDArray[Any]) -> NDArray[np.float32]:
        scores = array[0] if array.ndim == 4 and array.shape[0] == 1 else array
        channels = scores.shape[0] if scores.ndim == 3 else 0
        if channels != self.num_classes and not (channels == 1 and self.num_classes == 2):
            raise self._misfit(array, f"(1, {self.num_classes}, h, w)")
        return scores.astype(np.float32, copy=False)

    def _label_plane(self, array: NDArray[Any]) -> NDArray[Any]:
        plane = array
        while plane.ndim > 2 and plane.shape[0] == 1:
            plane = plane[0]
        if plane.ndim != 2:
            raise self._misfit(array, "(1, h, w)")
        return plane if plane.dtype in (np.uint8, np.int32, np.int64) else plane.astype(np.int64)

    def _misfit(self, array: NDArray[Any], expected: str) -> BackendError:
        what = f"output {self.output.name!r}: {array.shape} {array.dtype}"
        return BackendError(what, f"{expected} ({self.output.kind})", "correct $.output or $.classes of model.json")


def decision_cut(output: OutputSpec) -> float:
    """The value of a single channel above which a pixel is class 1: the threshold, or for logits its logit."""
    probability = output.threshold
    if output.kind != "logits":
        return probability
    if probability in (0.0, 1.0):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
