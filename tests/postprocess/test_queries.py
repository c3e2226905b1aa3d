"""Queries to labels, instances and segments against the papers' inference on whole stacks in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import BackendError
from edgeseg.manifest import MergeSpec
from edgeseg.native import reference
from edgeseg.postprocess.queries import TOP, QueryDecoder
from edgeseg.scene import Instances, Panoptic, Placement
from tests.postprocess.placed import CLASSES, DOG, GRASS, PERSON, SKY, letterboxed, manifest, stretched


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def random_outputs(rng: np.random.Generator, count: int, sharp: float = 3.0) -> dict[str, np.ndarray]:
    """Queries with smooth masks at stride 4 of 64 x 48 px."""
    coarse = rng.standard_normal((count, 4, 5)) * 6
    masks = reference.resize_bilinear(coarse, (12, 16)).astype(np.float32)
    classes = (rng.standard_normal((count, 5)) * sharp).astype(np.float32)
    return {"class_logits": classes[None], "mask_logits": masks[None]}


def whole_stack(outputs: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return reference.resize_bilinear(outputs["mask_logits"][0].astype(np.float64), size)


def decode(task: str, outputs: dict[str, np.ndarray], placement: Placement, **merge: float) -> object:
    spec = MergeSpec(**{"stuff_area": 0, **merge})  # type: ignore[arg-type]
    return QueryDecoder(manifest("queries", task, merge=spec), threads=2)(outputs, placement)


# --- semantic ------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 8), height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 999))
def test_semantic_sums_over_queries(count, height, width, seed):
    outputs = random_outputs(np.random.default_rng(seed), count)
    found = decode("semantic", outputs, stretched(height, width))
    assert isinstance(found, np.ndarray) and found.shape == (height, width) and found.dtype == np.uint8
    classes = softmax(outputs["class_logits"][0].astype(np.float64))[:, :-1]
    planes = np.einsum("qc,qhw->chw", classes, sigmoid(outputs["mask_logits"][0].astype(np.float64)))
    scores = reference.resize_bilinear(planes, (height, width))
    chosen = np.take_along_axis(scores, found[None].astype(int), axis=0)[0]
    assert (scores.max(axis=0) - chosen).max() < 1e-5


def test_semantic_of_one_class_and_of_a_letterboxed_frame():
    outputs = random_outputs(np.random.default_rng(0), 3)
    outputs["class_logits"] = outputs["class_logits"][..., :2]
    spec = manifest("queries", "semantic", classes=CLASSES[:1])
    assert not np.asarray(QueryDecoder(spec)(outputs, stretched(9, 7))).any()
    # Two queries: sky over the upper half of the input, which is all that a frame of 128 x 48 px covers; grass below.
    two = {"class_logits": np.full((1, 2, 5), -9, np.float32), "mask_logits": np.full((1, 2, 12, 16), -9, np.float32)}
    two["class_logits"][0, 0, SKY] = two["class_logits"][0, 1, GRASS] = 9
    two["mask_logits"][0, 0, :6], two["mask_logits"][0, 1, 6:] = 9, 9
    assert (np.asarray(decode("semantic", two, letterboxed(48, 128))) == SKY).all()
    assert (np.asarray(decode("semantic", two, stretched(48, 128)))[24:] == GRASS).all()


# --- instance ------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 6), height=st.integers(4, 60), width=st.integers(4, 60), seed=st.integers(0, 999))
def test_instances_are_pairs_of_query_and_thing(count, height, width, seed):
    outputs = random_outputs(np.random.default_rng(seed), count)
    found = decode("instance", outputs, stretched(height, width))
    assert isinstance(found, Instances) and found.scores is not None and found.masks is not None
    values, classes = whole_stack(outputs, (height, width)), softmax(outputs["class_logits"][0].astype(np.float64))
    expected = []
    for query, plane in enumerate(values):
        mask = plane > 0
        if mask.any():
            expected += [(classes[query, label] * sigmoid(plane)[mask].mean(), label) for label in (PERSON, DOG)]
    expected.sort(key=lambda item: -item[0])
    assert found.scores.tolist() == pytest.approx([score for score, _ in expected], rel=1e-3, abs=1e-6)
    assert sorted(found.classes.tolist()) == sorted(label for _, label in expected)
    for mask, box in zip(found.masks, found.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert min(np.abs(mask - (plane > 0)).sum() for plane in values) <= 2


def test_no_more_than_the_top_instances():
    found = decode("instance", random_outputs(np.random.default_rng(1), 80), stretched(20, 30))
    assert isinstance(found, Instances) and 80 < len(found) <= TOP
    assert found.masks is not None and found.masks.shape == (len(found), 20, 30)


def test_all_classes_count_where_none_is_a_thing():
    stuff = [item.model_copy(update={"thing": False}) for item in CLASSES]
    found = QueryDecoder(manifest("queries", "instance", classes=stuff))(random_outputs(np.random.default_rng(2), 3), stretched())
    assert isinstance(found, Instances) and set(found.classes.tolist()) == {PERSON, DOG, SKY, GRASS}


def test_empty_masks_are_no_instances():
    outputs = random_outputs(np.random.default_rng(3), 2)
    outputs["mask_logits"][:] = -5
    found = decode("instance", outputs, stretched())
    assert isinstance(found, Instances) and len(found) == 0
    assert found.masks is not None and found.masks.shape == (0, 48, 64)


# --- panoptic ------------------------------------------------------------------------------------------------------


def panoptic_by_stacks(
    outputs: dict[str, np.ndarray], size: tuple[int, int], score: float, overlap: float
) -> tuple[np.ndarray, list]:
    """MaskFormer's inference, section 3.4, with Mask2Former's rule that a pixel must be in its query's own mask."""
    classes = softmax(outputs["class_logits"][0].astype(np.float64))
    labels, scores = classes.argmax(axis=1), classes.max(axis=1)
    kept = [q for q in range(len(labels)) if labels[q] < len(CLASSES) and scores[q] > score]
    ids, segments, stuff = np.zeros(size, np.int32), [], {}
    if not kept:
        return ids, segments
    p = sigmoid(whole_stack(outputs, size))[kept]
    best = (scores[kept][:, None, None] * p).argmax(axis=0)
    for place, query in enumerate(kept):
        won, covered = best == place, p[place] > 0.5
        label = int(labels[query])
        if not (won & covered).any() or won.sum() / covered.sum() < overlap:
            continue
        if label in stuff:
            ids[won & covered] = stuff[label]
            continue
        segments.append((len(segments) + 1, label))
        ids[won & covered] = len(segments)
        if not CLASSES[label].thing:
            stuff[label] = len(segments)
    return ids, segments


