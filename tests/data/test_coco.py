"""COCO's objects, keypoints and panoptic pictures: layouts made up in tmp_path, and the real samples where present."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeseg.data import open_dataset
from edgeseg.data.base import IGNORE
from edgeseg.data.coco_json import official_categories
from edgeseg.data.coco_keypoints import NAMES, OTHER_SIGMA, keypoint_spec
from edgeseg.data.coco_masks import BadOutlineError, decode_outline
from edgeseg.errors import DataError, PictureError

HEIGHT, WIDTH = 20, 30
SQUARE = [[2, 3, 10, 3, 10, 9, 2, 9]]


def picture(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), (10, 60, 200), np.uint8))


def annotation(number: int, category: int = 1, outline: Any = SQUARE, **more: Any) -> dict[str, Any]:
    record = {"id": number, "image_id": 7, "category_id": category, "segmentation": outline, "bbox": [2, 3, 8, 6], "iscrowd": 0}
    return {**record, **more}


def document(annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "000000000007.jpg", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": 44, "name": "bottle"}, {"id": 1, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def write(root: Path, content: object, kind: str = "instances", split: str = "val") -> Path:
    picture(root / f"{split}2017" / "000000000007.jpg")
    path = root / "annotations" / f"{kind}_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_objects_of_polygons_and_runs(tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * 2, HEIGHT * (WIDTH - 2)]}
    write(tmp_path, document([annotation(1), annotation(2, 44, runs, iscrowd=1, bbox=[0, 0, 2, HEIGHT])]))
    data = open_dataset(f"coco:{tmp_path}", "val")
    sample = data[0]
    found = sample.instances
    assert data.tasks == ("instance", "detection") and data.ids() == ["000000000007"] == [sample.id]
    assert [item.name for item in data.classes] == ["person", "bottle"] and all(item.thing for item in data.classes)
    assert data.classes[0].colour == (220, 20, 60)
    assert found is not None and found.masks is not None and found.crowd is not None
    assert found.boxes.tolist() == [[2, 3, 10, 9], [0, 0, 2, HEIGHT]] and found.boxes.dtype == np.float32
    assert found.classes.tolist() == [0, 1] and found.crowd.tolist() == [False, True] and found.masks.dtype == np.uint8
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 2:10] = 1
    assert (found.masks[0] == expected).all() and found.masks[1].sum() == 2 * HEIGHT and found.masks[1][:, :2].all()
    assert (sample.labels == np.where(expected, 0, np.where(found.masks[1], 1, IGNORE))).all()
    assert len(data.problems) == 0


def test_strings_of_run_lengths_are_pycocotools(tmp_path: Path) -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(3)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask = np.asfortranarray(rng.random((37, 61)) < density).astype(np.uint8, order="F")
        runs = coco_mask.encode(mask)
        for counts in (runs["counts"], runs["counts"].decode()):
            assert (decode_outline({"size": [37, 61], "counts": counts}, 37, 61) == mask).all()


@pytest.mark.parametrize(
    "outline",
    [
        None, [], [[]], 3, [[1, 1, 5, 5]], [[1, 1, 5, 5, 9]],
        [[1, 1, 5, 5, float("nan"), 3]], [[0, 0, 1e9, 0, 0, 1e9]], [["a"] * 6],
        {"size": [HEIGHT, WIDTH], "counts": [1, 2]}, {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": [HEIGHT, WIDTH], "counts": ""}, {"size": [HEIGHT, WIDTH], "counts": "zzzz"}, {"size": [9, 9], "counts": [81]},
        {"size": [HEIGHT, WIDTH], "counts": "é"}, {"size": [HEIGHT, WIDTH]}, {},
    ],
)  # fmt: skip
def test_bad_outlines_are_refused_and_their_box_is_ignored(outline: Any, tmp_path: Path) -> None:
    with pytest.raises(BadOutlineError):
        decode_outline(outline, HEIGHT, WIDTH)
    write(tmp_path, document([annotation(1), annotation(2, 44, outline, bbox=[20, 0, 5, 4])]))
    data = open_dataset(f"coco:{tmp_path}", "val")
    found = data[0].instances
    assert found is not None and found.masks is not None and found.crowd is not None and len(data.problems) == 1
    assert found.crowd.tolist() == [False, True] and found.masks[1].sum() == 20 == found.masks[1][:4, 20:25].sum()
    assert [where for _, where in data.problems] == ["annotation 2 of image 7"]


def test_what_is_wrong_in_annotations_is_counted_and_left_out(tmp_path: Path) -> None:
    wrong = [
        annotation(1),
        annotation(1, 44),
        annotation(3, image_id=99),
        annotation(4, 2),
        annotation(5, -1),
        annotation(6, outline=[], bbox=[2, 3, 0, 0]),
        annotation(7, outline=[], bbox=None),
    ]
    write(tmp_path, document(wrong))
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert data[0].instances is not None and data[0].instances.classes.tolist() == [0]
    counts = data.problems.counts
    assert sorted(counts.values()) == [1, 1, 2, 2]
    assert counts["annotation of an unknown category, left out"] == 2
    data[0]
    assert data.problems.counts == counts, "reading a sample again counts nothing twice"


def test_a_picture_without_objects_and_one_without_annotations_at_all(tmp_path: Path) -> None:
    write(tmp_path, document([]))
    data = open_dataset(f"coco:{tmp_path}", "val")
    found = data[0].instances
    assert found is not None and found.masks is not None and found.masks.shape == (0, HEIGHT, WIDTH) and found.boxes.shape == (0, 4)
    assert (data[0].labels == IGNORE).all() and len(data.problems) == 0


def test_boxes_alone_make_a_set_for_detection(tmp_path: Path) -> None:
    write(tmp_path, document([annotation(1, outline=[])]))
    data = open_dataset(f"coco:{tmp_path}", "val")
    found = data[0].instances
    assert data.tasks == ("detection",) and found is not None and found.masks is None and found.boxes.tolist() == [[2, 3, 10, 9]]
    assert len(data.problems) == 0


def test_boxes_reach_no_further_than_the_picture(tmp_path: Path) -> None:
    write(tmp_path, document([annotation(1, bbox=[-5, -5, 100, 100])]))
    found = open_dataset(f"coco:{tmp_path}", "val")[0].instances
    assert found is not None and found.boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "images"),
        ("{}", "no pictures"),
        ({"images": [3]}, "images"),
        (
            document([], images=[{"id": 1.5, "file_name": "x.jpg"}]),
            r"images\[0\].*expected id \(int or str\) and file_name \(str\)",
        ),
        (document([], images=[{"id": 1}]), r"images\[0\]"),
        (document([], images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]), "a.jpg and b.jpg both have id 1"),
        (document([], categories=[]), "0 categories"),
        (document([], categories=[{"id": 1, "name": "a"}] * 2), "two categories of one id"),
        (document([], categories=[{"id": n, "name": str(n)} for n in range(256)]), "256 categories; expected 1..255"),
        (document([{"id": 1}]), r"annotations\[0\]"),
    ],
)
def test_broken_files_are_one_line_errors(content: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"coco:{tmp_path}", "val")
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_listed_twice_is_taken_once(tmp_path: Path) -> None:
    content = document([annotation(1)])
    content["images"] *= 2
    write(tmp_path, content)
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert len(data) == 1 and len(data.problems) == 1


def test_missing_broken_and_resized_pictures(tmp_path: Path) -> None:
    write(tmp_path, document([annotation(1)]))
    data = open_dataset(f"coco:{tmp_path}", "val")
    path = tmp_path / "val2017" / "000000000007.jpg"
    picture(path, 21, 30)
    with pytest.raises(DataError, match=r"30x21 px; expected 30x20 px as instances_val2017\.json says"):
        data[0]
    path.write_bytes(b"")
    with pytest.raises(PictureError, match=r"000000000007\.jpg"):
        data[0]
    path.unlink()
    with pytest.raises(PictureError, match=r"000000000007\.jpg"):
        data[0]


@pytest.mark.parametrize("name", ["coco", "coco_keypoints", "coco_panoptic"])
def test_missing_folder_and_split(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_dataset(f"{name}:{tmp_path / 'nowhere'}", "val")
    with pytest.raises(DataError, match=r"no \w+ of split 'holiday'.*found: none"):
        open_dataset(f"{name}:{tmp_path}", "holiday")


def test_other_layouts(tmp_path: Path) -> None:
    content = json.dumps(document([annotation(1)]))
    picture(tmp_path / "a/images/train/000000000007.jpg")
    (tmp_path / "a/annotations").mkdir()
    (tmp_path / "a/annotations/instances_train.json").write_text(content)
    picture(tmp_path / "b/valid/000000000007.jpg")
    (tmp_path / "b/valid/_annotations.coco.json").write_text(content)
    picture(tmp_path / "c/000000000007.jpg")
    (tmp_path / "c/mine.json").write_text(content)
    for uri, split in (("a", "train"), ("b", "valid"), ("c/mine.json", "all")):
        assert len(open_dataset(f"coco:{tmp_path / uri}", split)[0].instances or ()) == 1
    with pytest.raises(DataError, match="fix: give --split all"):
        open_dataset(f"coco:{tmp_path / 'c/mine.json'}", "train")


# -- keypoints ---------------------------------------------------------------------------------------------------------
def people(annotations: list[dict[str, Any]], names: list[str] | None = None) -> dict[str, Any]:
    keypoints = list(NAMES) if names is None else names
    return document(annotations, categories=[{"id": 1, "name": "person", "keypoints": keypoints}])


def test_keypoints_are_pixel_centres(tmp_path: Path) -> None:
    flat = [0] * 51
    flat[0:3], flat[3:6], flat[6:9] = [4, 5, 2], [7, 2, 1], [9, 9, 0]
    write(tmp_path, people([annotation(1, keypoints=flat), annotation(2)]), "person_keypoints")
    data = open_dataset(f"coco_keypoints:{tmp_path}", "val")
    found = data[0].instances
    assert data.tasks == ("keypoint", "instance", "detection") and found is not None and found.keypoints is not None
    assert found.keypoints.shape == (2, 17, 3) and found.keypoints.dtype == np.float32
    assert found.keypoints[0, :3].tolist() == [[4.5, 5.5, 2], [7.5, 2.5, 1], [0, 0, 0]] and not found.keypoints[1].any()


def test_keypoints_of_another_length_are_counted(tmp_path: Path) -> None:
    write(tmp_path, people([annotation(1, keypoints=[1, 2, 2]), annotation(2, keypoints=["a"] * 51)]), "person_keypoints")
    data = open_dataset(f"coco_keypoints:{tmp_path}", "val")
    found = data[0].instances
    assert found is not None and found.keypoints is not None and not found.keypoints.any() and len(data.problems) == 2


def test_categories_must_agree_on_keypoints(tmp_path: Path) -> None:
    write(tmp_path, people([annotation(1)], []), "person_keypoints")
    with pytest.raises(DataError, match="0 lists of keypoint names"):
        open_dataset(f"coco_keypoints:{tmp_path}", "val")


def test_flip_pairs_and_sigmas_are_cocos() -> None:
    spec = keypoint_spec(list(NAMES))
    assert spec.flip == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    assert [spec.flip[place] for place in spec.flip] == list(range(17))
    from pycocotools.cocoeval import Params

    assert np.allclose(spec.sigmas, Params("keypoints").kpt_oks_sigmas)
    assert np.median(spec.sigmas) == OTHER_SIGMA
    other = keypoint_spec(["HandLeft", "head", "HandRight", "left only"])
    assert other.flip == [2, 1, 0, 3]


# -- panoptic ----------------------------------------------------------------------------------------------------------
def write_panoptic(root: Path, ids: np.ndarray, segments: list[Any], images: int = 1) -> Path:
    content = {
        "images": [{"id": 7 + n, "file_name": f"{n}.jpg"} for n in range(images)],
        "annotations": [{"image_id": 7, "file_name": "0.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 200, "name": "rug-merged", "isthing": 0}],
    }
    picture(root / "val2017" / "0.jpg", *ids.shape)
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "0.png")
    return folder / "0.png"


def test_panoptic_ids_become_segments_labels_and_objects(tmp_path: Path) -> None:
    big = 255 + 256 * 254 + 65536 * 253
    ids = np.array([[0, 5, 5], [big, big, 300]], np.int64)
    segments = [
        {"id": 5, "category_id": 200},
        {"id": big, "category_id": 1},
        {"id": 300, "category_id": 1, "iscrowd": 1},
    ]
    write_panoptic(tmp_path, ids, segments)
    data = open_dataset(f"coco_panoptic:{tmp_path}", "val")
    sample = data[0]
    assert sample.panoptic is not None and sample.instances is not None and sample.instances.crowd is not None
    assert (sample.panoptic.ids == ids).all() and sample.panoptic.ids.dtype == np.int32
    assert [(s.id, s.label, s.crowd) for s in sample.panoptic.segments] == [(5, 1, False), (300, 0, True), (big, 0, False)]
    assert sample.labels.tolist() == [[IGNORE, 1, 1], [0, 0, 0]]
    assert sample.instances.boxes.tolist() == [[2, 1, 3, 2], [0, 1, 2, 2]] and sample.instances.crowd.tolist() == [True, False]
    assert [item.thing for item in data.classes] == [True, False] and data.classes[1].colour == (250, 141, 255)
    assert data.tasks[0] == "panoptic" and len(data.problems) == 0


def test_panoptic_ids_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    ids = np.array([[1, 2, 3]])
    segments = [
        {"id": 1, "category_id": 1},
        {"id": 1, "category_id": 200},
        {"id": 2, "category_id": 77},
        {"id": 9, "category_id": 1},
        {"id": -4, "category_id": 1},
        "nonsense",
    ]
    write_panoptic(tmp_path, ids, segments, images=2)
    data = open_dataset(f"coco_panoptic:{tmp_path}", "val")
    assert len(data) == 1 and data[0].labels.tolist() == [[0, IGNORE, IGNORE]]
    assert data.problems.counts == {
        "picture without segments, left out": 1,
        "second segment of one id, left out": 1,
        "segment of an unknown category, left out": 1,
        "segment without pixels": 1,
        "segment whose id no pixel can have, left out": 2,
        "segment of pixels that is not listed: void": 2,
    }


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_broken_panoptic_pictures(content: bytes, tmp_path: Path) -> None:
    path = write_panoptic(tmp_path, np.ones((2, 3), np.int64), [{"id": 1, "category_id": 1}])
    data = open_dataset(f"coco_panoptic:{tmp_path}", "val")
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"0\.png"):
        data[0]
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    with pytest.raises(PictureError, match="mode L"):
        data[0]
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="label map of 4x2 px"):
        data[0]


# -- real samples ------------------------------------------------------------------------------------------------------
def test_official_categories_are_133(shared_data: Path) -> None:
    rows = json.loads((shared_data / "coco_panoptic_sample/panoptic_coco_categories.json").read_text())
    classes = official_categories()
    assert len(classes) == 133 and sum(item.thing for item in classes.values()) == 80
    assert [(row["name"], tuple(row["color"]), bool(row["isthing"])) for row in rows] == [
        (item.name, item.colour, item.thing) for item in classes.values()
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
def test_real_coco_objects_are_pycocotools(shared_data: Path) -> None:
    from pycocotools.coco import COCO

    data = open_dataset(f"coco:{shared_data / 'coco_subset'}", "val")
    assert len(data) == 188 and len(data.classes) == 80 and len(data.problems) == 0
    truth = COCO(shared_data / "coco_subset/annotations/instances_val2017.json")
    total = 0
    for index in range(0, len(data), 12):
        sample = data[index]
        records = truth.loadAnns(truth.getAnnIds(imgIds=int(sample.id)))
        found = sample.instances
        assert found is not None and found.masks is not None and found.crowd is not None and len(found) == len(records)
        for place, record in enumerate(records):
            assert (found.masks[place] == truth.annToMask(record)).all()
            assert found.crowd[place] == bool(record["iscrowd"])
            assert data.classes[found.classes[place]].name == truth.cats[record["category_id"]]["name"]
            x, y, w, h = record["bbox"]
            assert np.allclose(found.boxes[place], [x, y, x + w, y + h], atol=0.02)
        total += len(records)
    assert total > 50


def test_real_panoptic_pictures(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco_panoptic_sample"
    shutil.copytree(source / "input_images", tmp_path / "val2017")
    shutil.copytree(source / "panoptic_examples", tmp_path / "annotations/panoptic_val2017")
    shutil.copy(source / "panoptic_examples.json", tmp_path / "annotations/panoptic_val2017.json")
    data = open_dataset(f"coco_panoptic:{tmp_path}", "val")
    assert len(data) == 2 and len(data.classes) == 133
    records = {r["file_name"]: r for r in json.loads((source / "panoptic_examples.json").read_text())["annotations"]}
    for sample in data:
        listed = {item["id"]: item for item in records[f"{sample.id}.png"]["segments_info"]}
        assert sample.panoptic is not None and {s.id for s in sample.panoptic.segments} == set(listed)
        for segment in sample.panoptic.segments:
            where = sample.panoptic.ids == segment.id
            assert where.sum() == listed[segment.id]["area"] and (sample.labels[where] == segment.label).all()
        things = [s for s in sample.panoptic.segments if data.classes[s.label].thing]
        assert sample.instances is not None and len(sample.instances) == len(things)
    assert len(data.problems) == 0


def test_real_fixtures_of_every_coco_task(shared_data: Path) -> None:
    root = shared_data / "loader_fixtures/datumaro/coco_dataset"
    assert len(open_dataset(f"coco:{root / 'coco_instances'}", "val")[0].instances or ()) > 0
    assert len(open_dataset(f"coco:{root / 'coco_roboflow'}", "train")[0].instances or ()) > 0
    with pytest.raises(DataError, match="0 lists of keypoint names"):
        open_dataset(f"coco_keypoints:{root / 'coco_person_keypoints'}", "train")


# -- whatever the files say --------------------------------------------------------------------------------------------
ODD = [None, True, -1, 0, 1.5, "", "a", [], [1], {}, {"a": 1}, 1e308, 2**70, [[]], [None], float("nan"), float("inf"), [1, 2, 3, 4]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything inside of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def spoil(content: Any, rng: random.Random) -> Any:
    """A copy in which one thing is missing or another."""
    spoiled = copy.deepcopy(content)
    *path, last = rng.choice(list(places(content)))
    inside = spoiled
    for key in path:
        inside = inside[key]
    if isinstance(inside, dict) and rng.random() < 0.2:
        del inside[last]
    else:
        inside[last] = copy.deepcopy(rng.choice(ODD))
    return spoiled


@pytest.mark.parametrize("name", ["coco", "coco_keypoints", "coco_panoptic"])
def test_whatever_is_in_a_file_is_read_counted_or_told(name: str, tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 40, HEIGHT * WIDTH - 40]}
    if name == "coco_panoptic":
        write_panoptic(
            tmp_path, np.array([[1, 2, 300]]), [{"id": 1, "category_id": 1, "iscrowd": 0}, {"id": 2, "category_id": 200}]
        )
        path = tmp_path / "annotations" / "panoptic_val2017.json"
    else:
        records = [annotation(1, keypoints=[3, 4, 2] * 17), annotation(2, 1, runs, iscrowd=1)]
        content = people(records) if name == "coco_keypoints" else document(records)
        path = write(tmp_path, content, "person_keypoints" if name == "coco_keypoints" else "instances")
    good, rng, told = json.loads(path.read_text()), random.Random(7), []
    for _ in range(150):
        path.write_text(json.dumps(spoil(good, rng)))
        try:
            samples = list(open_dataset(f"{name}:{tmp_path}", "val"))
        except DataError as error:
            told.append(str(error))
            continue
        for sample in samples:
            assert sample.instances is not None and np.isfinite(sample.instances.boxes).all()
            assert sample.labels.dtype == np.uint8 and len(sample.instances.boxes) == len(sample.instances)
    assert 0 < len(told) < 150 and not any("\n" in line for line in told)
