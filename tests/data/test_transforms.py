"""Augmentation: picture and labels move together, labels stay labels, what is outside is ignored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data.base import IGNORE
from edgeseg.data.transforms import Augment, jitter_colour
from edgeseg.errors import DataError

STILL = {"scale": (1.0, 1.0), "aspect": 1.0, "flip": False, "colour": 0.0}


def coded(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose every pixel tells its own label: 20 times the label in each channel."""
    labels = (np.add.outer(np.arange(height) // 8, np.arange(width) // 8) % 11).astype(np.uint8)
    return np.repeat(labels[..., None] * 20, 3, axis=2).astype(np.uint8), labels


def test_nothing_asked_is_nothing_done() -> None:
    image, labels = coded(40, 56)
    out, marks = Augment(crop=(40, 56), **STILL)(image, labels, np.random.default_rng(0))
    assert np.array_equal(out, image) and np.array_equal(marks, labels)


@given(
    crop=st.tuples(st.integers(8, 80), st.integers(8, 80)),
    size=st.tuples(st.integers(16, 70), st.integers(16, 70)),
    low=st.floats(0.3, 1.0),
    high=st.floats(1.0, 3.0),
    seed=st.integers(0, 1000),
)
def test_shape_types_and_values_hold_for_any_size(
    crop: tuple[int, int], size: tuple[int, int], low: float, high: float, seed: int
) -> None:
    image, labels = coded(*size)
    out, marks = Augment(crop=crop, scale=(low, high))(image, labels, np.random.default_rng(seed))
    assert out.shape == (*crop, 3) and marks.shape == crop
    assert out.dtype == marks.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"] and marks.flags["C_CONTIGUOUS"]
    assert set(np.unique(marks)) <= {*np.unique(labels), IGNORE}


@pytest.mark.parametrize("seed", range(6))
def test_picture_and_labels_stay_aligned(seed: int) -> None:
    image, labels = coded(96, 128)
    augment = Augment(crop=(64, 80), scale=(1.0, 2.0), colour=0.0)
    out, marks = augment(image, labels, np.random.default_rng(seed))
    known = marks != IGNORE
    agree = np.abs(out[..., 0].astype(int) - 20 * marks.astype(int)) < 12
    assert known.mean() > 0.9 and agree[known].mean() > 0.85


def test_uncovered_pixels_are_grey_and_ignored() -> None:
    image, labels = coded(16, 16)
    out, marks = Augment(crop=(48, 48), **STILL)(image, labels, np.random.default_rng(3))
    outside = marks == IGNORE
    assert outside.sum() == 48 * 48 - 16 * 16
    assert (out[outside] == 114).mean() > 0.97
    rows, columns = np.nonzero(~outside)
    inside = marks[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(inside, labels)


def test_ignored_pixels_stay_ignored() -> None:
    image, labels = coded(40, 40)
    labels[:, :20] = IGNORE
    _, marks = Augment(crop=(40, 40), **STILL)(image, labels, np.random.default_rng(0))
    assert np.array_equal(marks, labels)


def test_flip_mirrors_both_about_half_of_the_time() -> None:
    image, labels = coded(24, 32)
    augment = Augment(crop=(24, 32), **{**STILL, "flip": True})
    mirrored = 0
    for seed in range(60):
        out, marks = augment(image, labels, np.random.default_rng(seed))
        if np.array_equal(marks, labels[:, ::-1]):
            assert np.array_equal(out, image[:, ::-1])
            mirrored += 1
        else:
            assert np.array_equal(marks, labels) and np.array_equal(out, image)
    assert 15 < mirrored < 45


def test_crops_reach_every_corner() -> None:
    image, labels = coded(64, 64)
    labels = np.arange(64, dtype=np.uint8)[None].repeat(64, axis=0)
    augment = Augment(crop=(32, 32), **STILL)
    lefts = [int(augment(image, labels, np.random.default_rng(seed))[1][0, 0]) for seed in range(200)]
    assert min(lefts) <= 1 and max(lefts) >= 31


def test_base_size_is_what_zoom_one_means() -> None:
    image, labels = coded(80, 160)
    out, marks = Augment(crop=(40, 80), **STILL, base=(40, 80))(image, labels, np.random.default_rng(0))
    assert (marks != IGNORE).all()
    expected = labels[1::2, 1::2]
    assert (marks == expected).mean() > 0.95 and out.shape == (40, 80, 3)


def test_same_generator_same_view() -> None:
    image, labels = coded(50, 60)
    augment = Augment(crop=(32, 32))
    first, second = (augment(image, labels, np.random.default_rng([7, 3])) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_colour_changes_the_picture_only_and_stays_in_range() -> None:
    image, labels = coded(32, 32)
    out, marks = Augment(crop=(32, 32), **{**STILL, "colour": 0.5})(image, labels, np.random.default_rng(1))
    assert np.array_equal(marks, labels) and not np.array_equal(out, image)


def test_zero_strength_colour_is_the_identity() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.abs(jitter_colour(image, 0.0, np.random.default_rng(0)).astype(int) - image).max() <= 1


@pytest.mark.parametrize("scale", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_wrong_scale_range_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="scale range"):
        Augment(crop=(8, 8), scale=scale)
