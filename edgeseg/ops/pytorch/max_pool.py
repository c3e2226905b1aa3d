"""Max-pooling with indices and max-unpooling for PyTorch, whose indices count inside their (H, W) plane."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("edgeseg::max_pool_indices", mutates_args=())
def max_pool_indices(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    """Pool (N, C, H, W) without padding; values (N, C, h, w) and per-plane indices int64, the first of equal maxima."""
    values, indices = F.max_pool2d(x, kernel, stride, return_indices=True)
    return values.contiguous(), indices.contiguous()


@max_pool_indices.register_fake
def _(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    height, width = ((size - kernel) // stride + 1 for size in x.shape[-2:])
    shape = (*x.shape[:2], height, width)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _pool_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, int, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.input_size = inputs[0].shape[-2:]  # type: ignore[attr-defined]


def _pool_backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    (indices,) = ctx.saved_tensors  # type: ignore[attr-defined]
    height, width = ctx.input_size  # type: ignore[attr-defined]
    flat = grad.new_zeros(*grad.shape[:2], height * width)
    # Overlapping windows may share a maximum, whose gradients add up.
    flat.scatter_add_(2, indices.flatten(2), grad.flatten(2))
    return flat.view(*grad.shape[:2], height, width), None, None


max_pool_indices.register_autograd(_pool_backward, setup_context=_pool_context)


@torch.library.custom_op("edgeseg::max_unpool", mutates_args=())
def max_unpool(x: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    """Put each value of (N, C, h, w) where its per-plane index says in zeros (N, C, height, width).

    Where two values name one place the later in row-major order stays.

    Raises:
        ValueError: indices of another shape or type, or outside 0 .. height * width - 1.
    """
    if indices.shape != x.shape or indices.dtype != torch.int64:
        raise ValueError(f"max_unpool: indices {tuple(indices.shape)} {indices.dtype}, expected {tuple(x.shape)} int64")
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= height * width):
        raise ValueError(f"max_unpool: indices {int(indices.min())}..{int(indices.max())}, expected 0..{height * width - 1}")
    flat = x.new_zeros(*x.shape[:2], height * width)
    places, values = indices.flatten(2), x.flatten(2).contiguous()
    if x.device.type != "cpu":
        values = _last_of_each(places, values, height * width)
    flat.scatter_(2, places, values)
    return flat.view(*x.shape[:2], height, width)


def _last_of_each(places: Tensor, values: Tensor, size: int) -> Tensor:
    """Values with the last of each place in all its copies: on a GPU it is open which copy a scatter writes last."""
    order = torch.arange(places.shape[2], device=places.device).expand_as(places)
    last = places.new_zeros(*places.shape[:2], size).scatter_reduce_(2, places, order, "amax")
    return values.gather(2, last.gather(2, places))


@max_unpool.register_fake
def _(x: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty(*x.shape[:2], height, width)


def _unpool_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _unpool_backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (indices,) = ctx.saved_tensors  # type: ignore[attr-defined]
    return grad.flatten(2).gather(2, indices.flatten(2)).view_as(indices), None, None, None


max_unpool.register_autograd(_unpool_backward, setup_context=_unpool_context)
