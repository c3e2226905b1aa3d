"""Max-pooling with indices and max-unpooling: plain references and index conventions.

PyTorch counts an index inside its (H, W) plane; ONNX inside the whole (N, C, H, W) tensor (MaxPool-11, MaxUnpool-11).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def max_pool_indices_reference(x: NDArray[np.float64], kernel: int, stride: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The definition in plain loops: (N, C, H, W) float64 to values and per-plane indices (N, C, h, w)."""
    height, width = x.shape[-2:]
    shape = (*x.shape[:2], (height - kernel) // stride + 1, (width - kernel) // stride + 1)
    values, indices = np.empty(shape), np.empty(shape, np.int64)
    for n, c, i, j in np.ndindex(*shape):
        best = -1
        for row, column in np.ndindex(kernel, kernel):
            place = (i * stride + row) * width + j * stride + column
            if best < 0 or x[n, c].flat[place] > x[n, c].flat[best]:
                best = place
        values[n, c, i, j], indices[n, c, i, j] = x[n, c].flat[best], best
    return values, indices


def max_unpool_reference(x: NDArray[np.float64], indices: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.float64]:
    """The definition in plain loops: (N, C, h, w) float64 and per-plane int64 indices to (N, C, H, W).

    Raises:
        ValueError: an index outside the plane.
    """
    out = np.zeros((*x.shape[:2], size[0] * size[1]))
    for n, c, i, j in np.ndindex(*x.shape):
        index = int(indices[n, c, i, j])
        if not 0 <= index < size[0] * size[1]:
            raise ValueError(f"max_unpool: index {index}, expected 0..{size[0] * size[1] - 1}")
        out[n, c, index] = x[n, c, i, j]
    return out.reshape(*x.shape[:2], *size)


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
