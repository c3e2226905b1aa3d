"""Detections to instances: padding, placement, clipping, masks, keypoints, what is refused; and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import BackendError
from edgeseg.manifest import KeypointSpec, MergeSpec
from edgeseg.native.scene import paste_masks
from edgeseg.postprocess.draw import draw_instances
from edgeseg.postprocess.instances import InstanceDecoder
from edgeseg.postprocess.label_map import label_map
from edgeseg.scene import Instances
from tests.postprocess.placed import CLASSES, DOG, PERSON, letterboxed, manifest, stretched


def detections(rows: list[tuple[float, ...]], scores: list[float], classes: list[int], total: int = 6) -> dict[str, np.ndarray]:
    """A graph's outputs: the rows, then padding up to ``total``; masks are full."""
    boxes, padded_scores = np.zeros((1, total, 4), np.float32), np.zeros((1, total), np.float32)
    labels, masks = np.full((1, total), -1, np.int64), np.ones((1, total, 28, 28), np.float32)
    if rows:
        boxes[0, : len(rows)], padded_scores[0, : len(rows)], labels[0, : len(rows)] = rows, scores, classes
    return {"boxes": boxes, "scores": padded_scores, "classes": labels, "masks": masks}


A, B = (8.0, 8.0, 24.0, 40.0), (32.0, 0.0, 64.0, 24.0)


def test_padding_is_dropped_and_the_best_comes_first():
    found = InstanceDecoder(manifest("detections", "instance"))(detections([A, B], [0.3, 0.9], [DOG, PERSON]), stretched())
    assert found.classes.tolist() == [PERSON, DOG]
    assert found.scores is not None and found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert found.boxes.tolist() == [list(B), list(A)]
    assert found.masks is not None and found.masks.shape == (2, 48, 64)
    for mask, (x1, y1, x2, y2) in zip(found.masks, found.boxes.astype(int), strict=True):
        assert mask[y1:y2, x1:x2].all() and mask.sum() == (y2 - y1) * (x2 - x1)


def test_a_stretched_frame_has_two_scales():
    found = InstanceDecoder(manifest("detections", "instance"))(detections([A], [0.5], [DOG]), stretched(96, 256))
    assert found.boxes.tolist() == [[32, 16, 96, 80]]
    assert found.masks is not None and found.masks.shape == (1, 96, 256)
    assert found.masks.sum() == 64 * 64 and found.masks[0, 16:80, 32:96].all()


def test_a_letterboxed_frame_has_one_scale_and_an_edge():
    # 128 x 60 px at half the size: 64 x 30 px of input, the rest is padding.
    placement = letterboxed(60, 128)
    inside, across, below = (10.0, 10.0, 20.0, 20.0), (0.0, 20.0, 16.0, 40.0), (0.0, 31.0, 16.0, 44.0)
    outputs = detections([inside, across, below], [0.9, 0.8, 0.7], [0, 0, 0])
    outputs["masks"][0, 1, :14] = 0  # only its lower half, which lies outside of the frame
    found = InstanceDecoder(manifest("detections", "instance"))(outputs, placement)
    assert found.boxes.tolist() == [[20, 20, 40, 40], [0, 40, 32, 60]], "what lies in the padding is no object"
    assert found.masks is not None
    assert found.masks[0].sum() == 400
    assert not found.masks[1].any(), "a clipped box does not squeeze its mask"


@given(count=st.integers(0, 5), height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 999))
def test_any_size_and_number(count, height, width, seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-10, 60, (count, 2))
    rows = np.concatenate([corner, corner + rng.uniform(0, 30, (count, 2))], axis=1)
    outputs = detections([tuple(row) for row in rows], rng.random(count).tolist(), rng.integers(0, 4, count).tolist())
    outputs["masks"] = rng.random(outputs["masks"].shape).astype(np.float32)
    placement = letterboxed(height, width)
    found = InstanceDecoder(manifest("detections", "instance"), threads=2)(outputs, placement)
    assert found.masks is not None and found.scores is not None
    assert found.masks.shape == (len(found), height, width)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height] * 2).all()
    # The same as pasting by hand, for the rows that are seen.
    order = np.argsort(-outputs["scores"][0, :count], kind="stable")
    placed = (outputs["boxes"][0, order] / np.array([placement.scale_x, placement.scale_y] * 2)).astype(np.float32)
    clipped = np.clip(placed, 0, [width, height] * 2)
    seen = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(axis=1)
    assert np.array_equal(found.masks, paste_masks(outputs["masks"][0, order][seen], placed[seen], (height, width)))


def test_nothing_found():
    found = InstanceDecoder(manifest("detections", "instance"))(detections([], [], []), stretched(30, 40))
    assert len(found) == 0 and found.boxes.shape == (0, 4)
    assert found.masks is not None and found.masks.shape == (0, 30, 40)
    assert (label_map(found, (30, 40)) == 255).all()


