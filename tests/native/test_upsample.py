"""The upsampling kernels against float64 numpy: odd sizes, ties, NaN, many classes, pruning that must not change a label."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseg import native
from edgeseg.native import _kernels, reference

any_isa = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(1, 45)


def random_logits(c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((c, h, w)).astype(np.float32)


def smooth_logits(c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    """Large regions, as a network gives them: here most cells keep one candidate."""
    coarse = random_logits(c, 3, 4, seed)
    return np.stack([cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC) for plane in coarse])


def assert_labels(got: np.ndarray, logits: np.ndarray) -> None:
    """Equal to the reference's, or within float32 rounding of its best class."""
    scores = reference.upsample_logits(logits, got.shape)
    chosen = np.take_along_axis(scores, got[None].astype(np.int64), axis=0)[0]
    assert (scores.max(axis=0) - chosen).max() <= 1e-5 * max(1.0, np.abs(scores).max())
    assert (got != scores.argmax(axis=0)).mean() <= 0.001


@given(c=st.integers(2, 45), h=sides, w=sides, out_h=sides, out_w=sides, seed=st.integers(0, 9))
@any_isa
def test_argmax_matches_reference_at_any_size(isa, c, h, w, out_h, out_w, seed):
    logits = random_logits(c, h, w, seed)
    assert_labels(native.upsample_argmax(logits, (out_h, out_w)), logits)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("make", [random_logits, smooth_logits])
def test_argmax_at_output_strides(isa, make, factor):
    logits = make(21, 13, 37)
    assert_labels(native.upsample_argmax(logits, (13 * factor, 37 * factor)), logits)


@pytest.mark.parametrize("classes", [2, 31, 32, 33, 64, 65, 255, 256])
def test_argmax_of_many_classes(isa, classes):
    logits = random_logits(classes, 7, 9)
    labels = native.upsample_argmax(logits, (28, 36))
    assert_labels(labels, logits)


def test_every_instruction_set_gives_the_same_labels():
    before, results = _kernels.isa(), []
    for name in _kernels.isa_names():
        _kernels.select_isa(name)
        results.append(native.upsample_argmax(random_logits(21, 45, 61), (181, 333)))
    _kernels.select_isa(before)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_ties_go_to_the_lowest_class(isa):
    logits = np.zeros((5, 6, 7), np.float32)
    logits[0] = -1
    logits[3] = logits[1]
    assert (native.upsample_argmax(logits, (24, 29)) == 1).all()


@given(c=st.integers(2, 8), levels=st.integers(1, 3), seed=st.integers(0, 99))
@any_isa
def test_exact_ties_at_double_size(isa, c, levels, seed):
    # Few levels and weights of quarters: float32 is exact here, so labels must be equal, ties included.
    logits = np.random.default_rng(seed).integers(0, levels + 1, (c, 6, 11)).astype(np.float32)
    assert np.array_equal(native.upsample_argmax(logits, (12, 22)), reference.upsample_argmax(logits, (12, 22)))


@given(seed=st.integers(0, 99), share=st.floats(0, 1), value=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38]))
@any_isa
def test_nan_and_infinity_are_defined(isa, seed, share, value):
    # Integer values and double size: exact in float32, with huge values dominating by their sign.
    rng = np.random.default_rng(seed)
    logits = rng.integers(-9, 10, (4, 5, 6)).astype(np.float32)
    logits[rng.random(logits.shape) < share] = value
    labels = native.upsample_argmax(logits, (10, 12))
    scores = reference.upsample_logits(logits, (10, 12))
    chosen = np.take_along_axis(scores, labels[None].astype(np.int64), axis=0)[0]
    assert np.allclose(chosen, scores.max(axis=0), rtol=1e-5, atol=1e-4)


def test_all_nan_is_class_zero(isa):
    assert (native.upsample_argmax(np.full((3, 4, 5), np.nan, np.float32), (9, 9)) == 0).all()


