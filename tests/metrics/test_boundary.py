"""Boundary F1 and trimap IoU against loops over pixels, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import DataError
from edgeseg.metrics.boundary import BoundaryF1, Trimap
from edgeseg.metrics.semantic import ConfusionMatrix


def half(width: int, split: int) -> np.ndarray:
    labels = np.zeros((10, width), np.uint8)
    labels[:, split:] = 1
    return labels


def score(predicted: np.ndarray, true: np.ndarray, classes: int = 2, tolerance: float = 0.0075, ignore: int = 255) -> BoundaryF1:
    made = BoundaryF1(classes, ignore, tolerance)
    made.update(predicted, true)
    return made


def test_a_perfect_prediction_is_one() -> None:
    assert score(half(20, 8), half(20, 8)).summary() == {
        "boundary_f1": 1.0,
        "boundary_precision": 1.0,
        "boundary_recall": 1.0,
        "boundary_f1_frames": 1.0,
    }


def test_a_border_counts_up_to_the_tolerance() -> None:
    diagonal = math.hypot(10, 20)
    for shift in (1, 2, 3):
        assert score(half(20, 8 + shift), half(20, 8), tolerance=shift / diagonal).summary()["boundary_f1"] == 1
        assert score(half(20, 8 + shift), half(20, 8), tolerance=(shift - 0.01) / diagonal).summary()["boundary_f1"] == 0


def test_precision_and_recall_by_hand() -> None:
    """Truth has a border at 8; the prediction has that one and a second at 15: half of its border is wrong for class 1."""
    predicted = half(20, 8)
    predicted[:, 15:] = 0
    found = score(predicted, half(20, 8), tolerance=1 / math.hypot(10, 20))
    assert found.summary()["boundary_precision"] == pytest.approx(0.5)
    assert found.summary()["boundary_recall"] == pytest.approx(1)
    assert found.per_class().tolist() == pytest.approx([2 / 3, 2 / 3])


def test_a_class_that_only_one_of_them_has_scores_zero() -> None:
    assert score(half(20, 8), np.zeros((10, 20), np.uint8)).summary()["boundary_f1"] == 0
    found = score(np.zeros((10, 20), np.uint8), half(20, 8), classes=3)
    assert found.per_class()[:2].tolist() == [0, 0]
    assert math.isnan(found.per_class()[2])


def test_no_border_anywhere_is_nan_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    blank = np.zeros((5, 5), np.uint8)
    assert all(math.isnan(value) for value in score(blank, blank).summary().values())
    assert not recwarn.list


def test_what_is_predicted_without_truth_does_not_count() -> None:
    true, predicted = half(20, 8), half(20, 8)
    true[:, 12:] = 255
    predicted[:, 14:] = 0
    assert score(predicted, true).summary()["boundary_f1"] == 1


def loops(predicted: np.ndarray, true: np.ndarray, classes: int, tolerance: float, ignore: int) -> list[float]:
    """BF of each class in one frame from the definition, pixel by pixel."""
    height, width = true.shape

    def edge(labels: np.ndarray, wanted: int) -> list[tuple[int, int]]:
        found = []
        for y in range(height):
            for x in range(width):
                if labels[y, x] != wanted or true[y, x] == ignore:
                    continue
                near = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
                inside = [(r, c) for r, c in near if 0 <= r < height and 0 <= c < width and true[r, c] != ignore]
                if any(labels[r, c] != wanted for r, c in inside):
                    found.append((y, x))
        return found

    def near(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        reach = tolerance * math.hypot(height, width) + 1e-9
        return sum(any(math.dist(p, q) <= reach for q in others) for p in points) / len(points) if points else 0.0

    result = []
    for index in range(classes):
        a, b = edge(predicted, index), edge(true, index)
        precision, recall = near(a, b), near(b, a)
        both = precision + recall
        result.append((2 * precision * recall / both if both else 0.0) if a or b else math.nan)
    return result


@given(
    st.integers(1, 9),
    st.sampled_from([255, 0, 3]),
    st.integers(0, 10**6),
    st.floats(0, 0.3),
    st.sampled_from([0.01, 0.1, 0.17, 0.5]),
)
def test_agrees_with_loops(classes: int, ignore: int, seed: int, ignored: float, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 13, 2))
    made, expected = BoundaryF1(classes, ignore, tolerance), []
    for _ in range(2):
        predicted, true = (rng.integers(0, classes, shape, dtype=np.uint8) for _ in range(2))
        predicted = np.where(rng.random(shape) < 0.7, true, predicted).astype(np.uint8)
        true[rng.random(shape) < ignored] = ignore
        made.update(predicted, true)
        expected.append(loops(predicted, true, classes, tolerance, ignore))
    table = np.array(expected)
    counts = (~np.isnan(table)).sum(axis=0)
    means = np.where(counts > 0, np.nansum(table, axis=0) / np.maximum(counts, 1), np.nan)
    assert made.per_class() == pytest.approx(means, nan_ok=True)
    frames = [np.nanmean(row) for row in table if not np.isnan(row).all()]
    summary = made.summary()
    assert summary["boundary_f1"] == pytest.approx(np.nanmean(means) if counts.any() else math.nan, nan_ok=True)
    assert summary["boundary_f1_frames"] == pytest.approx(np.mean(frames) if frames else math.nan, nan_ok=True)


def test_frames_add_up_and_merge() -> None:
    first, second, both = score(half(20, 9), half(20, 8)), score(half(30, 8), half(30, 8)), BoundaryF1(2)
    both.update(half(20, 9), half(20, 8))
    both.update(half(30, 8), half(30, 8))
    first.merge(second)
    assert first.summary() == both.summary()
    assert first.frames == both.frames == 2
    with pytest.raises(DataError, match="5 classes"):
        first.merge(BoundaryF1(5))


@pytest.mark.parametrize(
    ("predicted", "true", "told"),
    [
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), "true label 3"),
        (np.full((2, 2), 5, np.uint8), np.zeros((2, 2), np.uint8), "predicted label 5"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8), r"shape \(2, 3\)"),
        (np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8), "int64"),
    ],
)
def test_bad_label_maps(predicted: np.ndarray, true: np.ndarray, told: str) -> None:
    for made in (BoundaryF1(3), Trimap(3)):
        with pytest.raises(DataError, match=told):
            made.update(predicted, true)


def test_trimap_counts_the_band_alone() -> None:
    true, predicted = half(20, 8), half(20, 9)
    predicted[:, 18:] = 0
    made = Trimap(2, widths=(0, 3, 100))
    made.update(predicted, true)
    for width in (0, 3, 100):
        band = true.copy()
        columns = np.arange(20)
        band[:, np.minimum(abs(columns - 7), abs(columns - 8)) > width] = 255
        expected = ConfusionMatrix(2)
        expected.update(predicted, band)
        assert made.summary()[f"trimap_{width}"] == pytest.approx(expected.mean_iou)
