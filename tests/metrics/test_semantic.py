"""The four figures against a hand example and against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import DataError
from edgeseg.metrics.semantic import ConfusionMatrix

# Long, Shelhamer, Darrell, section 5, by hand: rows are truth.
TRUE = np.array([[0, 0, 0, 1], [1, 1, 2, 255]], np.uint8)
GUESS = np.array([[0, 0, 1, 1], [1, 0, 2, 2]], np.uint8)


def matrix(num_classes: int, predicted: np.ndarray, true: np.ndarray, ignore: int = 255) -> ConfusionMatrix:
    made = ConfusionMatrix(num_classes, ignore)
    made.update(predicted, true)
    return made


def test_hand_example() -> None:
    found = matrix(4, GUESS, TRUE)
    assert found.counts.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.per_class_iou[:3].tolist() == [2 / 4, 2 / 4, 1]
    assert math.isnan(found.per_class_iou[3])
    assert math.isnan(found.per_class_accuracy[3])
    expected = {
        "mean_iou": 2 / 3,
        "pixel_accuracy": 5 / 7,
        "mean_accuracy": (2 / 3 + 2 / 3 + 1) / 3,
        "fw_iou": (3 * 0.5 * 2 + 1) / 7,
    }
    assert found.summary() == pytest.approx(expected)


def test_a_class_that_is_only_predicted_counts_as_zero_iou() -> None:
    found = matrix(2, np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8))
    assert found.per_class_iou.tolist() == [0.5, 0]
    assert found.mean_iou == 0.25
    assert found.mean_accuracy == 0.5  # class 1 has no pixels, so no accuracy


def loops(num_classes: int, predicted: np.ndarray, true: np.ndarray, ignore: int) -> dict[str, float]:
    """The definitions, pixel by pixel and class by class."""
    n = [[0] * num_classes for _ in range(num_classes)]
    for p, t in zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True):
        if t != ignore:
            n[t][p] += 1
    t = [sum(row) for row in n]
    union = [t[i] + sum(n[j][i] for j in range(num_classes)) - n[i][i] for i in range(num_classes)]
    ious = [n[i][i] / union[i] for i in range(num_classes) if union[i]]
    accuracies = [n[i][i] / t[i] for i in range(num_classes) if t[i]]
    total = sum(t)
    return {
        "mean_iou": sum(ious) / len(ious) if ious else math.nan,
        "pixel_accuracy": sum(n[i][i] for i in range(num_classes)) / total if total else math.nan,
        "mean_accuracy": sum(accuracies) / len(accuracies) if accuracies else math.nan,
        "fw_iou": sum(t[i] * n[i][i] / union[i] for i in range(num_classes) if t[i]) / total if total else math.nan,
    }


@given(st.integers(1, 256), st.sampled_from([255, 0, 7]), st.integers(0, 10**6), st.floats(0, 1))
def test_agrees_with_loops(num_classes: int, ignore: int, seed: int, ignored: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2))
    predicted = rng.integers(0, num_classes, shape, dtype=np.uint8, endpoint=False)
    true = rng.integers(0, num_classes, shape, dtype=np.uint8)
    true[rng.random(shape) < ignored] = ignore
    found = matrix(num_classes, predicted, true, ignore)
    assert found.summary() == pytest.approx(loops(num_classes, predicted, true, ignore), nan_ok=True)
    assert found.counts.sum() == (true != ignore).sum()


def test_nothing_labelled_is_nan_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    blank = np.full((3, 3), 255, np.uint8)
    assert all(math.isnan(value) for value in matrix(3, np.zeros((3, 3), np.uint8), blank).summary().values())
    assert not recwarn.list


def test_frames_add_up_and_merge() -> None:
    together = ConfusionMatrix(4)
    together.update(GUESS, TRUE)
    together.update(TRUE[:1], TRUE[:1])
    first, second = matrix(4, GUESS, TRUE), matrix(4, TRUE[:1], TRUE[:1])
    first.merge(second)
    assert np.array_equal(first.counts, together.counts)
    with pytest.raises(DataError, match="5 classes"):
        first.merge(ConfusionMatrix(5))


def test_a_large_frame_does_not_overflow() -> None:
    frame = np.zeros((3000, 3000), np.uint8)
    assert matrix(2, frame, frame).counts[0, 0] == 9_000_000


@pytest.mark.parametrize(
    ("predicted", "true", "told"),
    [
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), "true label 3"),
        (np.full((2, 2), 5, np.uint8), np.zeros((2, 2), np.uint8), "predicted label 5"),
        (np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), "predicted label 255"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8), r"shape \(2, 3\)"),
        (np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8), "int64"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), -1, np.int32), "int32"),
    ],
)
def test_bad_label_maps(predicted: np.ndarray, true: np.ndarray, told: str) -> None:
    found = ConfusionMatrix(3)
    with pytest.raises(DataError, match=told):
        found.update(predicted, true)
    assert not found.counts.any()


def test_a_bad_prediction_where_truth_is_ignored_does_not_count() -> None:
    found = matrix(3, np.full((1, 1), 200, np.uint8), np.full((1, 1), 255, np.uint8))
    assert not found.counts.any()
