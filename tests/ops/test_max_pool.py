"""The PyTorch operators and the index conventions: against plain loops, against torch, and with indices that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the operators need the train extra")
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.ops.max_pool import (
    Window,
    from_onnx_indices,
    max_pool_argmax_reference,
    max_pool_indices_reference,
    max_unpool_indices_reference,
    max_unpool_reference,
    to_onnx_indices,
)
from edgeseg.ops.pytorch.max_pool import (
    _last_of_each,
    max_pool_argmax,
    max_pool_indices,
    max_unpool,
    max_unpool_codes,
)

shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9))


def draw(shape: tuple[int, ...], seed: int, ties: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return torch.randint(0, 3, shape, generator=generator).double()
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=25)
@given(shapes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_pooling_agrees_with_loops_and_torch(shape: tuple[int, ...], kernel: int, stride: int, seed: int, ties: bool) -> None:
    x = draw(shape, seed, ties)
    values, indices = max_pool_indices(x, kernel, stride)
    expected, places = max_pool_indices_reference(x.numpy(), Window((kernel, kernel), (stride, stride)))
    assert np.array_equal(values.numpy(), expected)
    assert np.array_equal(indices.numpy(), from_onnx_indices(places, (shape[2], shape[3])))
    theirs = F.max_pool2d(x, kernel, stride, return_indices=True)
    assert torch.equal(values, theirs[0])
    assert torch.equal(indices, theirs[1])


@settings(max_examples=25)
@given(shapes, st.integers(0, 99))
def test_unpooling_agrees_with_loops_and_torch(shape: tuple[int, ...], seed: int) -> None:
    x = draw(shape, seed)
    size = (shape[2], shape[3])
    values, indices = max_pool_indices(x, 2, 2)
    y = max_unpool(values, indices, *size)
    assert np.array_equal(y.numpy(), max_unpool_indices_reference(values.numpy(), to_onnx_indices(indices.numpy(), size), size))
    assert torch.equal(y, F.max_unpool2d(values, indices, 2, 2, output_size=size))
    # The maxima are where they were, and zeros elsewhere.
    assert torch.equal(y[y != 0], x[y != 0])
    assert torch.equal(F.max_pool2d(y.clamp(min=0), 2, 2), values.clamp(min=0))


@settings(max_examples=25)
@given(shapes, st.integers(0, 99))
def test_index_conventions_convert_both_ways(shape: tuple[int, ...], seed: int) -> None:
    size = (shape[2], shape[3])
    local = max_pool_indices(draw(shape, seed), 2, 2)[1].numpy()
    whole = to_onnx_indices(local, size)
    # ONNX's index counts in the flattened (N, C, H, W) tensor.
    flat = draw(shape, seed).numpy().ravel()
    assert np.array_equal(flat[whole], max_pool_indices(draw(shape, seed), 2, 2)[0].numpy())
    assert np.array_equal(from_onnx_indices(whole, size), local)


def test_an_onnx_index_of_another_plane_is_refused() -> None:
    whole = np.arange(4, dtype=np.int64).reshape(1, 4, 1, 1) * 4
    assert from_onnx_indices(whole, (2, 2)).ravel().tolist() == [0, 0, 0, 0]
    for bad in (whole[:, ::-1], whole - 1, whole + 2**32):
        with pytest.raises(ValueError, match="outside its own plane"):
            from_onnx_indices(bad, (2, 2))


# --- indices that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 16, 17, 2**32 + 3, -(2**40)])
def test_an_index_outside_the_plane_is_refused(bad: int) -> None:
    x = torch.ones(1, 2, 2, 2)
    indices = torch.tensor([0, 2, 8, 10]).repeat(2).view(1, 2, 2, 2)
    indices[0, 1, 1, 1] = bad
    with pytest.raises(ValueError, match=r"expected 0\.\.15"):
        max_unpool(x, indices, 4, 4)
    if not 0 <= bad < 2 * 16:  # an index of ONNX may name a place of another plane
        with pytest.raises(ValueError, match=r"expected 0\.\.31"):
            max_unpool_indices_reference(x.double().numpy(), indices.numpy(), (4, 4))


def test_the_later_of_two_values_for_one_place_stays() -> None:
    x = torch.arange(1.0, 5.0).view(1, 1, 2, 2)
    indices = torch.tensor([5, 5, 5, 0]).view(1, 1, 2, 2)
    for _ in range(3):
        y = max_unpool(x, indices, 4, 4)
        assert (y[0, 0, 1, 1], y[0, 0, 0, 0], y.sum()) == (3, 4, 7)
    assert np.array_equal(y.numpy(), max_unpool_indices_reference(x.double().numpy(), indices.numpy(), (4, 4)))


@settings(max_examples=25)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_duplicates_follow_the_rule_whatever_order_a_scatter_takes(n: int, c: int, count: int, size: int, seed: int) -> None:
    values = draw((n, c, count), seed)
    places = torch.randint(0, size, (n, c, count), generator=torch.Generator().manual_seed(seed))
    settled = _last_of_each(places, values, size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    shuffled = values.new_zeros(n, c, size).scatter_(2, places[..., order], settled[..., order])
    whole = to_onnx_indices(places.numpy()[..., None], (size, 1))
    expected = max_unpool_indices_reference(values.numpy()[..., None], whole, (size, 1))[..., 0]
    assert np.array_equal(shuffled.numpy(), expected)


@pytest.mark.parametrize("indices", [torch.zeros(1, 1, 2, 3, dtype=torch.int64), torch.zeros(1, 1, 2, 2, dtype=torch.int32)])
def test_indices_of_another_shape_or_type_are_refused(indices: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="int64"):
        max_unpool(torch.ones(1, 1, 2, 2), indices, 4, 4)


def test_empty_batch() -> None:
    values, indices = max_pool_indices(torch.zeros(0, 2, 4, 4), 2, 2)
    assert values.shape == (0, 2, 2, 2)
    assert max_unpool(values, indices, 4, 4).shape == (0, 2, 4, 4)


# --- codes ---------------------------------------------------------------------------------------------------------------

windows = st.builds(
    lambda kernel, strides, pads: Window(kernel, strides, tuple(min(pad, kernel[a % 2] - 1) for a, pad in enumerate(pads))),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 2)] * 4),
)


def options(window: Window) -> tuple[list[int], list[int], list[int]]:
    return list(window.kernel), list(window.strides), list(window.pads)


@settings(max_examples=40)
@given(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
    windows,
    st.integers(0, 99),
    st.booleans(),
)
def test_codes_agree_with_loops(shape: tuple[int, ...], window: Window, seed: int, ties: bool) -> None:
    x = draw(shape, seed, ties)
    values, codes = max_pool_argmax(x, *options(window))
    expected = max_pool_argmax_reference(x.numpy(), window)
    assert np.array_equal(values.numpy(), expected[0])
    assert np.array_equal(codes.numpy(), expected[1])
    for size in ([], [shape[2], shape[3]], [shape[2] + 1, shape[3] - 1]):
        y = max_unpool_codes(values, codes, *options(window), size)
        assert np.array_equal(y.numpy(), max_unpool_reference(values.numpy(), codes.numpy(), window, tuple(size) or None))


def test_a_window_of_minus_infinity_names_its_first_place_inside() -> None:
    x = torch.full((1, 1, 3, 3), float("-inf"), dtype=torch.float64)
    window = Window((3, 2), (2, 2), (1, 1, 1, 1))
    codes = max_pool_argmax(x, *options(window))[1]
    assert codes.flatten().tolist() == [3, 2, 1, 0]
    assert np.array_equal(codes.numpy(), max_pool_argmax_reference(x.numpy(), window)[1])


@pytest.mark.parametrize("code", [4, 7, 255])
def test_a_code_outside_its_window_names_no_place(code: int) -> None:
    codes = torch.full((1, 1, 2, 2), code, dtype=torch.uint8)
    assert not max_unpool_codes(torch.ones(1, 1, 2, 2), codes, [2, 2], [2, 2], [0] * 4, []).any()


def test_codes_of_another_shape_or_type_are_refused() -> None:
    for codes in (torch.zeros(1, 1, 2, 3, dtype=torch.uint8), torch.zeros(1, 1, 2, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="uint8"):
            max_unpool_codes(torch.ones(1, 1, 2, 2), codes, [2, 2], [2, 2], [0] * 4, [])


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 3)])
def test_pooling_gradient(kernel: int, stride: int) -> None:
    # Distinct values: at a tie the maximum has no derivative.
    x = torch.randperm(2 * 2 * 6 * 7, generator=torch.Generator().manual_seed(0)).double().view(2, 2, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda item: max_pool_indices(item, kernel, stride)[0], (x,), eps=1e-3)


def test_unpooling_gradient() -> None:
    values, indices = max_pool_indices(draw((2, 2, 6, 5), 0), 2, 2)
    values = values.requires_grad_()
    assert torch.autograd.gradcheck(lambda item: max_unpool(item, indices, 6, 5), (values,))


def test_operators_are_registered_as_torch_demands() -> None:
    x = torch.randn(1, 2, 6, 5, requires_grad=True)
    torch.library.opcheck(max_pool_indices, (x, 2, 2))
    values, indices = max_pool_indices(x.detach(), 2, 2)
    torch.library.opcheck(max_unpool, (values.requires_grad_(), indices, 6, 5))


@pytest.mark.parametrize(
    "window", [Window((2, 2), (2, 2)), Window((3, 3), (2, 2), (1, 1, 1, 1)), Window((3, 2), (1, 2), (2, 0, 1, 1))]
)
def test_gradients_of_codes(window: Window) -> None:
    x = torch.randperm(2 * 2 * 6 * 7, generator=torch.Generator().manual_seed(0)).double().view(2, 2, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda item: max_pool_argmax(item, *options(window))[0], (x,), eps=1e-3)
    values, codes = max_pool_argmax(x.detach(), *options(window))
    # Overlapping windows share maxima: here the values are told apart, so that only the later may have a gradient.
    values = values.copy_(draw(tuple(values.shape), 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda item: max_unpool_codes(item, codes, *options(window), [6, 7]), (values,))


def test_code_operators_are_registered_as_torch_demands() -> None:
    x = torch.randn(1, 2, 6, 5, requires_grad=True)
    window = options(Window((3, 3), (2, 2), (1, 1, 1, 1)))
    torch.library.opcheck(max_pool_argmax, (x, *window))
    values, codes = max_pool_argmax(x.detach(), *window)
    torch.library.opcheck(max_unpool_codes, (values.requires_grad_(), codes, *window, [6, 5]))
    torch.library.opcheck(max_unpool_codes, (values, codes, *window, []))
