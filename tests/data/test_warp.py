"""A sample is moved whole: pixels, labels, masks, boxes and points stay on one another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.data.base import IGNORE, Sample
from edgeseg.data.copy_paste import copy_paste
from edgeseg.data.transforms import Augment, elastic_field
from edgeseg.data.warp import Warp
from edgeseg.scene import Instances, mask_boxes

STILL = {"scale": (1.0, 1.0), "aspect": 1.0, "flip": False, "colour": 0.0}


def blocks(size: tuple[int, int] = (40, 60), channels: int = 3) -> Sample:
    """Two rectangles of classes 1 and 2 on class 0, each with a keypoint in its middle; the picture shows the labels."""
    labels = np.zeros(size, np.uint8)
    labels[6:16, 8:24], labels[20:36, 30:50] = 1, 2
    masks = np.stack([labels == 1, labels == 2]).astype(np.uint8)
    points = np.array([[[16, 11, 2]], [[40, 28, 2]]], np.float32)
    instances = Instances(mask_boxes(masks), np.array([1, 2]), masks=masks, keypoints=points, crowd=np.array([False, False]))
    image = np.repeat(labels[..., None] * 100, channels, axis=2)
    return Sample(image, labels, "blocks", instances, None, (labels.copy(),))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 1.0]))
def test_everything_moves_alike(seed: int, keep_aspect: bool, elastic: float) -> None:
    augment = Augment((32, 44), (0.7, 1.6), colour=0.0, base=(48, 48), keep_aspect=keep_aspect, elastic=elastic)
    out = augment.view(blocks(), np.random.default_rng(seed))
    assert out.image.shape == (32, 44, 3)
    assert out.labels.shape == (32, 44)
    assert np.array_equal(out.spaces[0], out.labels)
    found = out.instances
    assert found is not None and found.masks is not None and found.keypoints is not None
    for label, mask, box, (point,) in zip(found.classes, found.masks, found.boxes, found.keypoints, strict=True):
        assert np.array_equal(mask > 0, out.labels == label)
        assert np.array_equal(box, mask_boxes(mask[None])[0])
        if point[2]:  # visible: inside the crop, and in the middle of its rectangle, so on it
            assert out.labels[int(point[1]), int(point[0])] == label
    for label in (1, 2):
        assert (label in found.classes) == bool((out.labels == label).any())


def test_mirroring_exchanges_left_and_right_points() -> None:
    points = np.array([[[5, 7, 2], [30, 9, 1]]], np.float32)
    warp = Warp(1, 1, 0, 0, (40, 60), mirrored=True)
    assert warp.keypoints(points, [1, 0])[0].tolist() == [[30, 9, 1], [55, 7, 2]]
    assert warp.keypoints(points, None)[0].tolist() == [[55, 7, 2], [30, 9, 1]]


def test_boxes_without_masks_are_cut_at_the_crop_and_dropped_outside() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 30, 58, 38], [12, 12, 30, 20]], np.float32)
    out = Warp(2, 2, 20, 20, (24, 30)).instances(Instances(boxes, np.arange(3)))
    assert out.classes.tolist() == [2]
    assert out.boxes.tolist() == [[4, 4, 30, 20]]


def test_further_planes_are_kept_from_colour_changes_and_empty_beyond_the_picture() -> None:
    sample = blocks(channels=6)
    augment = Augment((80, 120), **{**STILL, "colour": 0.5})
    out = augment.view(sample, np.random.default_rng(0))
    inside = out.labels != IGNORE
    planes = out.image[inside][:, 3:]
    assert np.abs(planes.astype(int) - 100 * out.labels[inside][:, None]).mean() < 6, "only edges are blended"
    assert (planes == planes[:, :1]).all()
    assert not (out.image[~inside][:, 3:]).any()
    assert not np.array_equal(out.image[inside][:, :3], out.image[inside][:, 3:])


def test_elastic_displacements_are_smooth_and_of_the_stated_deviation() -> None:
    fields = np.stack([elastic_field((64, 80), 10, np.random.default_rng(seed)) for seed in range(300)])
    assert fields.shape == (300, 64, 80, 2)
    assert 9 < fields[:, 31:33, 39:41].std() < 11, "the middle is a point of the grid"
    steps = np.abs(np.diff(fields, axis=2)).max()
    assert steps < 4, "bicubic between the points of a 3x3 grid"


def test_an_empty_picture_stays_empty() -> None:
    sample = dataclasses.replace(
        blocks(), instances=Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), masks=np.zeros((0, 40, 60), np.uint8))
    )
    out = Augment((20, 20)).view(sample, np.random.default_rng(0)).instances
    assert out is not None and len(out) == 0 and out.masks is not None and out.masks.shape == (0, 20, 20)


# --- copy-paste ------------------------------------------------------------------------------------------------------


def test_pasted_objects_hide_what_is_below() -> None:
    target, source = blocks(), blocks()
    moved = np.roll(source.labels, 12, axis=1)
    masks = np.stack([moved == 1, moved == 2]).astype(np.uint8)
    instances = Instances(mask_boxes(masks), np.array([1, 2]), masks=masks, keypoints=source.instances.keypoints)
    source = Sample(np.full_like(source.image, 7), moved, "other", instances, None, (moved,))
    pasted = 0
    for seed in range(20):
        out = copy_paste(target, source, np.random.default_rng(seed))
        found = out.instances
        assert found is not None and found.masks is not None
        assert (found.masks.sum(0) <= 1).all(), "masks are disjoint"
        cover = (out.image == 7).all(2)
        assert np.array_equal(out.labels[cover], moved[cover])
        assert np.array_equal(out.labels[~cover], target.labels[~cover])
        assert np.array_equal(out.spaces[0], out.labels)
        for label, mask, box in zip(found.classes, found.masks, found.boxes, strict=True):
            assert (out.labels[mask > 0] == label).all()
            assert np.array_equal(box, mask_boxes(mask[None])[0])
        pasted += int(cover.any())
    assert pasted == 20, "at least one object each time"


def test_hidden_objects_are_dropped_and_hidden_points_marked() -> None:
    target = blocks()
    whole = np.ones((1, 40, 60), np.uint8)
    whole[:, 20:, 30:] = 0
    cover = Sample(
        np.full_like(target.image, 9),
        np.full_like(target.labels, 1),
        "cover",
        Instances(mask_boxes(whole), np.array([1]), masks=whole, keypoints=np.array([[[1, 1, 2]]], np.float32)),
        None,
        (np.full_like(target.labels, 1),),
    )
    out = copy_paste(target, cover, np.random.default_rng(0)).instances
    assert out is not None and out.keypoints is not None
    assert out.classes.tolist() == [2, 1], "the first rectangle is gone"
    assert out.keypoints[:, 0, 2].tolist() == [2, 2]
    half = whole.copy()
    half[:, :, 12:] = 0
    half[:, 8:14, 12:20] = 1
    over = dataclasses.replace(
        cover, instances=Instances(mask_boxes(half), np.array([1]), masks=half, keypoints=np.array([[[1, 1, 2]]], np.float32))
    )
    out = copy_paste(target, over, np.random.default_rng(0)).instances
    assert out is not None and out.keypoints is not None
    assert out.keypoints[0, 0].tolist() == [16, 11, 1], "hidden by what was pasted over it"


@pytest.mark.parametrize("without", ["target", "source", "crowd"])
def test_nothing_to_paste_leaves_the_picture(without: str) -> None:
    target, source = blocks(), blocks()
    if without == "target":
        target = dataclasses.replace(target, instances=None)
    elif without == "source":
        source = dataclasses.replace(source, instances=None)
    else:
        source = dataclasses.replace(source, instances=dataclasses.replace(source.instances, crowd=np.array([True, True])))
    assert copy_paste(target, source, np.random.default_rng(0)) is target
