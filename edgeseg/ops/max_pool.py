"""Max-pooling that remembers where each maximum was, and its inverse: references, CPU twins, index conventions.

Three ways to say where: ONNX counts an index in the whole (N, C, H, W) tensor (MaxPool-12, MaxUnpool-11), PyTorch inside
its (H, W) plane, and a code of ours inside its window (dy * kernel_w + dx, one byte). The first of equal maxima in
row-major order wins, the first NaN wins over every number, padding never wins. Where two values name one place of the
unpooled plane, the later in row-major order stays; places that nobody names are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.ops import launch, max_pool_bodies
from edgeseg.ops.functions import Bodies
from edgeseg.ops.window import Window

Array = NDArray[Any]


# --- references in plain loops ----------------------------------------------------------------------------------------


def max_pool_argmax_reference(x: Array, window: Window) -> tuple[Array, NDArray[np.uint8]]:
    """(N, C, H, W) to values of the same type, compared in float64, and codes, both (N, C, h, w).

    Raises:
        ValueError: a window without a place inside the plane.
    """
    height, width = x.shape[2:]
    shape = (*x.shape[:2], *window.pooled(height, width))
    values, codes = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    for n, c, i, j in np.ndindex(*shape):
        top, left = window.corner(i, j)
        best = None
        for dy, dx in np.ndindex(*window.kernel):
            if not (0 <= top + dy < height and 0 <= left + dx < width):
                continue
            value = float(x[n, c, top + dy, left + dx])
            if best is None or value > best or (np.isnan(value) and not np.isnan(best)):
                best = value
                values[n, c, i, j], codes[n, c, i, j] = x[n, c, top + dy, left + dx], dy * window.kernel[1] + dx
        if best is None:
            raise ValueError(f"window ({i}, {j}) lies outside the plane {height}x{width}")
    return values, codes


def max_unpool_reference(y: Array, codes: NDArray[np.uint8], window: Window, size: tuple[int, int] | None = None) -> Array:
    """Values and codes (N, C, h, w) to (N, C, *size); a code outside its window or the plane names no place."""
    height, width = size or window.unpooled(*y.shape[2:])
    out = np.zeros((*y.shape[:2], height, width), y.dtype)
    for n, c, i, j in np.ndindex(*y.shape):
        dy, dx = divmod(int(codes[n, c, i, j]), window.kernel[1])
        row, column = np.add(window.corner(i, j), (dy, dx))
        if dy < window.kernel[0] and 0 <= row < height and 0 <= column < width:
            out[n, c, row, column] = y[n, c, i, j]
    return out


def max_pool_indices_reference(x: Array, window: Window, storage_order: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Values and ONNX's whole-tensor indices (N, C, h, w); ``storage_order`` 1 counts each plane by columns."""
    values, codes = max_pool_argmax_reference(x, window)
    height, width = x.shape[2:]
    indices = np.empty(codes.shape, np.int64)
    for n, c, i, j in np.ndindex(*codes.shape):
        row, column = np.add(window.corner(i, j), divmod(int(codes[n, c, i, j]), window.kernel[1]))
        place = column * height + row if storage_order else row * width + column
        indices[n, c, i, j] = (n * x.shape[1] + c) * height * width + place
    return values, indices


def max_unpool_indices_reference(y: Array, indices: NDArray[np.int64], size: tuple[int, int]) -> Array:
    """Values (N, C, h, w) to where their indices say in a whole tensor (N, C, *size).

    Raises:
        ValueError: an index outside the tensor.
    """
    out = np.zeros((*y.shape[:2], *size), y.dtype)
    for position in np.ndindex(*y.shape):
        index = int(indices[position])
        if not 0 <= index < out.size:
            raise ValueError(f"max_unpool: index {index}, expected 0..{out.size - 1}")
        out.flat[index] = y[position]
    return out


# --- the CPU twins ----------------------------------------------------------------------------------------------------


