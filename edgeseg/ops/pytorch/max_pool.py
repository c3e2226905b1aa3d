"""Max-pooling that remembers where, and max-unpooling, for PyTorch: by its indices, which count inside their (H, W) plane,

and by our codes, which count inside their window (edgeseg/ops/max_pool.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    return values.gather(2, _last_positions(places, size))


def _last_positions(places: Tensor, size: int) -> Tensor:
    """For each value the position of the last value for the same place."""
    order = torch.arange(places.shape[2], device=places.device).expand_as(places)
    last = places.new_zeros(*places.shape[:2], size).scatter_reduce_(2, places, order, "amax")
    return last.gather(2, places)


@max_unpool.register_fake
def _(x: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty(*x.shape[:2], height, width)


def _unpool_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _unpool_backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (indices,) = ctx.saved_tensors  # type: ignore[attr-defined]
    return grad.flatten(2).gather(2, indices.flatten(2)).view_as(indices), None, None, None


max_unpool.register_autograd(_unpool_backward, setup_context=_unpool_context)


# --- codes ---------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("edgeseg::max_pool_argmax", mutates_args=())
def max_pool_argmax(x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pool (N, C, H, W); values (N, C, h, w) and each window's code uint8.

    The first of equal maxima is named; of several NaN the last, as in PyTorch itself.

    Args:
        kernel, stride: rows, columns.
        pads: top, left, bottom, right.
    """
    top, left, bottom, right = pads
    padded = F.pad(x, (left, right, top, bottom), value=float("-inf"))
    values, places = F.max_pool2d(padded, list(kernel), list(stride), return_indices=True)
    rows, columns = _corners(places.shape[2:], stride, (top, left), x.device)
    # A window of minus infinity alone names padding: it is to name its first place inside the plane.
    row = (places // padded.shape[3] - top).clamp(min=0) - rows
    column = (places % padded.shape[3] - left).clamp(min=0) - columns
    return values.contiguous(), (row * kernel[1] + column).to(torch.uint8).contiguous()


def _corners(pooled: Sequence[int], stride: Sequence[int], pads: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row (h, 1) and column (w) of the first place of every window."""
    rows = torch.arange(pooled[0], device=device) * stride[0] - pads[0]
    return rows[:, None], torch.arange(pooled[1], device=device) * stride[1] - pads[1]


@max_pool_argmax.register_fake
def _(x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int]) -> tuple[Tensor, Tensor]:
    height, width = ((x.shape[2 + a] + pads[a] + pads[a + 2] - kernel[a]) // stride[a] + 1 for a in (0, 1))
    shape = (*x.shape[:2], height, width)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)


def _places(codes: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], size: Sequence[int]) -> Tensor:
    """The place in its plane that each code names, one past the plane's last for none: (N, C, h * w) int64."""
    code = codes.long()
    rows, columns = _corners(codes.shape[2:], stride, pads[:2], codes.device)
    row, column = code // kernel[1] + rows, code % kernel[1] + columns
    inside = (code < kernel[0] * kernel[1]) & (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    return torch.where(inside, row * size[1] + column, size[0] * size[1]).flatten(2)


def _pool_codes_context(
    ctx: Any,
    inputs: tuple[Tensor, Sequence[int], Sequence[int], Sequence[int]],
    output: tuple[Tensor, Tensor],
) -> None:
    x, kernel, stride, pads = inputs
    ctx.save_for_backward(output[1])
    ctx.window, ctx.input_size = (kernel, stride, pads), x.shape[2:]


def _pool_codes_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    (codes,) = ctx.saved_tensors
    kernel, stride, pads = ctx.window
    height, width = ctx.input_size
    places = _places(codes, kernel, stride, pads, (height, width))
    flat = grad.new_zeros(*grad.shape[:2], height * width + 1)
    flat.scatter_add_(2, places, grad.flatten(2))
    return flat[..., :-1].view(*grad.shape[:2], height, width), None, None, None


max_pool_argmax.register_autograd(_pool_codes_backward, setup_context=_pool_codes_context)


@torch.library.custom_op("edgeseg::max_unpool_codes", mutates_args=())
def max_unpool_codes(
    y: Tensor, codes: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], output_size: Sequence[int]
) -> Tensor:
    """Put each value of (N, C, h, w) where its code says in zeros (N, C, height, width).

    Where two values name one place the later in row-major order stays; a code outside the window or plane names none.

    Args:
        output_size: (height, width), or empty for the smallest plane that pools to (h, w).

    Raises:
        ValueError: codes of another shape or type.
    """
    if codes.shape != y.shape or codes.dtype != torch.uint8:
        raise ValueError(f"max_unpool_codes: codes {tuple(codes.shape)} {codes.dtype}, expected {tuple(y.shape)} uint8")
    height, width = _unpooled(y.shape, kernel, stride, pads, output_size)
    places, values = _places(codes, kernel, stride, pads, (height, width)), y.flatten(2).contiguous()
    if y.device.type != "cpu":
        values = _last_of_each(places, values, height * width + 1)
    flat = y.new_zeros(*y.shape[:2], height * width + 1).scatter_(2, places, values)
    return flat[..., :-1].reshape(*y.shape[:2], height, width).contiguous()


def _unpooled(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], output_size: Sequence[int]
) -> tuple[int, int]:
    if output_size:
        return output_size[0], output_size[1]
    height, width = ((shape[2 + a] - 1) * stride[a] + kernel[a] - pads[a] - pads[a + 2] for a in (0, 1))
    return height, width


@max_unpool_codes.register_fake
def _(
    y: Tensor, codes: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], output_size: Sequence[int]
) -> Tensor:
    return y.new_empty(*y.shape[:2], *_unpooled(y.shape, kernel, stride, pads, output_size))


def _unpool_codes_context(
    ctx: Any,
    inputs: tuple[Tensor, Tensor, Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
    output: Tensor,
) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.window = inputs[2:5]


def _unpool_codes_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
    (codes,) = ctx.saved_tensors
    kernel, stride, pads = ctx.window
    size = grad.shape[2] * grad.shape[3]
    places = _places(codes, kernel, stride, pads, grad.shape[2:])
    # A value that a later one replaced, or that has no place, had no part in the output.
    order = torch.arange(places.shape[2], device=places.device)
    stayed = (_last_positions(places, size + 1) == order) & (places < size)
    flat = F.pad(grad.flatten(2), (0, 1)).gather(2, places)
    return torch.where(stayed, flat, 0).view_as(codes), None, None, None, None, None


max_unpool_codes.register_autograd(_unpool_codes_backward, setup_context=_unpool_codes_context)
