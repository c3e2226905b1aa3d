"""The dense CRF behind a network's scores: kinds of outputs, two classes by one channel, and that borders move to edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeseg.errors import BackendError
from edgeseg.manifest import CrfSpec, OutputSpec
from edgeseg.metrics.boundary import BoundaryF1
from edgeseg.native import upsample_argmax
from edgeseg.postprocess.dense_crf import DenseCrf

SPEC = CrfSpec(w1=4, sigma_alpha=20, sigma_beta=12, w2=1, sigma_gamma=1)


def scene(classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame (60, 80, 3) of discs with a colour each, its labels, and coarse scores (C, 8, 10) that follow from them."""
    rng = np.random.default_rng(2)
    labels = np.zeros((60, 80), np.uint8)
    for label in range(1, classes):
        cv2.circle(labels, (int(rng.integers(10, 70)), int(rng.integers(10, 50))), int(rng.integers(9, 15)), label, -1)
    colours = rng.integers(0, 256, (classes, 3))
    frame = np.clip(colours[labels] + rng.normal(0, 5, (60, 80, 3)), 0, 255).astype(np.uint8)
    planes = [cv2.resize((labels == label).astype(np.float32), (10, 8), interpolation=cv2.INTER_AREA) for label in range(classes)]
    return frame, labels, np.log(np.stack(planes) + 0.02).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def test_borders_move_to_the_edges_of_the_picture() -> None:
    frame, labels, scores = scene()
    before, after = BoundaryF1(4, tolerance=0.0075), BoundaryF1(4, tolerance=0.0075)
    before.update(upsample_argmax(scores, (60, 80)), labels)
    found = DenseCrf(SPEC)(frame, scores)
    after.update(found, labels)
    assert found.shape == (60, 80) and found.dtype == np.uint8
    assert after.summary()["boundary_f1"] > before.summary()["boundary_f1"] + 0.1


def test_labels_are_the_argmax_of_the_marginals() -> None:
    frame, _, scores = scene()
    crf = DenseCrf(SPEC, threads=2)
    marginals = crf.marginals(frame, scores)
    assert marginals.shape == (4, 60, 80)
    assert np.abs(marginals.sum(axis=0) - 1).max() < 1e-5
    assert np.array_equal(crf(frame, scores), marginals.argmax(axis=0))


def test_probabilities_need_no_softmax() -> None:
    frame, _, scores = scene()
    fine = np.stack([cv2.resize(plane, (80, 60)) for plane in scores])  # at the frame's size both ways are the same
    expected = DenseCrf(SPEC).marginals(frame, fine)
    for kind in ("softmax", "sigmoid"):
        found = DenseCrf(SPEC, output=OutputSpec(kind=kind)).marginals(frame, softmax(fine))
        assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_one_channel_is_cut_at_the_threshold(threshold: float) -> None:
    frame, _, scores = scene(2)
    logit = scores[1:] - scores[:1]
    none = CrfSpec(w1=0, w2=0)
    for kind, values in (("logits", logit), ("sigmoid", 1 / (1 + np.exp(-logit)))):
        fine = cv2.resize(values[0], (80, 60))[None]
        found = DenseCrf(none, output=OutputSpec(kind=kind, threshold=threshold))(frame, fine)
        probability = 1 / (1 + np.exp(-fine[0])) if kind == "logits" else fine[0]
        clear = abs(probability - threshold) > 1e-4
        assert np.array_equal(found[clear], (probability > threshold)[clear])
    assert DenseCrf(none).marginals(frame, logit).shape == (2, 60, 80)


def test_a_crop_and_a_flip_need_no_copy_by_the_caller() -> None:
    frame, _, scores = scene()
    view = frame[10:50, 70:10:-1]
    assert np.array_equal(DenseCrf(SPEC)(view, scores), DenseCrf(SPEC)(view.copy(), scores))


def test_what_does_not_fit_is_named() -> None:
    frame, _, scores = scene()
    for image, values, told in (
        (frame, scores.astype(np.float64), "float32"),
        (frame, scores[0], "scores"),
        (frame[..., 0], scores, "frame"),
        (np.zeros((0, 5, 3), np.uint8), scores, "frame"),
    ):
        with pytest.raises(BackendError, match=told):
            DenseCrf(SPEC)(image, values)
    with pytest.raises(BackendError, match="labels"):
        DenseCrf(SPEC, output=OutputSpec(kind="labels"))
