"""Panoptic FPN's outputs to segments: scores, classes of stuff and things, void, placement, what is refused and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import BackendError
from edgeseg.manifest import MergeSpec
from edgeseg.postprocess.draw import draw_panoptic
from edgeseg.postprocess.label_map import label_map
from edgeseg.postprocess.panoptic import PanopticDecoder
from edgeseg.scene import Panoptic, Placement, Segment
from tests.postprocess.placed import CLASSES, DOG, GRASS, PERSON, SKY, letterboxed, manifest, stretched


def outputs(rows: list[tuple[float, ...]], scores: list[float], classes: list[int]) -> dict[str, np.ndarray]:
    """Full masks over the rows; sky above, grass below, and "any thing" in the rightmost quarter. The map has stride 4."""
    count = max(4, len(rows))
    boxes, padded, labels = np.zeros((1, count, 4), np.float32), np.zeros((1, count), np.float32), np.full((1, count), -1, np.int64)
    if rows:
        boxes[0, : len(rows)], padded[0, : len(rows)], labels[0, : len(rows)] = rows, scores, classes
    semantic = np.zeros((1, 3, 12, 16), np.float32)
    semantic[0, 1, :6], semantic[0, 2, 6:], semantic[0, 0, :, 12:] = 5, 5, 10
    masks = np.ones((1, count, 28, 28), np.float32)
    return {"boxes": boxes, "scores": padded, "classes": labels, "masks": masks, "semantic": semantic}


def decode(given: dict[str, np.ndarray], placement: Placement, **merge: float) -> Panoptic:
    spec = MergeSpec(**{"stuff_area": 0, **merge})  # type: ignore[arg-type]
    return PanopticDecoder(manifest("panoptic", "panoptic", merge=spec), threads=2)(given, placement)


A, B = (8.0, 8.0, 24.0, 40.0), (16.0, 8.0, 40.0, 40.0)


def test_things_over_stuff_by_score():
    found = decode(outputs([A, B], [0.7, 0.9], [PERSON, DOG]), stretched())
    assert found.ids.shape == (48, 64) and found.ids.dtype == np.int32
    assert [(s.id, s.label) for s in found.segments] == [(1, DOG), (2, PERSON), (3, SKY), (4, GRASS)]
    assert [s.score for s in found.segments] == pytest.approx([0.9, 0.7, 1, 1])
    assert (found.ids[8:40, 16:40] == 1).all(), "the better one is on top"
    assert (found.ids[8:40, 8:16] == 2).all()
    assert (found.ids[0, :48] == 3).all() and (found.ids[47, :48] == 4).all()
    assert (found.ids[:, 52:] == 0).all(), "where any thing wins and none is found there is nothing"


def test_low_scores_hidden_things_and_small_stuff_are_left_out():
    found = decode(outputs([A, B], [0.7, 0.4], [PERSON, DOG]), stretched())
    assert [s.label for s in found.segments] == [PERSON, SKY, GRASS]
    hidden = decode(outputs([A, (8.0, 8.0, 26.0, 40.0)], [0.9, 0.8], [PERSON, DOG]), stretched())
    assert [s.label for s in hidden.segments] == [PERSON, SKY, GRASS], "2 of 18 columns are free"
    shown = decode(outputs([A, (8.0, 8.0, 26.0, 40.0)], [0.9, 0.8], [PERSON, DOG]), stretched(), overlap=0.1)
    assert [s.label for s in shown.segments] == [PERSON, DOG, SKY, GRASS]
    small = decode(outputs([(0.0, 0.0, 64.0, 20.0)], [0.9], [DOG]), stretched(), stuff_area=500)
    assert [s.label for s in small.segments] == [DOG, GRASS], "4 rows of sky are left"
    assert set(np.unique(small.ids)) == {0, 1, 2}


def test_no_things():
    found = decode(outputs([], [], []), stretched())
    assert [s.label for s in found.segments] == [SKY, GRASS]


def test_no_stuff_classes():
    given = outputs([A], [0.9], [DOG])
    given["semantic"] = given["semantic"][:, :1]
    spec = manifest("panoptic", "panoptic", classes=CLASSES[:2])
    found = PanopticDecoder(spec)(given, stretched())
    assert [s.label for s in found.segments] == [DOG]
    assert (found.ids > 0).sum() == 16 * 32


def test_a_letterboxed_frame_sees_only_its_part():
    # 128 x 48 px at half the size: the upper half of the input, which is all sky.
    found = decode(outputs([(8.0, 8.0, 24.0, 40.0)], [0.9], [DOG]), letterboxed(48, 128))
    assert [s.label for s in found.segments] == [DOG, SKY]
    assert (found.ids == 1).sum() == 32 * 32 and (found.ids[16:48, 16:48] == 1).all()


@given(count=st.integers(0, 4), height=st.integers(1, 80), width=st.integers(1, 80), seed=st.integers(0, 999))
def test_any_picture_is_a_partition(count, height, width, seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-5, 50, (count, 2))
    rows = [tuple(row) for row in np.concatenate([corner, corner + rng.uniform(0, 40, (count, 2))], axis=1)]
    given = outputs(rows, rng.random(count).tolist(), rng.integers(0, 2, count).tolist())
    given["semantic"] = rng.standard_normal(given["semantic"].shape).astype(np.float32)
    found = decode(given, letterboxed(height, width), stuff_area=20)
    assert found.ids.shape == (height, width)
    ids = [segment.id for segment in found.segments]
    assert ids == list(range(1, len(ids) + 1))
    assert set(np.unique(found.ids)) - {0} == set(ids)


@pytest.mark.parametrize(
    ("name", "array"),
    [("semantic", np.zeros((1, 2, 12, 16), np.float32)), ("semantic", np.zeros((3, 12, 16), np.float32)), ("semantic", None)],
)
def test_outputs_that_do_not_fit_are_refused(name, array):
    given = outputs([A], [0.9], [DOG])
    given[name] = array
    if array is None:
        del given[name]
    with pytest.raises(BackendError, match=r"\(1, 3, h, w\)"):
        decode(given, stretched())


def test_label_map_of_segments():
    ids = np.array([[0, 70000, 2], [2, 70000, 9]], np.int32)
    panoptic = Panoptic(ids, (Segment(70000, GRASS), Segment(2, PERSON), Segment(3, SKY)))
    assert label_map(panoptic, (2, 3)).tolist() == [[255, GRASS, PERSON], [PERSON, GRASS, 255]]
    assert (label_map(Panoptic(np.zeros((2, 3), np.int32), ()), (2, 3)) == 255).all()


def test_drawing_leaves_void_and_tells_things_apart():
    ids = np.zeros((200, 300), np.int32)
    ids[:100, :140], ids[:100, 150:280], ids[120:180] = 1, 2, 3
    segments = (Segment(1, PERSON, 0.9), Segment(2, PERSON, 0.8), Segment(3, GRASS), Segment(4, SKY))
    frame = np.full((200, 300, 3), 100, np.uint8)
    out = draw_panoptic(frame, Panoptic(ids, segments), CLASSES, alpha=1.0)
    assert (out[190:] == 100).all()
    assert (out[20, 20] != out[20, 170]).any()
    assert out[170, 20].tolist() == list(CLASSES[GRASS].colour[::-1]), "stuff has its class's own colour"
    assert draw_panoptic(frame, Panoptic(np.zeros((200, 300), np.int32), ()), CLASSES).tolist() == frame.tolist()
