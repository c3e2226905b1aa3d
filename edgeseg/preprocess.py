"""Frame to network input, by the manifest alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec


class Preprocessor:
    """x = (pixel * scale - mean) / std per channel, bilinear stretch to the input's size, NCHW: one native pass.

    Args:
        spec: the manifest's input.
        threads: rows are split over so many threads.
    """

    def __init__(self, spec: InputSpec, threads: int = 1) -> None:
        self.spec, self.threads = spec, threads

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the tensor; that of the manifest also where the graph's size is dynamic."""
        return self.spec.height, self.spec.width

    def allocate(self) -> NDArray[np.float32]:
        """An uninitialised (1, C, H, W) float32 tensor."""
        return np.empty((1, self.spec.channels, *self.size), np.float32)

    def __call__(self, frame: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Fill ``out`` (1, C, H, W) float32, or a new tensor, from ``frame`` (h, w, 3) uint8 BGR of any size.

        Raises:
            DataError: the frame is not (h, w, 3) uint8.
        """
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise DataError(f"frame: {_describe(frame)}", "(height, width, 3) uint8 in BGR order", "convert it with cv2.cvtColor")
        tensor = self.allocate() if out is None else out
        spec = self.spec
        native.preprocess(
            frame, tensor, scale=spec.scale, mean=spec.mean, std=spec.std, swap_rb=spec.colour_order == "rgb", threads=self.threads
        )
        return tensor


def _describe(frame: object) -> str:
    return f"{frame.shape} {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame).__name__
