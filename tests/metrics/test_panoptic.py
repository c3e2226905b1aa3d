"""Panoptic quality by hand, against loops over pairs of masks, and against figures of COCO's own panopticapi on its samples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo
from edgeseg.metrics.panoptic import PanopticQuality
from edgeseg.scene import Panoptic, Segment

CLASSES = [
    ClassInfo(name="person", colour=(255, 0, 0), thing=True),
    ClassInfo(name="dog", colour=(0, 255, 0), thing=True),
    ClassInfo(name="sky", colour=(0, 0, 255)),
    ClassInfo(name="grass", colour=(0, 99, 0)),
]
PERSON, DOG, SKY, GRASS = range(4)


def scene(rows: list[str], **labels: int) -> Panoptic:
    """Letters are segments, "." is void; a segment whose name is a capital letter is a crowd."""
    names = sorted(labels)
    ids = np.array([[names.index(c) + 1 if c in labels else 0 for c in row] for row in rows], np.int32)
    return Panoptic(ids, tuple(Segment(i + 1, labels[name], crowd=name.isupper()) for i, name in enumerate(names)))


def quality(predicted: Panoptic, true: Panoptic) -> PanopticQuality:
    metric = PanopticQuality(CLASSES)
    metric.update(predicted, true)
    return metric


# Figure 2 of the paper: of the class person two match, one predicted is false and one true is missed; a dog is not found.
def test_the_toy_example_of_figure_2() -> None:
    true = scene(["ggaabbccgg", "ggaabbccgg", "ggaabbccgg", "ssssssssdd"], a=PERSON, b=PERSON, c=PERSON, d=DOG, g=GRASS, s=SKY)
    guess = scene(["ggaabbgpgg", "ggaabbgpgg", "ggaagbgggg", "ssssssssgg"], a=PERSON, b=PERSON, p=PERSON, g=GRASS, s=SKY)
    found = quality(guess, true)
    assert (found.matched[PERSON], found.false[PERSON], found.missed[PERSON]) == (2, 1, 1)
    assert found.iou[PERSON] == pytest.approx(1 + 5 / 6)
    per_class = found.per_class()
    assert per_class["person"] == pytest.approx((1 + 5 / 6) / (2 + 1 / 2 + 1 / 2))
    assert per_class["dog"] == 0
    assert per_class["sky"] == 1
    assert per_class["grass"] == pytest.approx(12 / 19)
    summary = found.summary()
    assert summary["pq"] == pytest.approx(np.mean(list(per_class.values())))
    assert summary["pq_things"] == pytest.approx((per_class["person"] + 0) / 2)
    assert summary["sq_things"] == pytest.approx((1 + 5 / 6) / 2 / 2)
    assert summary["rq_things"] == pytest.approx((2 / 3) / 2)
    assert summary["pq_stuff"] == pytest.approx((1 + 12 / 19) / 2)


def test_perfect_is_one_and_absent_classes_do_not_count() -> None:
    true = scene(["aab.", "ssss"], a=PERSON, b=PERSON, s=SKY)
    summary = quality(true, true).summary()
    assert summary == {f"{name}{part}": 1.0 for part in ("", "_things", "_stuff") for name in ("pq", "sq", "rq")}
    assert math.isnan(quality(true, true).per_class()["dog"])
    only = scene(["aa"], a=PERSON)
    assert math.isnan(quality(only, only).summary()["pq_stuff"])


def test_half_is_no_match_and_more_than_half_is() -> None:
    assert quality(scene(["aa.."], a=PERSON), scene(["bbbb"], b=PERSON)).matched.sum() == 0
    assert quality(scene(["aaa."], a=PERSON), scene(["bbbb"], b=PERSON)).iou[PERSON] == 3 / 4


def test_void_leaves_the_union() -> None:
    # 3 of the prediction's 6 pixels are void in the truth: IoU is 2 / (2 + 6 - 2 - 3).
    found = quality(scene(["aaaaaa"], a=PERSON), scene(["...bbc"], b=PERSON, c=DOG))
    assert found.iou[PERSON] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("ss....", 0),  # 4 of 6 void
        ("sss...", 1),  # half is not most
        ("ssCCCC", 0),  # 4 of 6 a crowd of the class
        ("ssC...", 0),  # crowd and void together
        ("ssDDDD", 1),  # a crowd of another class
    ],
)
def test_what_lies_in_void_or_crowd_is_not_false(true: str, false: int) -> None:
    found = quality(scene(["aaaaaa"], a=PERSON), scene([true], s=SKY, C=PERSON, D=DOG))
    assert found.false.tolist() == [false, 0, 0, 0]
    assert found.missed.tolist() == [0, 0, 1, 0], "crowds are never missed"


def test_crowds_match_nothing() -> None:
    found = quality(scene(["aaaa"], a=PERSON), scene(["CCCC"], C=PERSON))
    assert (found.matched.sum(), found.false.sum(), found.missed.sum()) == (0, 0, 0)


def test_another_class_is_false_and_missed() -> None:
    found = quality(scene(["aaaa"], a=DOG), scene(["bbbb"], b=PERSON))
    assert found.false.tolist() == [0, 1, 0, 0]
    assert found.missed.tolist() == [1, 0, 0, 0]


def test_empty_pictures_and_segments_without_pixels() -> None:
    blank = scene(["...."])
    found = quality(blank, blank)
    assert all(math.isnan(value) for value in found.summary().values())
    found.update(blank, scene(["aa.."], a=PERSON))
    found.update(scene(["aa.."], a=PERSON), scene(["ssss"], s=SKY))
    found.update(scene(["...."], a=PERSON), scene(["...."], a=PERSON))
    assert (found.missed.tolist(), found.false.tolist()) == ([1, 0, 1, 0], [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ((), "the id of a segment"),
        ((Segment(5, 0), Segment(5, 1)), "distinct"),
        ((Segment(0, 0), Segment(5, 0)), "distinct"),
        ((Segment(5, 4),), "0..3"),
        ((Segment(5, -1),), "0..3"),
    ],
)
def test_malformed_segments_are_refused(segments: tuple[Segment, ...], expected: str) -> None:
    bad = Panoptic(np.full((2, 2), 5, np.int32), segments)
    good = scene(["aa", "aa"], a=PERSON)
    with pytest.raises(DataError, match=expected):
        quality(bad, good)
    with pytest.raises(DataError, match=expected):
        quality(good, bad)
    with pytest.raises(DataError, match="shape"):
        quality(scene(["aa"], a=PERSON), good)


# --- against loops -------------------------------------------------------------------------------------------------


def by_loops(predicted: Panoptic, true: Panoptic) -> list[list[float]]:
    """IoU sum, matches, false and missed of each class: the definitions, one pair of masks at a time."""
    counts = [[0.0, 0, 0, 0] for _ in CLASSES]
    void = true.ids == 0
    hit: set[tuple[str, int]] = set()
    for a in predicted.segments:
        for b in true.segments:
            mask, other = predicted.ids == a.id, true.ids == b.id
            union = ((mask | other) & ~(mask & void)).sum()
            if a.label == b.label and not b.crowd and union and (mask & other).sum() / union > 0.5:
                counts[a.label][0] += (mask & other).sum() / union
                counts[a.label][1] += 1
                hit |= {("predicted", a.id), ("true", b.id)}
    for b in true.segments:
        if ("true", b.id) not in hit and not b.crowd and (true.ids == b.id).any():
            counts[b.label][3] += 1
    for a in predicted.segments:
        mask = predicted.ids == a.id
        excused = void.copy()
        for b in true.segments:
            excused |= (true.ids == b.id) & (b.crowd and b.label == a.label)
        if mask.any() and ("predicted", a.id) not in hit and (mask & excused).sum() / mask.sum() <= 0.5:
            counts[a.label][2] += 1
    return counts


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Panoptic, Panoptic]:
    """A truth of few blocks, and the same with some pixels and labels changed: IoUs spread around one half."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ids = np.kron(rng.integers(0, 6, (3, 4)), np.ones((3, 3), int)).astype(np.int32)
    flips = rng.random(ids.shape) < draw(st.floats(0, 0.6))
    guess = np.where(flips, rng.integers(0, 6, ids.shape), ids).astype(np.int32)
    labels = rng.integers(0, 4, 6)
    other = np.where(rng.random(6) < 0.2, rng.integers(0, 4, 6), labels)
    true = tuple(Segment(i, int(labels[i]), crowd=bool(rng.random() < 0.2)) for i in range(1, 6))
    return Panoptic(guess * 7, tuple(Segment(7 * i, int(other[i])) for i in range(5, 0, -1))), Panoptic(ids, true)


