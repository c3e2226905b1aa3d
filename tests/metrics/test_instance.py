"""COCO's average precision: small cases worked out by hand, and pycocotools fed from files the way COCO's own demo does."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import DataError, EdgesegError
from edgeseg.manifest import ClassInfo
from edgeseg.metrics.instance import CocoMetric
from edgeseg.scene import Instances, mask_boxes

pytest.importorskip("pycocotools")

SIZE = (120, 160)
CLASSES = [ClassInfo(name=name, colour=(9, 9, 9), thing=True) for name in ("cat", "dog", "cow")]


def boxes(*rows: tuple[float, ...], classes: Any = None, scores: Any = None, crowd: Any = None) -> Instances:
    """Instances of class 0 whose masks fill their boxes of whole pixels."""
    corners = np.array(rows, np.float32).reshape(-1, 4)
    masks = np.zeros((len(rows), *SIZE), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    labels = np.array(classes if classes is not None else [0] * len(rows), np.int64)
    return Instances(
        corners,
        labels,
        None if scores is None else np.array(scores, np.float32),
        masks,
        crowd=None if crowd is None else np.array(crowd, bool),
    )


def guesses(*rows: tuple[float, ...], classes: Any = None, scores: Any = None) -> Instances:
    return boxes(*rows, classes=classes, scores=[0.9 - 0.1 * i for i in range(len(rows))] if scores is None else scores)


def measured(*pictures: tuple[Instances, Instances], task: str = "instance") -> CocoMetric:
    metric = CocoMetric(task, CLASSES)
    for predicted, true in pictures:
        metric.update(predicted, true, SIZE)
    return metric


A, B = (10, 10, 60, 60), (80, 20, 150, 110)


def test_perfect_is_one() -> None:
    summary = measured((guesses(A, B), boxes(A, B))).summary()
    for name in ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75", "box_ar", "mask_ar"):
        assert summary[name] == pytest.approx(1), name
    assert math.isnan(summary["box_ap_small"]), "no truth is small"
    assert summary["box_ap_medium"] == pytest.approx(1), "50 x 50 px and 70 x 90 px"
    assert math.isnan(summary["box_ap_large"])


def test_one_of_two_found() -> None:
    # Recall ends at 1/2; of the 101 recalls 0, 0.01 .. 1 at which precision is read, 51 are reached with precision 1.
    summary = measured((guesses(A), boxes(A, B))).summary()
    assert summary["box_ap"] == pytest.approx(51 / 101)
    assert summary["mask_ap50"] == pytest.approx(51 / 101)
    assert summary["box_ar"] == pytest.approx(0.5)


def test_iou_of_three_fifths_passes_three_thresholds() -> None:
    # 31 of 50 columns: IoU 0.62 passes 0.5, 0.55 and 0.6 of the ten.
    summary = measured((guesses((10, 10, 41, 60)), boxes(A))).summary()
    assert summary["box_ap"] == pytest.approx(0.3)
    assert summary["mask_ap"] == pytest.approx(0.3)
    assert (summary["mask_ap50"], summary["mask_ap75"]) == (pytest.approx(1), 0)


def test_masks_and_boxes_are_judged_apart() -> None:
    true, predicted = boxes(A), guesses(A)
    assert predicted.masks is not None
    predicted.masks[0, 10:35, 10:60] = 0  # half of the mask, under the whole box
    summary = measured((predicted, true)).summary()
    assert summary["box_ap"] == pytest.approx(1)
    assert summary["mask_ap"] == pytest.approx(0.1), "IoU 0.5 passes the first threshold alone"


def test_a_false_one_before_a_right_one_halves_precision() -> None:
    summary = measured((guesses(B, A), boxes(A))).summary()
    assert summary["box_ap"] == pytest.approx(0.5)
    assert measured((guesses(A, B), boxes(A))).summary()["box_ap"] == pytest.approx(1), "after it, it costs nothing"


def test_twice_the_same_is_once_false() -> None:
    summary = measured((guesses(A, A, B), boxes(A, B))).summary()
    # Precision 1 up to recall 1/2 (51 points), then 2/3 (50 points).
    assert summary["box_ap"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_without_truth_do_not_count() -> None:
    metric = measured((guesses(A, B, classes=[0, 2]), boxes(A, classes=[0])))
    assert metric.summary()["mask_ap"] == pytest.approx(1)
    per_class = metric.per_class()
    assert per_class["cat"] == pytest.approx(1)
    assert math.isnan(per_class["dog"]) and math.isnan(per_class["cow"])


def test_the_mean_is_over_classes() -> None:
    metric = measured((guesses(A, classes=[0]), boxes(A, B, classes=[0, 1])))
    assert metric.per_class() == pytest.approx({"cat": 1, "dog": 0, "cow": math.nan}, nan_ok=True)
    assert metric.summary()["mask_ap"] == pytest.approx(0.5)


def test_crowds_count_neither_way() -> None:
    inside = [(85, 30, 110, 60), (112, 30, 140, 60)]
    summary = measured((guesses(*inside, A), boxes(A, B, crowd=[False, True]))).summary()
    assert summary["box_ap"] == pytest.approx(1)
    assert summary["mask_ap"] == pytest.approx(1)
    assert measured((guesses(*inside, A), boxes(A, B))).summary()["box_ap"] < 0.3, "without the flag they are false"
    assert math.isnan(measured((guesses(B), boxes(B, crowd=[True]))).summary()["mask_ap"])


def test_pictures_without_truth_or_prediction() -> None:
    none, blank = boxes(), guesses()
    assert measured((guesses(A), boxes(A)), (blank, none)).summary()["box_ap"] == pytest.approx(1)
    assert measured((guesses(A), boxes(A)), (blank, boxes(B))).summary()["box_ap"] == pytest.approx(51 / 101)
    assert measured((guesses(A, scores=[0.5]), boxes(A)), (guesses(B, scores=[0.8]), none)).summary()["box_ap"] == pytest.approx(
        0.5
    )
    assert measured((blank, boxes(A))).summary()["mask_ap"] == 0
    for metric in (measured((blank, none)), measured((guesses(A), none)), measured()):
        assert all(math.isnan(value) for value in metric.summary().values())
        assert all(math.isnan(value) for value in metric.per_class().values())


def test_sizes_go_by_the_area_of_the_truth() -> None:
    small, large = (5, 5, 25, 25), (30, 5, 150, 115)
    summary = measured((guesses(small), boxes(small, A, large))).summary()
    assert (summary["box_ap_small"], summary["box_ap_medium"], summary["box_ap_large"]) == (pytest.approx(1), 0, 0)


def test_figures_follow_further_updates() -> None:
    metric = measured((guesses(A), boxes(A)))
    assert metric.summary()["mask_ap"] == pytest.approx(1)
    metric.update(guesses(), boxes(B), SIZE)
    assert metric.summary()["mask_ap"] == pytest.approx(51 / 101)


def test_names_of_each_task() -> None:
    assert [CocoMetric(task, CLASSES).headline for task in ("detection", "instance")] == ["box_ap", "mask_ap"]
    assert CocoMetric("keypoint", CLASSES, [0.1]).headline == "keypoint_ap"
    bare = Instances(np.array([A], np.float32), np.zeros(1, np.int64), np.ones(1, np.float32))
    summary = measured((bare, boxes(A)), task="detection").summary()
    assert summary["box_ap"] == pytest.approx(1)
    assert not any(name.startswith("mask") for name in summary)


# --- keypoints -----------------------------------------------------------------------------------------------------

SIGMAS = [0.05, 0.1]


def people(*points: list[tuple[float, float, float]], scores: Any = None) -> Instances:
    """One person over A for each list of (x, y, v)."""
    corners = np.tile(np.array(A, np.float32), (len(points), 1))
    array = np.array(points, np.float32).reshape(len(points), 2, 3)
    return Instances(
        corners, np.zeros(len(points), np.int64), None if scores is None else np.array(scores, np.float32), None, array
    )


def keypoint_summary(predicted: Instances, true: Instances) -> dict[str, float]:
    metric = CocoMetric("keypoint", CLASSES, SIGMAS)
    metric.update(predicted, true, SIZE)
    return metric.summary()


def test_keypoint_similarity_by_hand() -> None:
    # COCO: the mean over labelled points of exp(-d^2 / (2 s^2 k^2)), k = 2 sigma, s^2 the area: 2500 px here.
    # The first point is right and the second off by d: (1 + exp(-d^2 / 200)) / 2 = 0.82 passes 0.5 .. 0.8, seven of ten.
    off = math.sqrt(-200 * math.log(0.64))
    true = people([(20, 20, 2), (40, 40, 1)])
    found = keypoint_summary(people([(20, 20, 1), (40 + off, 40, 1)], scores=[0.9]), true)
    assert found["keypoint_ap"] == pytest.approx(0.7)
    assert found["box_ap"] == pytest.approx(1)
    assert (found["keypoint_ap50"], found["keypoint_ap75"]) == (pytest.approx(1), pytest.approx(1))
    # Where that point is not labelled it does not count.
    free = keypoint_summary(people([(20, 20, 1), (90, 90, 1)], scores=[0.9]), people([(20, 20, 2), (0, 0, 0)]))
    assert free["keypoint_ap"] == pytest.approx(1)


def test_people_without_labelled_points_are_left_out() -> None:
    true = people([(20, 20, 2), (40, 40, 2)], [(0, 0, 0), (0, 0, 0)])
    found = keypoint_summary(people([(20, 20, 1), (40, 40, 1)], scores=[0.9]), true)
    assert found["keypoint_ap"] == pytest.approx(1)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(EdgesegError, match="detection or instance"):
        CocoMetric("semantic", CLASSES)
    with pytest.raises(EdgesegError, match="sigmas"):
        CocoMetric("keypoint", CLASSES)
    metric = CocoMetric("instance", CLASSES)
    with pytest.raises(DataError, match="score"):
        metric.update(boxes(A), boxes(A), SIZE)
    with pytest.raises(DataError, match=r"0\.\.2"):
        metric.update(guesses(A), boxes(A, classes=[3]), SIZE)
    with pytest.raises(DataError, match="without masks"):
        metric.update(guesses(A), Instances(np.array([A], np.float32), np.zeros(1, np.int64)), SIZE)
    with pytest.raises(DataError, match="120"):
        metric.update(guesses(A), boxes(A), (50, 50))
    with pytest.raises(DataError, match="one point for each sigma"):
        CocoMetric("keypoint", CLASSES, [0.1] * 3).update(people([(1, 1, 1), (2, 2, 1)], scores=[1]), boxes(), SIZE)
    assert all(math.isnan(value) for value in metric.summary().values()), "nothing of a refused picture is kept"


# --- against pycocotools from files --------------------------------------------------------------------------------


def read_truth(coco: Any, picture: int, categories: list[int]) -> tuple[Instances, tuple[int, int]]:
    info, notes = coco.imgs[picture], coco.imgToAnns[picture]
    size = (info["height"], info["width"])
    masks = np.stack([coco.annToMask(note) for note in notes]) if notes else np.zeros((0, *size), np.uint8)
    corners = np.array([note["bbox"] for note in notes], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    classes = np.array([categories.index(note["category_id"]) for note in notes], np.int64)
    crowd = np.array([note["iscrowd"] for note in notes], bool)
    return Instances(corners.astype(np.float32), classes, None, masks, None, crowd), size


def perturbed(true: Instances, rng: np.random.Generator) -> Instances:
    """The truth moved by up to 6 px, a fifth of it lost, a tenth of another class, some of it twice."""
    kept = np.flatnonzero(rng.random(len(true)) < 0.8)
    kept = np.concatenate([kept, kept[rng.random(len(kept)) < 0.15]]).astype(int)
    assert true.masks is not None
    shifts = rng.integers(-6, 7, (len(kept), 2))
    shape = (0, *true.masks.shape[1:])
    masks = np.array([np.roll(true.masks[i], s, (0, 1)) for i, s in zip(kept, shifts, strict=True)], np.uint8).reshape(
        -1, *shape[1:]
    )
    classes = np.where(rng.random(len(kept)) < 0.1, (true.classes[kept] + 1) % 80, true.classes[kept])
    return Instances(mask_boxes(masks), classes, rng.random(len(kept)).astype(np.float32), masks)


def official(path: Path, truth: Any, results: list[dict[str, Any]], pictures: list[int], kind: str) -> list[float]:
    """The twelve figures that COCOeval.summarize prints."""
    from pycocotools.cocoeval import COCOeval

    path.write_text(json.dumps(results))
    evaluation = COCOeval(truth, truth.loadRes(str(path)), kind)
    evaluation.params.imgIds = pictures
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats)


def test_equals_pycocotools_on_real_truth(shared_data: Path, tmp_path: Path) -> None:
    from pycocotools import mask as coder
    from pycocotools.coco import COCO

    rng = np.random.default_rng(3)
    found_boxes: list[dict[str, Any]] = []
    found_masks: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(shared_data / "coco_subset" / "annotations" / "instances_val2017.json"))
        categories = sorted(coco.cats)
        classes = [ClassInfo(name=coco.cats[key]["name"], colour=(1, 1, 1), thing=True) for key in categories]
        metric = CocoMetric("instance", classes)
        pictures = sorted(coco.imgs)[:90]
        for picture in pictures:
            true, size = read_truth(coco, picture, categories)
            guess = perturbed(true, rng)
            metric.update(guess, true, size)
            assert guess.masks is not None and guess.scores is not None
            for mask, label, score, box in zip(guess.masks, guess.classes, guess.scores, guess.boxes, strict=True):
                runs = coder.encode(np.asfortranarray(mask))
                x1, y1, x2, y2 = box.tolist()
                note = {"image_id": picture, "category_id": categories[label], "score": float(score)}
                found_boxes.append(note | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
                # Without a box: beside one, loadRes takes the box's area for the mask's.
                found_masks.append(note | {"segmentation": {"size": runs["size"], "counts": runs["counts"].decode()}})
        for note in coco.anns.values():  # an annotation's area is its polygon's; ours is its pixels'
            note["area"] = float(coder.area(coco.annToRLE(note)))
        found = metric.summary()
        expected = official(tmp_path / "masks.json", coco, found_masks, pictures, "segm")
        expected_boxes = official(tmp_path / "boxes.json", coco, found_boxes, pictures, "bbox")
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert 0.2 < expected[0] < 0.8
    assert [found[f"mask_{name}"] for name in names] == pytest.approx(expected[:6], abs=1e-12)
    assert [found[f"box_{name}"] for name in names] == pytest.approx(expected_boxes[:6], abs=1e-12)
    assert found["mask_ar"] == pytest.approx(expected[8], abs=1e-12)
