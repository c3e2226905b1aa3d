"""The native dense CRF against exact sums over all pairs of pixels, and what must hold at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.native import _kernels, crf

DEFAULT = crf.Kernels(4.0, 67.0, 3.0, 3.0, 1.0)
WIDE = crf.Kernels(3.0, 8.0, 12.0, 2.0, 2.0)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Flat patches with a little noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    frame = np.full((height, width, 3), rng.integers(0, 256, 3), np.int64)
    for _ in range(5):
        top, left = rng.integers(0, height), rng.integers(0, width)
        frame[top : top + height // 2 + 1, left : left + width // 2 + 1] = rng.integers(0, 256, 3)
    return np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)


def logits(classes: int, height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (classes, height, width)).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def pairs(features: np.ndarray) -> np.ndarray:
    """exp(-|f_i - f_j|^2 / 2) of features (N, D), symmetrically normalised: (N, N) float64."""
    gaussian = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(axis=2))
    scale = 1 / np.sqrt(gaussian.sum(axis=1))
    return np.asarray(gaussian * scale[:, None] * scale[None])


def brute_force(frame: np.ndarray, scores: np.ndarray, kernels: crf.Kernels, iterations: int) -> np.ndarray:
    """Mean field with exact sums over all pairs: marginals (C, H, W) float64."""
    height, width = frame.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].reshape(2, -1).astype(np.float64)
    colours = frame.reshape(-1, 3).astype(np.float64) / kernels.sigma_beta
    place = np.stack([rows, columns], axis=1)
    matrix = kernels.w1 * pairs(np.hstack([place / kernels.sigma_alpha, colours])) + kernels.w2 * pairs(place / kernels.sigma_gamma)
    unary = np.log(np.maximum(softmax(scores.reshape(len(scores), -1).astype(np.float64)), crf.LEAST_PROBABILITY))
    q = softmax(unary)
    for _ in range(iterations):
        q = softmax(unary + q @ matrix)
    return q.reshape(len(scores), height, width)


def infer(frame: np.ndarray, scores: np.ndarray, kernels: crf.Kernels, iterations: int = 5, **options: object) -> tuple:
    found = np.empty((len(scores), *frame.shape[:2]), np.float32)
    labels = crf.dense_crf(frame, scores, kernels, iterations, marginals=found, **options)
    return labels, found


@pytest.mark.parametrize("kernels", [WIDE, crf.Kernels(5, 20, 25, 1, 1), crf.Kernels(2, 4, 6, 0, 1)])
@pytest.mark.parametrize("classes", [2, 5, 21])
def test_agrees_with_exact_sums(kernels: crf.Kernels, classes: int) -> None:
    frame, scores = picture(24, 32), logits(classes, 24, 32)
    labels, found = infer(frame, scores, kernels)
    exact = brute_force(frame, scores, kernels, 5)
    margin = np.sort(exact, axis=0)
    sure = margin[-1] - margin[-2] > 0.2
    # The lattice's kernel is a piecewise linear blur, not a Gaussian: some pixels near a tie fall on the other side.
    assert np.abs(found - exact).mean() < 0.01
    assert (labels == exact.argmax(axis=0)).mean() > 0.98
    assert (labels == exact.argmax(axis=0))[sure].mean() > 0.995


def test_the_smoothness_kernel_is_exact_but_for_its_cut() -> None:
    frame, scores = picture(19, 23), logits(7, 19, 23)
    for sigma in (0.7, 1.5, 3.0, 40.0):
        kernels = crf.Kernels(0, 1, 1, 3, sigma)
        assert np.abs(infer(frame, scores, kernels)[1] - brute_force(frame, scores, kernels, 5)).max() < 1e-3
    cutless = crf.Kernels(0, 1, 1, 3, 40.0)  # three deviations are more than the picture: no cut
    assert np.abs(infer(frame, scores, cutless)[1] - brute_force(frame, scores, cutless, 5)).max() < 1e-5


def test_one_colour_and_one_place_average_over_the_picture() -> None:
    """With deviations far above the picture every pixel hears the mean of all, which the lattice then gives exactly."""
    frame, scores = np.full((9, 11, 3), 77, np.uint8), logits(4, 9, 11)
    kernels = crf.Kernels(3, 1e6, 1e6, 0, 1)
    assert np.abs(infer(frame, scores, kernels)[1] - brute_force(frame, scores, kernels, 5)).max() < 1e-4


def test_no_steps_or_no_weights_leave_the_probabilities() -> None:
    frame, scores = picture(12, 10), logits(6, 12, 10)
    expected = softmax(scores.astype(np.float64))
    for kernels, iterations in ((DEFAULT, 0), (crf.Kernels(0, 1, 1, 0, 1), 3)):
        labels, found = infer(frame, scores, kernels, iterations)
        assert np.abs(found - expected).max() < 1e-4
        assert np.array_equal(labels, expected.argmax(axis=0))


def test_probabilities_and_logits_say_the_same() -> None:
    frame, scores = picture(12, 10), logits(6, 12, 10)
    same = softmax(scores).astype(np.float32)
    assert np.abs(infer(frame, scores, WIDE)[1] - infer(frame, same, WIDE, probabilities=True)[1]).max() < 1e-4


def test_coarse_scores_are_upsampled_bilinearly() -> None:
    from edgeseg.native.reference import upsample_logits

    frame, scores = picture(21, 34), logits(9, 4, 5)
    fine = upsample_logits(scores, (21, 34)).astype(np.float32)
    assert np.abs(infer(frame, scores, WIDE, 0)[1] - infer(frame, fine, WIDE, 0)[1]).max() < 1e-5


def test_classes_may_be_permuted_and_pictures_mirrored() -> None:
    frame, scores = picture(20, 26), logits(11, 20, 26)
    found = infer(frame, scores, WIDE)[1]
    order = np.random.default_rng(3).permutation(11)
    assert np.abs(infer(frame, scores[order], WIDE)[1] - found[order]).max() < 1e-5
    # The lattice lies differently under a mirrored picture.
    mirrored = infer(np.ascontiguousarray(frame[:, ::-1]), np.ascontiguousarray(scores[:, :, ::-1]), WIDE)[1][:, :, ::-1]
    assert np.abs(mirrored - found).mean() < 0.01


@pytest.mark.parametrize("classes", [2, 8, 21, 33, 256])
def test_the_same_bits_for_any_number_of_threads_and_instruction_set(classes: int) -> None:
    frame, scores = picture(37, 41), logits(classes, 10, 11)
    memory = crf.memory()
    labels, found = infer(frame, scores, DEFAULT, memory=memory)
    for threads in (2, 3, 7):
        again = infer(frame, scores, DEFAULT, threads=threads, memory=memory)
        assert np.array_equal(again[0], labels) and np.array_equal(again[1], found)
    best = _kernels.isa()
    try:
        for name in _kernels.isa_names():
            _kernels.select_isa(name)
            assert np.array_equal(infer(frame, scores, DEFAULT)[1], found), name
    finally:
        _kernels.select_isa(best)


def test_memory_of_a_larger_picture_does_no_harm() -> None:
    memory = crf.memory()
    infer(picture(50, 60, 5), logits(12, 50, 60), DEFAULT, memory=memory)
    frame, scores = picture(9, 13), logits(3, 9, 13)
    assert np.array_equal(infer(frame, scores, DEFAULT, memory=memory)[1], infer(frame, scores, DEFAULT)[1])


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([2, 3, 8, 9, 40]),
    st.sampled_from([1e-30, 1e-3, 0.5, 3.0, 80.0, 1e30]),
    st.sampled_from([1e-30, 0.1, 5.0, 1e30]),
    st.integers(0, 3),
)
def test_any_size_and_any_deviation(height: int, width: int, classes: int, position: float, colour: float, iterations: int) -> None:
    rng = np.random.default_rng(height * 100 + width)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    scores = logits(classes, max(1, height // 2), max(1, width // 3))
    labels, found = infer(frame, scores, crf.Kernels(3, position, colour, 2, min(position, 100.0)), iterations, threads=2)
    assert np.isfinite(found).all()
    assert np.abs(found.sum(axis=0) - 1).max() < 1e-4
    assert np.array_equal(labels, found.argmax(axis=0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_points_and_strips(shape: tuple[int, int]) -> None:
    frame, scores = picture(*shape), logits(5, *shape)
    labels, found = infer(frame, scores, WIDE, threads=4)
    exact = brute_force(frame, scores, WIDE, 5)
    assert np.abs(found - exact).mean() < 0.02
    assert labels.shape == shape


def test_scores_that_are_no_numbers() -> None:
    frame, scores = picture(6, 7), logits(4, 6, 7)
    scores[0, 0, 0], scores[1, 2, 2], scores[2, 3, 3], scores[:, 5, 5] = np.nan, np.inf, -np.inf, np.nan
    labels, found = infer(frame, scores, crf.Kernels(0, 1, 1, 0, 1), 1)
    assert np.isfinite(found).all()
    assert labels[2, 2] == 1
    assert found[2, 3, 3] < 1e-4 and found[0, 0, 0] < 1e-4
    assert np.allclose(found[:, 5, 5], 0.25)
    zeros = np.zeros((4, 6, 7), np.float32)
    assert np.allclose(infer(frame, zeros, WIDE, 1, probabilities=True)[1], 0.25)


def test_bad_arguments_are_named() -> None:
    frame, scores = picture(6, 7), logits(4, 6, 7)
    for bad, told in (
        ({"frame": frame[..., 0]}, "frame"),
        ({"frame": frame.astype(np.float32)}, "uint8"),
        ({"frame": frame[:0]}, "side of 0"),
        ({"scores": scores[:1]}, "C in 2..256"),
        ({"scores": scores.astype(np.float64)}, "float32"),
        ({"kernels": crf.Kernels(-1, 1, 1, 1, 1)}, "w1"),
        ({"kernels": crf.Kernels(1, 0, 1, 1, 1)}, "sigma_alpha"),
        ({"kernels": crf.Kernels(1, 1, float("nan"), 1, 1)}, "sigma_beta"),
        ({"kernels": crf.Kernels(1, 1, 1, 1, float("inf"))}, "sigma_gamma"),
        ({"iterations": -1}, "iterations"),
        ({"threads": 0}, "threads"),
        ({"least": 0.0}, "least"),
        ({"marginals": np.empty((4, 6, 8), np.float32)}, "marginals"),
    ):
        arguments = {"frame": frame, "scores": scores, "kernels": WIDE, "iterations": 1, **bad}
        with pytest.raises(ValueError, match=told):
            crf.dense_crf(**arguments)


def test_agrees_with_pydensecrf() -> None:
    """The authors' code behind pydensecrf, which sums both kernels on lattices."""
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed")
    frame, scores = picture(60, 80), logits(9, 60, 80)
    unary = -np.log(np.maximum(softmax(scores.astype(np.float64)), crf.LEAST_PROBABILITY)).astype(np.float32)
    model = densecrf.DenseCRF2D(80, 60, 9)
    model.setUnaryEnergy(np.ascontiguousarray(unary.reshape(9, -1)))
    model.addPairwiseBilateral(sxy=WIDE.sigma_alpha, srgb=WIDE.sigma_beta, rgbim=frame, compat=WIDE.w1)
    theirs = np.array(model.inference(5)).reshape(9, 60, 80)
    labels, found = infer(frame, scores, crf.Kernels(WIDE.w1, WIDE.sigma_alpha, WIDE.sigma_beta, 0, 1))
    assert np.abs(found - theirs).mean() < 2e-3
    assert (labels == theirs.argmax(axis=0)).mean() > 0.99
