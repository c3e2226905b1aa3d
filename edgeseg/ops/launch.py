"""The C structures of trt_plugins/ as ctypes: one description for the CPU twins, the CUDA launchers and every test of them.

Imports numpy alone, so that a machine with nothing but CUDA and torch can use it.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"float32": 0, "float16": 1, "int8": 2, "uint8": 3, "int32": 4, "int64": 5}
"""numpy dtype name -> ES_* type."""

FORMATS = {"linear": 0, "hwc": 1, "hwc8": 2, "hwc16": 3, "chw4": 4, "chw16": 5, "chw32": 6}
"""Memory format -> ES_* format; the names are TensorRT's without their k."""

VECTORS = {"linear": 1, "hwc": 1, "hwc8": 8, "hwc16": 16, "chw4": 4, "chw16": 16, "chw32": 32}
MAX_LEVELS = 5


class Tensor(Structure):
    """EsTensor of trt_plugins/common/tensor.h."""

    _fields_ = (
        *(("data", c_void_p), ("type", c_int32), ("format", c_int32)),
        *(("n", c_int32), ("c", c_int32), ("h", c_int32), ("w", c_int32)),
    )


class Window(Structure):
    """EsWindow of trt_plugins/common/tensor.h."""

    _fields_ = tuple((name, c_int32) for name in ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left"))


class RoiAlign(Structure):
    """EsRoiAlign of trt_plugins/roi_align/roi_align.h."""

    _fields_ = (
        ("features", Tensor * MAX_LEVELS),
        ("spatial_scales", c_float * MAX_LEVELS),
        ("levels", c_int32),
        ("rois", c_void_p),
        ("batch_indices", c_void_p),
        ("index_type", c_int32),
        ("output", Tensor),
        *((name, c_int32) for name in ("sampling_ratio", "max_mode", "aligned")),
        ("canonical_size", c_float),
        ("canonical_level", c_int32),
    )


class MaxPoolArgmax(Structure):
    """EsMaxPoolArgmax of trt_plugins/max_pool/max_pool.h."""

    _fields_ = (("input", Tensor), ("output", Tensor), ("codes", Tensor), ("window", Window))


class MaxUnpool(Structure):
    """EsMaxUnpool of trt_plugins/max_pool/max_pool.h."""

    _fields_ = (("input", Tensor), ("codes", Tensor), ("output", Tensor), ("window", Window))


class MaxPoolIndices(Structure):
    """EsMaxPoolIndices of trt_plugins/max_pool/max_pool.h."""

    _fields_ = (("input", Tensor), ("output", Tensor), ("indices", c_void_p), ("window", Window), ("column_major", c_int32))


class MaxUnpoolIndices(Structure):
    """EsMaxUnpoolIndices of trt_plugins/max_pool/max_pool.h."""

    _fields_ = (("input", Tensor), ("indices", c_void_p), ("output", Tensor), ("workspace", c_void_p))


class UpsampleArgmax(Structure):
    """EsUpsampleArgmax of trt_plugins/upsample_argmax/upsample_argmax.h."""

    _fields_ = (
        *(("logits", Tensor), ("labels", Tensor), ("probability", c_void_p)),
        *(("align_corners", c_int32), ("threshold", c_float), ("logit_scale", c_float)),
    )


class Preprocess(Structure):
    """EsPreprocess of trt_plugins/frame/frame.h."""

    _fields_ = (
        *(("frame", c_void_p), ("chroma", c_void_p), ("stride", c_int64)),
        *((name, c_int32) for name in ("kind", "h", "w")),
        *(("output", Tensor), ("mul", c_float * 3), ("add", c_float * 3), ("swap_rb", c_int32)),
    )


class Overlay(Structure):
    """EsOverlay of trt_plugins/frame/frame.h."""

    _fields_ = (
        *(("frame", c_void_p), ("frame_stride", c_int64), ("out", c_void_p), ("out_stride", c_int64)),
        *(("labels", c_void_p), ("palette_bgr", c_void_p)),
        *((name, c_int32) for name in ("h", "w", "alpha")),
    )


OPERATORS: dict[str, type[Structure]] = {
    "roi_align": RoiAlign,
    "max_pool_argmax": MaxPoolArgmax,
    "max_unpool": MaxUnpool,
    "max_pool_indices": MaxPoolIndices,
    "max_unpool_indices": MaxUnpoolIndices,
    "upsample_argmax": UpsampleArgmax,
    "preprocess": Preprocess,
    "overlay": Overlay,
}
"""Name -> argument structure: ``edgeseg_<name>_cpu(args, threads)`` and ``edgeseg_<name>_cuda(args, stream)``."""


def packed_shape(shape: tuple[int, int, int, int], format: str) -> tuple[int, ...]:
    """The array shape that holds (N, C, H, W) in a format: CHWv (N, C/v, H, W, v), HWCv (N, H, W, C padded to v)."""
    n, c, h, w = shape
    vector = VECTORS[format]
    blocks = -(-c // vector)
    if format.startswith("hwc"):
        return (n, h, w, blocks * vector)
    return (n, c, h, w) if format == "linear" else (n, blocks, h, w, vector)


def pack(array: NDArray[Any], format: str) -> NDArray[Any]:
    """(N, C, H, W) in another format, padding channels 0; C-contiguous."""
    n, c, h, w = array.shape
    vector = VECTORS[format]
    blocks = -(-c // vector)
    padded = np.zeros((n, blocks * vector, h, w), array.dtype)
    padded[:, :c] = array
    if format.startswith("hwc"):
        return np.ascontiguousarray(padded.transpose(0, 2, 3, 1))
    if format == "linear":
        return padded
    return np.ascontiguousarray(padded.reshape(n, blocks, vector, h, w).transpose(0, 1, 3, 4, 2))


def unpack(array: NDArray[Any], format: str, channels: int) -> NDArray[Any]:
    """The inverse of ``pack``: (N, channels, H, W)."""
    if format.startswith("hwc"):
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2)[:, :channels])
    if format == "linear":
        return array
    n, blocks, h, w, vector = array.shape
    return np.ascontiguousarray(array.transpose(0, 1, 4, 2, 3).reshape(n, blocks * vector, h, w)[:, :channels])


def tensor(pointer: int, dtype: str, shape: tuple[int, ...], format: str = "linear") -> Tensor:
    """An EsTensor of memory at ``pointer`` with logical ``shape`` (N, C, H, W)."""
    return Tensor(pointer, TYPES[dtype], FORMATS[format], *shape)


def tensor_of(array: NDArray[Any], shape: tuple[int, ...] | None = None, format: str = "linear") -> Tensor:
    """An EsTensor of a C-contiguous numpy array, whose logical shape is ``shape`` where it is packed. Keep the array alive."""
    if not array.flags.c_contiguous:
        raise ValueError(f"array {array.shape}: not C-contiguous; expected a packed array")
    return tensor(array.ctypes.data, array.dtype.name, shape or array.shape, format)


class Library:
    """A shared library with some of the launchers, ``kind`` cpu or cuda.

    Raises on a call:
        ValueError: the operator refused its arguments, with its own sentence.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        self.path, self.kind = Path(path), kind
        self._library = ctypes.CDLL(str(path))

    def run(self, name: str, args: Structure, last: int | None = 1) -> None:
        """Call ``edgeseg_<name>_<kind>``; ``last`` is the number of threads (cpu) or the stream's handle (cuda)."""
        function = getattr(self._library, f"edgeseg_{name}_{self.kind}")
        function.restype = c_char_p
        function.argtypes = [POINTER(type(args)), c_int32 if self.kind == "cpu" else c_void_p]
        if problem := function(ctypes.byref(args), last):
            raise ValueError(f"{name}: {problem.decode()}")

    def has(self, name: str) -> bool:
        """Whether ``edgeseg_<name>_<kind>`` is in the library."""
        return hasattr(self._library, f"edgeseg_{name}_{self.kind}")

    def unpool_workspace(self, output: Tensor) -> int:
        """Bytes that ``max_unpool_indices`` needs besides its arrays."""
        function = self._library.edgeseg_max_unpool_indices_workspace
        function.restype, function.argtypes = c_int64, [POINTER(Tensor)]
        return int(function(ctypes.byref(output)))


@cache
def cpu_library() -> Library:
    """The CPU twins: ``$EDGESEG_OPS_LIBRARY``, else the library that was built with the package.

    Raises:
        OSError: it is not there.
    """
    named = os.environ.get("EDGESEG_OPS_LIBRARY")
    if named:
        return Library(named, "cpu")
    from importlib.resources import files

    return Library(str(files("edgeseg.native") / "libedgeseg_ops.so"), "cpu")