@given(st.lists(scenes(), min_size=1, max_size=3))
def test_equals_loops_over_pairs_of_masks(pictures: list[tuple[Panoptic, Panoptic]]) -> None:
    metric, expected = PanopticQuality(CLASSES), np.zeros((4, 4))
    for predicted, true in pictures:
        metric.update(predicted, true)
        expected += by_loops(predicted, true)
    found = np.stack([metric.iou, metric.matched, metric.false, metric.missed], axis=1)
    assert found == pytest.approx(expected)


# --- against COCO's code -------------------------------------------------------------------------------------------

# What panopticapi (github.com/cocodataset/panopticapi, commit 7bb4655, pq_compute_single_core and pq_average) gives for the truth
# in sample_data/panoptic_examples against `worsened` of the same.
OFFICIAL = {
    "pq": 0.5124170486970607,
    "sq": 0.5766837956296729,
    "rq": 0.6795959595959595,
    "pq_things": 0.2847853088373772,
    "sq_things": 0.40046545331607886,
    "rq_things": 0.42327272727272724,
    "pq_stuff": 0.7969567235216652,
    "sq_stuff": 0.7969567235216652,
    "rq_stuff": 1.0,
}


def coco_samples(shared_data: Path) -> tuple[list[ClassInfo], list[Panoptic]]:
    folder = shared_data / "coco_panoptic_sample"
    categories = json.loads((folder / "panoptic_coco_categories.json").read_text())
    place = {item["id"]: label for label, item in enumerate(categories)}
    classes = [ClassInfo(name=item["name"], colour=tuple(item["color"]), thing=bool(item["isthing"])) for item in categories]
    pictures = []
    for note in json.loads((folder / "panoptic_examples.json").read_text())["annotations"]:
        colours = np.array(Image.open(folder / "panoptic_examples" / note["file_name"]).convert("RGB"), np.int32)
        segments = [Segment(s["id"], place[s["category_id"]], crowd=bool(s["iscrowd"])) for s in note["segments_info"]]
        pictures.append(Panoptic(colours @ np.array([1, 256, 65536], np.int32), tuple(segments)))
    return classes, pictures


def worsened(true: Panoptic) -> Panoptic:
    """A prediction with faults of every kind: all moved, one segment lost, one of another class, one cut, one where nothing is."""
    ids = np.zeros_like(true.ids)
    ids[3:, 5:] = true.ids[:-3, :-5]
    lost, other, cut, *_ = (segment.id for segment in true.segments)
    ids[ids == lost] = 0
    columns = np.arange(ids.shape[1])[None] > np.median(np.nonzero(ids == cut)[1])
    ids[(ids == cut) & columns] = 77
    ids[(true.ids == 0) & (np.arange(ids.shape[0])[:, None] > 200)] = 88
    segments = [Segment(s.id, s.label + 1 if s.id == other else s.label) for s in true.segments if s.id != lost]
    return Panoptic(ids, (*segments, Segment(77, true.segments[2].label), Segment(88, 3)))


def test_equals_the_official_code_on_its_samples(shared_data: Path) -> None:
    classes, pictures = coco_samples(shared_data)
    metric = PanopticQuality(classes)
    for true in pictures:
        metric.update(worsened(true), true)
    assert metric.summary() == pytest.approx(OFFICIAL, abs=1e-12)