def test_the_masks_threshold_is_the_manifests():
    outputs = detections([A], [0.5], [DOG])
    outputs["masks"][:] = 0.6
    for mask, expected in ((0.5, True), (0.7, False)):
        decoder = InstanceDecoder(manifest("detections", "instance", merge=MergeSpec(mask=mask)))
        masks = decoder(outputs, stretched()).masks
        assert masks is not None and bool(masks[0, 20:30, 12:20].all()) == expected


def test_boxes_alone_and_keypoints():
    outputs = detections([A], [0.5], [PERSON])
    found = InstanceDecoder(manifest("detections", "detection"))(outputs, stretched())
    assert found.masks is None and found.keypoints is None
    points = KeypointSpec(names=["nose", "tail"], flip=[0, 1], sigmas=[0.1, 0.1])
    outputs["keypoints"] = np.arange(36, dtype=np.float32).reshape(1, 6, 2, 3)
    decoder = InstanceDecoder(manifest("detections", "keypoint", keypoints=points))
    found = decoder(outputs, stretched(96, 256))
    assert found.keypoints is not None
    assert found.keypoints.tolist() == [[[0, 2, 2], [12, 8, 5]]], "x times 4, y times 2, the score as it is"


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("boxes", np.zeros((1, 5, 4), np.float32), "1, 6, 4"),
        ("boxes", np.zeros((6, 4), np.float32), "1, 6, 4"),
        ("scores", np.zeros((2, 6), np.float32), "1, 6"),
        ("classes", np.full((1, 6), 4, np.int64), "-1"),
        ("masks", np.zeros((1, 6, 28), np.float32), "1, 6"),
        ("masks", None, "masks"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(name, array, expected):
    outputs = detections([A], [0.5], [DOG])
    outputs[name] = array
    if array is None:
        del outputs[name]
    with pytest.raises(BackendError, match=expected):
        InstanceDecoder(manifest("detections", "instance"))(outputs, stretched())


# --- for viewers ---------------------------------------------------------------------------------------------------


def test_the_label_map_shows_the_best_on_top():
    masks = np.zeros((3, 4, 6), np.uint8)
    masks[0, :, :3], masks[1, :, 2:], masks[2] = 1, 1, 1
    boxes = np.array([[0, 0, 3, 4], [2, 0, 6, 4], [0, 0, 6, 4]], np.float32)
    scores = np.array([0.9, 0.8, 0.4], np.float32)
    instances = Instances(boxes, np.array([PERSON, DOG, DOG]), scores, masks)
    assert label_map(instances, (4, 6)).tolist() == [[PERSON] * 3 + [DOG] * 3] * 4
    assert label_map(instances, (4, 6), score=0.85).tolist() == [[PERSON] * 3 + [255] * 3] * 4
    assert label_map(Instances(boxes[:1], np.array([DOG]), scores[:1]), (4, 6)).tolist() == [[DOG] * 3 + [255] * 3] * 4


def test_drawing_changes_the_objects_and_leaves_the_rest():
    frame = np.full((200, 300, 3), 120, np.uint8)
    masks = np.zeros((3, 200, 300), np.uint8)
    masks[0, 60:150, 20:100], masks[1, 60:150, 150:250], masks[2, 10:20, 280:290] = 1, 1, 1
    boxes = np.array([[20, 60, 100, 150], [150, 60, 250, 150], [280, 10, 290, 20]], np.float32)
    instances = Instances(boxes, np.array([PERSON, PERSON, DOG]), np.array([0.9, 0.8, 0.2], np.float32), masks)
    out = draw_instances(frame, instances, CLASSES)
    assert (frame == 120).all() and out.shape == frame.shape
    first, second = out[110, 60], out[110, 200]
    assert (first != 120).any() and (second != 120).any()
    assert (first != second).any(), "two of one class differ in shade"
    assert (out[160:] == 120).all() and (out[:30, 270:] == 120).all(), "the score of the third is too low"
    assert len(np.unique(out[50:70, 20:100].reshape(-1, 3), axis=0)) > 4, "a name is written"


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (30, 20)])
def test_drawing_takes_any_frame(size):
    frame = np.zeros((*size, 3), np.uint8)
    boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
    points = np.array([[[-9, 3, 1], [np.nan, 2, 1], [2, 1, 0]]], np.float32)
    masks = np.ones((1, *size), np.uint8)
    for instances in (
        Instances(boxes, np.array([0]), None, masks),
        Instances(boxes, np.array([0]), np.ones(1, np.float32), None, points),
        Instances(boxes[:0], np.zeros(0, np.int64), np.zeros(0, np.float32), masks[:0]),
    ):
        assert draw_instances(frame, instances, CLASSES).shape == frame.shape
