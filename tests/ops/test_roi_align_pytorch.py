"""``edgeseg::roi_align``: against plain loops, its gradient, compiled and under autocast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the operator needs the train extra")

from edgeseg.ops.pytorch.roi_align import roi_align  # noqa: E402
from edgeseg.ops.roi_align import roi_align_reference  # noqa: E402
from tests.ops.roi_align_cases import Case, cases, make, spoil  # noqa: E402


def arguments(case: Case, features: Any = None) -> tuple[Any, ...]:
    o = case.options
    maps = [torch.from_numpy(level) for level in case.features] if features is None else list(features)
    return (
        *(torch.from_numpy(case.rois), torch.from_numpy(case.images), maps, o.output_height, o.output_width),
        *(o.sampling_ratio, o.mode, bool(o.aligned), list(o.spatial_scales), o.canonical_size, o.canonical_level),
    )


@settings(max_examples=60)
@given(cases, st.sampled_from(["float32", "float64", "float16", "int8"]))
def test_it_agrees_with_loops(case: Case, dtype: str) -> None:
    typed = case.typed("float16" if dtype == "float16" else "int8" if dtype == "int8" else "float32")
    features = [torch.from_numpy(level).to(getattr(torch, dtype)) for level in typed.features]
    found = roi_align(*arguments(typed, features))
    assert found.dtype == features[0].dtype
    expected = roi_align_reference(*typed.arguments)
    tolerance = {"float32": 1e-6, "float64": 1e-6, "float16": 1e-3, "int8": 0.0}[dtype] * typed.scale
    slack = 0.5 + 2e-4 if dtype == "int8" else tolerance
    assert np.abs(found.double().numpy() - expected).max(initial=0) <= slack


@settings(max_examples=30)
@given(cases, st.integers(0, 10**6))
def test_any_box_is_defined(case: Case, seed: int) -> None:
    spoiled = spoil(case, seed)
    found = roi_align(*arguments(spoiled)).numpy()
    assert np.abs(found - roi_align_reference(*spoiled.arguments)).max(initial=0) <= 1e-6 * spoiled.scale


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_gradient(ratio: int, aligned: bool, mode: str) -> None:
    case = make(3, levels=2, ratio=ratio, aligned=aligned, size=(7, 6), channels=2, count=7, mode=mode)
    maps = [torch.from_numpy(level).double().requires_grad_() for level in case.features]
    assert torch.autograd.gradcheck(lambda *levels: roi_align(*arguments(case, levels)), maps)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_schema_fake_and_gradient_hold_together(ratio: int, mode: str) -> None:
    case = make(3, levels=2, ratio=ratio, size=(7, 6), channels=2, count=4, mode=mode)
    maps = [torch.from_numpy(level).requires_grad_() for level in case.features]
    results = torch.library.opcheck(roi_align, arguments(case, maps))
    assert set(results.values()) == {"SUCCESS"}


def test_the_maximums_gradient_goes_to_one_pixel_a_bin() -> None:
    case = make(1, mode="max", ratio=2, channels=3, count=5)
    maps = [torch.from_numpy(level).requires_grad_() for level in case.features]
    pooled = roi_align(*arguments(case, maps))
    pooled[0, 1, 0, 0].backward()
    touched = sum(int(level.grad.count_nonzero()) for level in maps)
    # The value is weight times pixel, so that the gradient, the weight, times that pixel is the value again.
    value = sum(float((level.grad * level.detach()).sum()) for level in maps)
    assert touched <= 1
    assert value == pytest.approx(float(pooled[0, 1, 0, 0].detach()), abs=1e-6)
    assert touched == 1 or value == 0


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_the_gradient_does_not_depend_on_the_memory_format(mode: str) -> None:
    case = make(4, mode=mode, levels=2, channels=3, count=6)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [torch.from_numpy(level).contiguous(memory_format=layout).requires_grad_() for level in case.features]
        roi_align(*arguments(case, maps)).square().sum().backward()
        grads.append([level.grad for level in maps])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*grads, strict=True))
    assert any(grad.any() for grad in grads[0])


def test_autocast_changes_nothing() -> None:
    case = make(2)
    plain = roi_align(*arguments(case))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(roi_align(*arguments(case)), plain)


def test_half_features_get_half_gradients() -> None:
    case = make(2)
    maps = [torch.from_numpy(level).bfloat16().requires_grad_() for level in case.features]
    roi_align(*arguments(case, maps)).sum().backward()
    exact = [torch.from_numpy(level).requires_grad_() for level in case.features]
    roi_align(*arguments(case, exact)).sum().backward()
    for half, full in zip(maps, exact, strict=True):
        assert half.grad.dtype == torch.bfloat16
        assert torch.allclose(half.grad.float(), full.grad, rtol=1e-2, atol=1e-3)


def test_wrong_arguments_are_refused() -> None:
    case = make(1)
    rois, *others = arguments(case)
    with pytest.raises(ValueError, match=r"expected \(K, 4\)"):
        roi_align(rois[:2], *others)
    with pytest.raises(ValueError, match="sampling_ratio"):
        roi_align(rois, *others[:4], -1, *others[5:])
