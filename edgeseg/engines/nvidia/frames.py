"""Frame to label map without leaving the device: upload the bytes of the frame, preprocess, infer, upsample with argmax,
fetch the labels. Everything on the session's stream, captured as one graph per frame size.

The kernels are those of trt_plugins/frame and trt_plugins/upsample_argmax, by their plain C launchers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.nvidia.arrays import DeviceArray, device_array
from edgeseg.engines.nvidia.graphs import GraphCache
from edgeseg.engines.nvidia.runner import NvidiaSession
from edgeseg.errors import BackendError
from edgeseg.ops import launch
from edgeseg.plugins import plugin_library
from edgeseg.postprocess.decode import decision_cut

if TYPE_CHECKING:
    from edgeseg.manifest import InputSpec, Manifest

_BGR, _CHANNELS = 0, 3
_SCORES = ("logits", "softmax", "sigmoid")
log = logging.getLogger("edgeseg.engines")


class FrameSession(NvidiaSession):
    """A session that can also take frames to their labels without leaving the device."""

    def frame_pipeline(self, manifest: Manifest) -> FramePipeline | None:
        """Frame to labels on the device; None where the kernels are not built or the model's form is not covered."""
        return open_pipeline(self, manifest)


def open_pipeline(session: NvidiaSession, manifest: Manifest) -> FramePipeline | None:
    """A pipeline over the plugin library's kernels; None, and the reason in the log, where there can be none."""
    reason = not_covered(session, manifest)
    try:
        kernels = None if reason else launch.Library(plugin_library().path, "cuda")
    except (OSError, BackendError) as error:
        reason = f"no CUDA kernels: {error}"
    if reason or kernels is None:
        log.info("frames are prepared and decoded on the CPU (%s)", reason)
        return None
    return FramePipeline(session, manifest, kernels)


def not_covered(session: NvidiaSession, manifest: Manifest) -> str:
    """Empty, or why a model's frames cannot stay on the device."""
    spec, output = manifest.input, next((item for item in session.outputs if item.name == manifest.output.name), None)
    if len(session.inputs) != 1 or session.inputs[0].name != spec.name or spec.batch != 1 or spec.channels != _CHANNELS:
        return "not one input of one colour picture"
    if output is None or manifest.output.kind not in _SCORES or output.shape is None or len(output.shape) != 4:
        return f"output of kind {manifest.output.kind}"
    return ""


