"""How our PyTorch operators become ONNX nodes: standard ``MaxPool`` with Indices and ``MaxUnpool``.

torch's own exporter decomposes these two to scatters, which no deployment runtime runs fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

import edgeseg.ops.pytorch.max_pool  # noqa: F401  registers the operators


def _max_pool_indices(x: Any, kernel: int, stride: int) -> Any:
    return op.MaxPool(x, kernel_shape=[kernel, kernel], strides=[stride, stride])


def _max_unpool(x: Any, indices: Any, height: int, width: int) -> Any:
    # Our networks unpool planes that pooled evenly, so kernel and stride alone give the size.
    return op.MaxUnpool(x, indices, kernel_shape=[2, 2], strides=[2, 2])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.edgeseg.max_pool_indices.default: _max_pool_indices,
    torch.ops.edgeseg.max_unpool.default: _max_unpool,
}


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Any:
    # The exporter's own translation wraps each parameter in Expand and CastLike, which hides it from later passes.
    y = op.BatchNormalization(x, weight, bias, mean, variance, epsilon=eps)
    return y, op.Identity(mean), op.Identity(variance)


TRANSLATIONS[torch.ops.aten._native_batch_norm_legit_no_training.default] = _batch_norm