def test_nan_class_never_wins(isa):
    logits = random_logits(4, 6, 6)
    logits[2] = np.nan
    labels = native.upsample_argmax(logits, (24, 24))
    assert not (labels == 2).any()
    assert set(np.unique(labels)) <= {0, 1, 3}


@pytest.mark.parametrize("threads", [2, 5, 1000])
def test_threads_change_nothing(isa, threads):
    logits = smooth_logits(6, 31, 17)
    assert np.array_equal(native.upsample_argmax(logits, (123, 70), threads=threads), native.upsample_argmax(logits, (123, 70)))


def test_writes_only_its_output(isa):
    around = np.full((3, 30, 41), 77, np.uint8)
    result = native.upsample_argmax(random_logits(3, 8, 9), (30, 41), around[1])
    assert result is not None and np.shares_memory(result, around)
    assert (around[0] == 77).all() and (around[2] == 77).all() and (around[1] < 3).all()


def test_strided_logits_are_taken(isa):
    logits = random_logits(4, 16, 20)[:, ::2, ::2]
    assert np.array_equal(native.upsample_argmax(logits, (31, 33)), native.upsample_argmax(logits.copy(), (31, 33)))


@given(h=sides, w=sides, out_h=sides, out_w=sides, threshold=st.sampled_from([-0.5, 0.0, 0.3]), seed=st.integers(0, 9))
@any_isa
def test_threshold_matches_reference(isa, h, w, out_h, out_w, threshold, seed):
    logits = random_logits(1, h, w, seed)
    got = native.upsample_threshold(logits, (out_h, out_w), threshold)
    scores = reference.upsample_logits(logits, (out_h, out_w))[0]
    clear = np.abs(scores - threshold) > 1e-5
    assert np.array_equal(got[clear], (scores > threshold)[clear].astype(np.uint8))
    assert np.array_equal(got, native.upsample_threshold(logits[0], (out_h, out_w), threshold))


def test_threshold_of_nan_is_zero(isa):
    assert not native.upsample_threshold(np.full((4, 4), np.nan, np.float32), (9, 9), 0.0).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@given(h=sides, w=sides, out_h=sides, out_w=sides)
def test_nearest_matches_reference(dtype, h, w, out_h, out_w):
    labels = np.random.default_rng(h * 50 + w).integers(0, 256, (h, w)).astype(dtype)
    assert np.array_equal(native.upsample_nearest(labels, (out_h, out_w)), reference.upsample_nearest(labels, (out_h, out_w)))


def test_nearest_maps_foreign_labels_to_ignore():
    labels = np.array([[-1, 256, 3, 2**40]], np.int64)
    assert native.upsample_nearest(labels, (1, 4)).tolist() == [[255, 255, 3, 255]]


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((3, 4, 4), np.float64),
        np.zeros((1, 4, 4), np.float32),
        np.zeros((257, 4, 4), np.float32),
        np.zeros((4, 4), np.float32),
        np.zeros((3, 0, 4), np.float32),
        np.zeros((1, 3, 4, 4), np.float32),
    ],
)
def test_wrong_logits_are_refused(logits):
    with pytest.raises(ValueError, match="expected"):
        native.upsample_argmax(logits, (8, 8))


@pytest.mark.parametrize("out", [np.zeros((8, 9), np.uint8), np.zeros((8, 8), np.int32), np.zeros((8, 16), np.uint8)[:, ::2]])
def test_wrong_outputs_are_refused(out):
    with pytest.raises(ValueError, match="expected"):
        native.upsample_argmax(np.zeros((3, 4, 4), np.float32), (8, 8), out)


def test_wrong_sizes_and_types_are_refused():
    with pytest.raises(ValueError, match="expected"):
        native.upsample_argmax(np.zeros((3, 4, 4), np.float32), (0, 8))
    with pytest.raises(ValueError, match="expected"):
        native.upsample_nearest(np.zeros((4, 4), np.float32), (8, 8))
    with pytest.raises(ValueError, match="threads"):
        native.upsample_argmax(np.zeros((3, 4, 4), np.float32), (8, 8), threads=-1)