def max_pool_argmax(x: Array, window: Window, *, threads: int = 1) -> tuple[Array, NDArray[np.uint8]]:
    """(N, C, H, W) float32, float16 or int8 to values of the same type and codes uint8, both (N, C, h, w).

    Raises:
        ValueError: a type or window that the operator does not have.
    """
    x = np.ascontiguousarray(x)
    values = np.empty((*x.shape[:2], *window.pooled(*x.shape[2:])), x.dtype)
    codes = np.empty(values.shape, np.uint8)
    tensors = [_tensor(array) for array in (x, values, codes)]
    launch.cpu_library().run("max_pool_argmax", launch.MaxPoolArgmax(*tensors, c_window(window)), threads)
    return values, codes


def max_unpool(
    y: Array, codes: NDArray[np.uint8], window: Window, size: tuple[int, int] | None = None, *, threads: int = 1
) -> Array:
    """Values and codes (N, C, h, w) to (N, C, *size) of the values' type; ``size`` defaults to ``window.unpooled``.

    Raises:
        ValueError: a type, shape or window that the operator does not have.
    """
    y, codes = np.ascontiguousarray(y), np.ascontiguousarray(codes)
    out = np.empty((*y.shape[:2], *(size or window.unpooled(*y.shape[2:]))), y.dtype)
    tensors = [_tensor(array) for array in (y, codes, out)]
    launch.cpu_library().run("max_unpool", launch.MaxUnpool(*tensors, c_window(window)), threads)
    return out


def max_pool_indices(x: Array, window: Window, storage_order: int = 0, *, threads: int = 1) -> tuple[Array, NDArray[np.int64]]:
    """(N, C, H, W) float32, float16 or int8 to values and ONNX's whole-tensor indices int64, both (N, C, h, w).

    Raises:
        ValueError: a type or window that the operator does not have.
    """
    x = np.ascontiguousarray(x)
    values = np.empty((*x.shape[:2], *window.pooled(*x.shape[2:])), x.dtype)
    indices = np.empty(values.shape, np.int64)
    args = launch.MaxPoolIndices(_tensor(x), _tensor(values), indices.ctypes.data, c_window(window), storage_order)
    launch.cpu_library().run("max_pool_indices", args, threads)
    return values, indices


def max_unpool_indices(y: Array, indices: NDArray[np.int64], size: tuple[int, int], *, threads: int = 1) -> Array:
    """Values (N, C, h, w) to where their int64 indices say in the whole tensor (N, C, *size).

    Raises:
        ValueError: indices of another shape or type, or outside the tensor.
    """
    if indices.shape != y.shape or indices.dtype != np.int64:
        raise ValueError(f"max_unpool: indices {indices.shape} {indices.dtype}, expected {y.shape} int64")
    y, indices = np.ascontiguousarray(y), np.ascontiguousarray(indices)
    out = np.empty((*y.shape[:2], *size), y.dtype)
    args = launch.MaxUnpoolIndices(_tensor(y), indices.ctypes.data, _tensor(out), None)
    launch.cpu_library().run("max_unpool_indices", args, threads)
    return out


def c_window(window: Window) -> launch.Window:
    """The window for the C interface."""
    return launch.Window(*window.kernel, *window.strides, *window.pads[:2])


def _tensor(array: Array) -> launch.Tensor:
    if array.ndim != 4 or array.dtype.name not in launch.TYPES:
        raise ValueError(f"array {array.shape} {array.dtype}; expected (N, C, H, W) float32, float16 or int8")
    return launch.tensor_of(array)


# --- index conventions ------------------------------------------------------------------------------------------------


def to_onnx_indices(indices: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Per-plane indices (N, C, h, w) to ONNX's whole-tensor ones for planes of ``size``."""
    n, c = indices.shape[:2]
    planes = np.arange(n * c, dtype=np.int64).reshape(n, c, 1, 1)
    return indices + planes * (size[0] * size[1])


def from_onnx_indices(indices: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """ONNX's whole-tensor indices (N, C, h, w) to per-plane ones.

    Raises:
        ValueError: an index that lies in another plane than its own.
    """
    plane = size[0] * size[1]
    local = indices - to_onnx_indices(np.zeros_like(indices), size)
    if ((local < 0) | (local >= plane)).any():
        raise ValueError("from_onnx_indices: an index lies outside its own plane")
    return local


BODIES: dict[str, Bodies] = max_pool_bodies.BODIES
