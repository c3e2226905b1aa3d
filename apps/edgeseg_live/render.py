"""From the network's output to a label map and a coloured picture of it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg import native
from edgeseg.manifest import Manifest
from edgeseg.postprocess import palette_bgr
from edgeseg_live.frames import ArrayPool, Frame, Result


class Stages(Protocol):
    """What the pipeline needs of ``edgeseg.engines.Segmenter``: its three stages, and buffers for them."""

    manifest: Manifest

    def allocate_input(self) -> npt.NDArray[np.float32]: ...

    def allocate_output(self) -> npt.NDArray[Any] | None: ...

    def preprocess(self, frame: npt.NDArray[np.uint8], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]: ...

    def infer(self, tensor: npt.NDArray[np.float32], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]: ...

    def decode(
        self, output: npt.NDArray[Any], size: tuple[int, int], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]: ...


class Renderer:
    """Decodes and draws; its buffers are pooled and come back when the last sink releases the result.

    Logits are upsampled, compared and drawn in one pass: neither they nor the labels are read twice.
    """

    def __init__(self, segmenter: Stages, alpha: float = 0.5, threads: int = 1) -> None:
        self._segmenter, self._alpha, self._threads = segmenter, alpha, threads
        self._palette = np.ascontiguousarray(palette_bgr(segmenter.manifest.classes))
        self._fusible = segmenter.manifest.output.kind in ("logits", "softmax")
        self.pools = ArrayPool(np.uint8), ArrayPool(np.uint8)

    def __call__(self, frame: Frame, output: npt.NDArray[Any]) -> Result:
        """``output`` as ``Segmenter.infer`` gives it, for ``frame``."""
        height, width = frame.size
        labels, overlay = self.pools[0].get((height, width)), self.pools[1].get((height, width, 3))
        if self._fusible and output.ndim == 4 and output.shape[1] > 1:
            native.upsample_argmax_overlay(
                output[0], frame.image, self._palette, self._alpha, labels, overlay, threads=self._threads
            )
        else:
            self._segmenter.decode(output, (height, width), labels)
            native.overlay(frame.image, labels, self._palette, self._alpha, overlay, threads=self._threads)
        return Result(frame, labels, overlay, self.pools)