@given(
    count=st.integers(1, 12),
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    overlap=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 999),
)
def test_panoptic_matches_whole_stacks(count, height, width, overlap, seed):
    outputs = random_outputs(np.random.default_rng(seed), count)
    found = decode("panoptic", outputs, stretched(height, width), score=0.3, overlap=overlap)
    ids, segments = panoptic_by_stacks(outputs, (height, width), 0.3, overlap)
    assert isinstance(found, Panoptic)
    assert [(segment.id, segment.label) for segment in found.segments] == segments
    assert (found.ids != ids).sum() <= 2, "pixels on a border that float32 rounds to the other side"


def hand_made(*queries: tuple[int, float, tuple[slice, slice]]) -> dict[str, np.ndarray]:
    """Queries of (label, logit of the label, region of the map)."""
    classes = np.zeros((1, len(queries), 5), np.float32)
    maps = np.full((1, len(queries), 12, 16), -20, np.float32)
    for query, (label, logit, region) in enumerate(queries):
        classes[0, query, label], maps[0, query][region] = logit, 20
    return {"class_logits": classes, "mask_logits": maps}


LEFT, RIGHT, ALL = (np.s_[:, :8], np.s_[:, 8:], np.s_[:, :])


def test_stuff_of_one_class_is_joined_and_things_are_not():
    found = decode("panoptic", hand_made((GRASS, 9, LEFT), (GRASS, 8, RIGHT)), stretched())
    assert isinstance(found, Panoptic)
    assert [(s.id, s.label) for s in found.segments] == [(1, GRASS)] and (found.ids == 1).mean() > 0.95
    things = decode("panoptic", hand_made((DOG, 9, LEFT), (DOG, 8, RIGHT)), stretched())
    assert isinstance(things, Panoptic)
    assert [(s.id, s.label) for s in things.segments] == [(1, DOG), (2, DOG)]
    assert [s.score for s in things.segments] == pytest.approx([0.9995, 0.9987], abs=1e-4)


def test_unsure_no_object_and_hidden_queries_are_dropped():
    no_object = 4
    queries = hand_made((SKY, 9, ALL), (DOG, 1, LEFT), (no_object, 9, RIGHT), (PERSON, 8, LEFT))
    found = decode("panoptic", queries, stretched())
    assert isinstance(found, Panoptic)
    assert [s.label for s in found.segments] == [SKY], "the person loses every pixel to the sky"
    none = decode("panoptic", hand_made((no_object, 9, ALL)), stretched(7, 9))
    assert isinstance(none, Panoptic) and none.segments == () and not none.ids.any() and none.ids.shape == (7, 9)


def test_pixels_of_no_mask_are_void():
    found = decode("panoptic", hand_made((DOG, 9, LEFT)), stretched())
    assert isinstance(found, Panoptic)
    assert (found.ids[:, :30] == 1).all() and not found.ids[:, 34:].any()


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("class_logits", np.zeros((1, 3, 4), np.float32)),
        ("class_logits", np.zeros((1, 2, 5), np.float32)),
        ("class_logits", np.zeros((3, 5), np.float32)),
        ("mask_logits", np.zeros((1, 4, 12, 16), np.float32)),
        ("mask_logits", np.zeros((2, 3, 12, 16), np.float32)),
    ],
)
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_outputs_that_do_not_fit_are_refused(task, name, array):
    outputs = random_outputs(np.random.default_rng(0), 3)
    outputs[name] = array
    with pytest.raises(BackendError, match="expected"):
        decode(task, outputs, stretched())


def test_other_tasks_are_refused():
    with pytest.raises(BackendError, match="semantic or instance or panoptic"):
        QueryDecoder(manifest("queries", "detection"))
