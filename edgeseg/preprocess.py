"""Frame to network input, by the manifest alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec
from edgeseg.scene import Placement

_COLOURS = 3


class Preprocessor:
    """x = (pixel * scale - mean) / std per channel, bilinear resize to the input's size, NCHW: one native pass.

    Args:
        spec: the manifest's input.
        threads: rows are split over so many threads.
    """

    def __init__(self, spec: InputSpec, threads: int = 1) -> None:
        self.spec, self.threads = spec, threads
        self._planes = max(_COLOURS, spec.channels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the tensor; that of the manifest also where the graph's size is dynamic."""
        return self.spec.height, self.spec.width

    def allocate(self) -> NDArray[np.float32]:
        """An uninitialised (1, C, H, W) float32 tensor."""
        return np.empty((1, self.spec.channels, *self.size), np.float32)

    def placement(self, frame: tuple[int, int]) -> Placement:
        """Where a frame of (H, W) pixels comes to lie in the tensor."""
        (height, width), (out_h, out_w) = frame, self.size
        if self.spec.resize == "stretch":
            return Placement(frame, self.size, out_w / width, out_h / height)
        kept_h, kept_w = self._kept(frame)
        return Placement(frame, self.size, kept_w / width, kept_h / height)

    def _kept(self, frame: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the part of the tensor that a letterboxed frame fills, whole pixels."""
        (height, width), (out_h, out_w) = frame, self.size
        fit = min(out_h / height, out_w / width)
        return max(1, min(out_h, round(height * fit))), max(1, min(out_w, round(width * fit)))

    def __call__(self, frame: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Fill ``out`` (1, C, H, W) float32, or a new tensor, from ``frame`` (h, w, 3) uint8 BGR of any size.

        Frames of other modalities have 4 or 6 channels, the colours first.

        Raises:
            DataError: the frame is not (h, w, 3) uint8, or has not the modality's channels.
        """
        self._check(frame)
        tensor = self.allocate() if out is None else out
        if self.spec.resize == "stretch":
            self._resize(frame, tensor)
            return tensor
        height, width = self._kept((frame.shape[0], frame.shape[1]))
        inner = np.empty((1, self.spec.channels, height, width), np.float32)
        self._resize(frame, inner)
        tensor[:, :, height:] = 0
        tensor[:, :, :height, width:] = 0
        tensor[:, :, :height, :width] = inner
        return tensor

    def _check(self, frame: NDArray[np.uint8]) -> None:
        fine = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.dtype == np.uint8 and frame.size
        if not fine or frame.shape[2] != self._planes:
            what = "BGR order" if self._planes == _COLOURS else f"channels of {self.spec.modality}"
            fix = "convert it with cv2.cvtColor" if self._planes == _COLOURS else "see edgeseg.data.rgbd.pack"
            raise DataError(f"frame: {_describe(frame)}", f"(height, width, {self._planes}) uint8 in {what}", fix)

    def _resize(self, frame: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        spec = self.spec
        if self._planes == _COLOURS:
            self._pass(frame, out, slice(None), spec.colour_order == "rgb")
            return
        self._pass(np.ascontiguousarray(frame[..., :_COLOURS]), out[:, :_COLOURS], slice(_COLOURS), spec.colour_order == "rgb")
        further = frame[..., _COLOURS:]
        # One plane passes as grey, whose luma is the plane itself.
        planes = np.repeat(further, _COLOURS, axis=2) if further.shape[2] == 1 else np.ascontiguousarray(further)
        self._pass(planes, out[:, _COLOURS:], slice(_COLOURS, None), False)

    def _pass(self, frame: NDArray[np.uint8], out: NDArray[np.float32], channels: slice, swap: bool) -> None:
        spec = self.spec
        mean, std = spec.mean[channels], spec.std[channels]
        native.preprocess(frame, out, scale=spec.scale, mean=mean, std=std, swap_rb=swap, threads=self.threads)


def _describe(frame: object) -> str:
    return f"{frame.shape} {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame).__name__