class FramePipeline:
    """(H, W, 3) uint8 BGR, of numpy or on the device, -> (H, W) uint8 labels on one GPU stream.

    It shares the session's stream: use one of the two at a time.

    Args:
        session: a loaded engine with one picture as its input and scores as its output.
        manifest: the manifest of its model.
        kernels: the library with ``edgeseg_preprocess_cuda``, ``edgeseg_upsample_argmax_cuda`` and ``edgeseg_overlay_cuda``.
    """

    def __init__(self, session: NvidiaSession, manifest: Manifest, kernels: launch.Library) -> None:
        self.session, self.manifest, self.kernels = session, manifest, kernels
        self._graphs = GraphCache(session.cuda, session.stream)
        self._size: tuple[int, int] = (0, 0)
        self._source = 0  # where the last frame lies on the device
        self._device: dict[str, int] = {}
        self._staging: dict[str, NDArray[Any]] = {}
        spec, output = session.inputs[0], next(item for item in session.outputs if item.name == manifest.output.name)
        self._input, self._output = spec, output
        self._shapes = (manifest.input.shape,)
        self._bound = {
            item.name: session.reserve(item.name, _bytes(item.shape or manifest.input.shape, item.dtype))
            for item in (spec, *session.outputs)
        }
        self._mul, self._add = scale_and_offset(manifest.input)

    def __call__(self, frame: NDArray[np.uint8], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The labels of ``frame`` at its own size, in ``out`` if it is given. A frame on the device is read where it is."""
        cuda, stream = self.session.cuda, self.session.stream
        found = device_array("frame", frame, stream, lambda other: cuda.wait_for(stream, other))
        self._prepare(frame if found is None else found)
        if found is None:
            np.copyto(self._staging["frame"], frame)
        self._source = self._device["frame"] if found is None else found.address
        self._graphs.run((self._size, self._source), self._enqueue)
        cuda.synchronize(stream)
        labels = np.empty(self._size, np.uint8) if out is None else out
        np.copyto(labels, self._staging["labels"])
        return labels

    def overlay(self, palette_bgr: NDArray[np.uint8], alpha: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Blend the colours of the last call's labels into its frame, on the device.

        Args:
            palette_bgr: (256, 3) uint8.
            alpha: 0 (frame) to 256 (colour).
            out: (H, W, 3) uint8, written.
        """
        height, width = self._size
        if out.shape != (height, width, _CHANNELS):
            raise BackendError(f"out: {out.shape}", f"{(height, width, _CHANNELS)}", "an array of the last frame's size")
        session, device = self.session, self._device
        session.cuda.copy(device["palette"], np.ascontiguousarray(palette_bgr).ctypes.data, 256 * _CHANNELS, session.stream)
        row = width * _CHANNELS
        args = launch.Overlay(self._source, row, device["blended"], row, device["labels"], device["palette"], height, width, alpha)
        self._launch("overlay", args)
        session.cuda.copy(self._staging["frame"].ctypes.data, device["blended"], out.nbytes, session.stream)
        session.cuda.synchronize(session.stream)
        np.copyto(out, self._staging["frame"])
        return out

    def _prepare(self, frame: NDArray[np.uint8] | DeviceArray) -> None:
        """Memory for frames of this size; graphs of the size before go with its memory."""
        if len(frame.shape) != 3 or frame.shape[2] != _CHANNELS or np.dtype(frame.dtype) != np.uint8 or 0 in frame.shape:
            raise BackendError(f"frame: {frame.shape} {frame.dtype}", "(height, width, 3) uint8 in BGR order", "convert it")
        size = (frame.shape[0], frame.shape[1])
        if size == self._size:
            return
        self._free()
        cuda, pixels = self.session.cuda, size[0] * size[1]
        sizes = {"frame": pixels * _CHANNELS, "blended": pixels * _CHANNELS, "labels": pixels, "palette": 256 * _CHANNELS}
        self._device = {name: cuda.malloc(count) for name, count in sizes.items()}
        self._staging = {"frame": cuda.pinned((*size, _CHANNELS), "uint8"), "labels": cuda.pinned(size, "uint8")}
        self._size = size

    def _enqueue(self) -> None:
        cuda, stream, (height, width) = self.session.cuda, self.session.stream, self._size
        frame, labels = self._staging["frame"], self._staging["labels"]
        if self._source == self._device["frame"]:
            cuda.copy(self._source, frame.ctypes.data, frame.nbytes, stream)
        picture = launch.tensor(self._bound[self._input.name], self._input.dtype, self._shapes[0])
        swap = int(self.manifest.input.colour_order == "rgb")
        factors = launch.c_float * 3
        args = launch.Preprocess(
            self._source,
            None,
            width * _CHANNELS,
            _BGR,
            height,
            width,
            picture,
            factors(*self._mul),
            factors(*self._add),
            swap,
        )
        self._launch("preprocess", args)
        self.session.enqueue(self._shapes, self._bound)
        assert self._output.shape is not None
        logits = launch.tensor(self._bound[self._output.name], self._output.dtype, self._output.shape)
        decoded = launch.tensor(self._device["labels"], "uint8", (1, 1, height, width))
        self._launch("upsample_argmax", launch.UpsampleArgmax(logits, decoded, None, 0, decision_cut(self.manifest.output), 1.0))
        cuda.copy(labels.ctypes.data, self._device["labels"], labels.nbytes, stream)

    def _launch(self, name: str, args: launch.Structure) -> None:
        try:
            self.kernels.run(name, args, self.session.stream)
        except ValueError as error:
            raise BackendError(str(error), fix="report this frame size and model") from error

    def _free(self) -> None:
        self.session.cuda.synchronize(self.session.stream)
        self._graphs.drop()
        for address in self._device.values():
            self.session.cuda.free(address)
        for array in self._staging.values():
            self.session.cuda.free_pinned(array)
        self._device, self._staging, self._size = {}, {}, (0, 0)

    def close(self) -> None:
        """Free what belongs to the pipeline; the session stays open."""
        self._free()


def scale_and_offset(spec: InputSpec) -> tuple[list[float], list[float]]:
    """(pixel * scale - mean) / std as pixel * mul + add, by channel of the network's input."""
    mul = [spec.scale / spread for spread in spec.std]
    return mul, [-mean / spread for mean, spread in zip(spec.mean, spec.std, strict=True)]


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize
