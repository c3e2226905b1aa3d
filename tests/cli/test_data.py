"""``edgeseg data check``: what is counted, what is listed, the exit code, and the sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from edgeseg.cli.app import run
from edgeseg.data import open_dataset
from edgeseg.measure.data_check import check_dataset
from edgeseg.report.data_sheet import TILE, sample_sheet
from tests.data.pictures import mask, picture


def make_folder(root: Path, masks: dict[str, np.ndarray]) -> Path:
    (root / "train" / "masks").mkdir(parents=True)
    for name, labels in masks.items():
        picture(root / "train" / "images" / f"{name}.png", *labels.shape)
        mask(root / "train" / "masks" / f"{name}.png", labels.astype(np.uint8))
    rows = ["0,ground,10,20,30,,", "1,weed,0,200,0,,1", "2,pole,90,90,90,,", "9,unsure,0,0,0,ignore,"]
    (root / "classes.csv").write_text("index,name,r,g,b,note,thing\n" + "\n".join(rows) + "\n")
    return root


def make_coco(root: Path, annotations: list[dict[str, Any]]) -> Path:
    for number in (1, 2):
        picture(root / "train2017" / f"{number}.jpg", 20, 30)
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 20, "width": 30} for number in (1, 2)]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}], "annotations": annotations}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def box(number: int, image: int = 1, category: int = 1, **more: Any) -> dict[str, Any]:
    outline = [[2, 3, 12, 3, 12, 9, 2, 9]]
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline, "bbox": [2, 3, 10, 6], **more}


def check(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert run(["data", "check", *map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_pixels_pictures_sizes_and_void(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path, {"a": np.array([[0, 0, 1], [0, 9, 255]]), "b": np.array([[0, 0], [0, 0]])})
    report = check(capfd, "folder", tmp_path)
    assert (report["pictures"], report["read"], report["failed"], report["usable"]) == (2, 2, 0, True)
    assert report["sizes"] == {"3x2": 1, "2x2": 1} and report["void_share"] == pytest.approx(2 / 10)
    assert [(c["name"], c["pixels"], c["pictures"], c["thing"]) for c in report["classes"]] == [
        ("ground", 7, 2, False),
        ("weed", 1, 1, True),
        ("pole", 0, 0, False),
    ]
    assert report["absent"] == ["pole"] and report["problems"] == {} and report["examples"] == []


def test_objects_crowds_and_problems(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [box(4, image=77), box(5, category=9), box(1), box(6, segmentation=[[1, 1, 2, 2]])]
    make_coco(tmp_path, [box(1), box(2, category=5), box(3, image=2, iscrowd=1), *wrong])
    report = check(capfd, "coco", tmp_path)
    assert report["usable"] is True, "problems of annotations are counted and stop nothing"
    assert [(c["instances"], c["crowds"], c["pictures"]) for c in report["classes"]] == [(1, 2, 2), (1, 0, 1)]
    assert sum(report["problems"].values()) == 4 == len(report["examples"])
    assert "annotation 4 of image 77: annotation of a picture that is not listed, left out" in report["examples"]


def test_an_outline_between_the_pixels_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_coco(tmp_path, [box(1, segmentation=[[3.6, 3.6, 3.7, 3.6, 3.7, 3.7]]), box(2)])
    report = check(capfd, "coco", tmp_path)
    assert report["problems"] == {"object whose outline covers no pixel": 1} and report["usable"] is True


def test_broken_pictures_are_listed_and_the_rest_is_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path, {name: np.zeros((2, 3), int) for name in "abcd"})
    (tmp_path / "train/images/b.png").write_bytes(b"not a picture")
    (tmp_path / "train/masks/c.png").write_bytes(b"")
    mask(tmp_path / "train/masks/d.png", np.array([[0, 0, 0], [0, 7, 0]], np.uint8))
    report = check(capfd, "folder", tmp_path, code=1)
    assert (report["read"], report["unreadable"], report["invalid"], report["usable"]) == (1, 2, 1, False)
    assert [Path(line.split(": ")[0]).name for line in report["examples"]] == ["b.png", "c.png", "d.png"]
    assert "label 7 at pixel (x=1, y=1)" in report["examples"][2]
    assert run(["data", "check", "folder", str(tmp_path)]) == 1
    out = capfd.readouterr().out
    assert "3 problems:" in out and "not usable: 3 of 4 pictures fail" in out


def test_a_set_without_any_truth_is_not_usable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path, {"a": np.full((2, 2), 255)})
    report = check(capfd, "folder", tmp_path, code=1)
    assert report["void_share"] == 1.0 and report["usable"] is False
    assert run(["data", "check", "folder", str(tmp_path)]) == 1
    assert "no picture has a label" in capfd.readouterr().out


def test_no_more_than_20_problems_are_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_coco(tmp_path, [box(1), *(box(number, image=77) for number in range(2, 32))])
    report = check(capfd, "coco", tmp_path)
    assert sum(report["problems"].values()) == 30 and len(report["examples"]) == 20
    assert run(["data", "check", "coco", str(tmp_path)]) == 0
    assert "30 problems, the first 20:" in capfd.readouterr().out


def test_limit_is_spread_over_the_split(tmp_path: Path) -> None:
    make_folder(tmp_path, {f"{number:02d}": np.zeros((2, 2), int) for number in range(10)})
    seen: list[float] = []
    report = check_dataset(open_dataset(f"folder:{tmp_path}", "train"), "x", 3, seen.append)
    assert report.read == 3 and seen == [1, 2, 3] and report.good[0] < 3 and report.good[-1] > 5


def test_further_label_spaces_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "Images" / "a.jpg", 2, 3)
    for kind in ("SemanticLabels", "GeoLabels"):
        (tmp_path / kind).mkdir()
        savemat(tmp_path / kind / "a.mat", {"S": np.array([[1, 2, 3], [1, 1, 0]])})
    report = check(capfd, "siftflow", tmp_path, "--split", "all", "--sheet", tmp_path / "sheet.png")
    assert [item["pixels"] for item in report["spaces"]["geometry"]] == [3, 1, 1]
    assert run(["data", "check", "siftflow", str(tmp_path), "--split", "all"]) == 0
    assert "horizontal" in capfd.readouterr().out and (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coconut", "x"], "unknown data set 'coconut'"),
        (["coco", "/nowhere"], "/nowhere: no such directory"),
        (["streets", "48x32", "--split", "holiday"], "holiday"),
        (["streets", "48x32", "--limit", "1", "--sheet", "{}/a.nonsense"], "no picture format '.nonsense'"),
        (["streets", "48x32", "--limit", "1", "--sheet", "/proc/nowhere/a.png"], "/proc"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", *(word.format(tmp_path) for word in arguments)]) == 1
    error = capfd.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


# -- the sheet ---------------------------------------------------------------------------------------------------------
def test_the_sheet_shows_frames_labels_objects_and_a_legend(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_coco(tmp_path, [box(1), box(2, 2, 5)])
    path = tmp_path / "sheet.png"
    assert run(["data", "check", "coco", str(tmp_path), "--sheet", str(path), "--rows", "2"]) == 0
    assert "usable" in capfd.readouterr().out
    sheet = cv2.imread(str(path))
    assert sheet.shape[1] > 3 * TILE[0] and sheet.shape[0] > 2 * 20
    one = sample_sheet([open_dataset(f"coco:{tmp_path}", "train")[0]], open_dataset(f"coco:{tmp_path}", "train"))
    assert one.shape[0] < sheet.shape[0] and one.shape[1] == sheet.shape[1]
    b, g, r = np.moveaxis(one.astype(int), -1, 0)
    cat = open_dataset(f"coco:{tmp_path}", "train").classes[0].colour
    assert ((r == cat[0]) & (g == cat[1]) & (b == cat[2])).sum() > 200, "the class's colour is in the labels and the legend"


def test_void_is_striped_and_a_black_class_is_black(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"a": np.repeat([[0, 9]], 2, axis=0).repeat(40, axis=0).repeat(40, axis=1)})
    (root / "classes.csv").write_text("index,name,r,g,b,note\n0,night,0,0,0,\n9,unsure,1,1,1,ignore\n")
    data = open_dataset(f"folder:{root}", "train")
    sheet = sample_sheet([data[0]], data)
    black, stripes = (sheet == 0).all(axis=2), (sheet == 92).all(axis=2)
    assert black.sum() > 1000 and stripes.sum() > 1000


def test_sheets_of_every_kind_of_sample(shared_data: Path) -> None:
    for uri, split, columns in (
        ("voc:voc_ade_samples", "trainval", 3),
        ("cityscapes:loader_fixtures/mmseg_cityscapes_256x128", "val", 4),
    ):
        name, _, path = uri.partition(":")
        data = open_dataset(f"{name}:{shared_data / path}", split)
        sheet = sample_sheet([data[0]], data)
        assert sheet.dtype == np.uint8 and sheet.shape[1] == columns * (TILE[0] + 8)
