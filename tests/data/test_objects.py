"""Objects and segments of VOC, SBD and Cityscapes: official layouts made up in tmp_path, and the real samples where present."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from edgeseg.data import open_dataset
from edgeseg.data.base import IGNORE
from edgeseg.errors import DataError, PictureError
from edgeseg.scene import Segment
from tests.data.pictures import coloured, mask, picture


# -- VOC and SBD -------------------------------------------------------------------------------------------------------
def make_voc(root: Path, splits: dict[str, list[str]], labels: np.ndarray, objects: np.ndarray | None) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in splits.items():
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            picture(base / "JPEGImages" / f"{name}.jpg", *labels.shape)
            mask(base / "SegmentationClass" / f"{name}.png", labels.astype(np.uint8))
            if objects is not None:
                mask(base / "SegmentationObject" / f"{name}.png", objects.astype(np.uint8))
    return base


def make_sbd(root: Path, splits: dict[str, list[str]], labels: np.ndarray, objects: np.ndarray) -> Path:
    base = root / "benchmark_RELEASE" / "dataset"
    for folder in ("img", "cls", "inst"):
        (base / folder).mkdir(parents=True)
    for split, names in splits.items():
        (base / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            picture(base / "img" / f"{name}.jpg", *labels.shape)
            boundaries = np.zeros(20, object)
            savemat(base / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": labels.astype(np.uint8), "Boundaries": boundaries}})
            found = {"Segmentation": objects.astype(np.uint8), "Categories": np.array([[15], [8]], np.uint8)}
            savemat(base / "inst" / f"{name}.mat", {"GTinst": found})
    return base


LABELS = np.array([[0, 15, 15, 255], [0, 15, 8, 8]])
OBJECTS = np.array([[0, 1, 1, 255], [0, 1, 2, 2]])


def test_voc_objects_have_the_class_of_their_pixels(tmp_path: Path) -> None:
    make_voc(tmp_path, {"val": ["2007_000033"]}, LABELS, OBJECTS)
    data = open_dataset(f"voc:{tmp_path}", "val")
    found = data[0].instances
    assert data.tasks == ("semantic", "instance", "detection") and found is not None and found.masks is not None
    assert found.classes.tolist() == [15, 8] and found.boxes.tolist() == [[1, 0, 3, 2], [2, 1, 4, 2]]
    assert found.masks.tolist() == [[[0, 1, 1, 0], [0, 1, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 1]]]
    assert [item.thing for item in data.classes] == [False] + [True] * 20


def test_voc_objects_without_a_class_and_none_at_all(tmp_path: Path) -> None:
    base = make_voc(tmp_path, {"val": ["2007_000033"]}, LABELS, np.array([[7, 0, 0, 0], [0, 0, 0, 0]]))
    data = open_dataset(f"voc:{tmp_path}", "val")
    assert len(data[0].instances or ()) == 0
    assert list(data.problems) == [("object without a pixel of a class, left out", "object 7 of 2007_000033.png")]
    path = base / "SegmentationObject" / "2007_000033.png"
    mask(path, np.zeros((2, 4), np.uint8))
    found = data[0].instances
    assert found is not None and found.masks is not None and found.masks.shape == (0, 2, 4)
    path.write_bytes(b"")
    with pytest.raises(PictureError, match=path.name):
        data[0]
    mask(path, np.zeros((2, 5), np.uint8))
    with pytest.raises(DataError, match="label map of 5x2 px"):
        data[0]


def test_voc_without_objects_is_a_semantic_set(tmp_path: Path) -> None:
    make_voc(tmp_path, {"val": ["2007_000033"]}, LABELS, None)
    data = open_dataset(f"voc:{tmp_path}", "val")
    assert data.tasks == ("semantic",) and data[0].instances is None


def test_sbd_objects(tmp_path: Path) -> None:
    base = make_sbd(tmp_path, {"train": ["2008_000001"], "val": ["2008_000002"]}, LABELS % 255, OBJECTS % 255)
    data = open_dataset(f"sbd:{tmp_path}", "trainval")
    assert data.ids() == ["2008_000001", "2008_000002"]
    found = data[0].instances
    assert data[0].labels.tolist() == [[0, 15, 15, 0], [0, 15, 8, 8]] and found is not None and found.classes.tolist() == [15, 8]
    (base / "inst" / "2008_000001.mat").write_bytes(b"MATLAB 5.0 nonsense")
    with pytest.raises(PictureError, match=r"2008_000001\.mat: cannot read"):
        data[0]
    savemat(base / "inst" / "2008_000001.mat", {"other": 1})
    with pytest.raises(PictureError, match=r"no variable 'GTinst'"):
        data[0]
    savemat(base / "inst" / "2008_000001.mat", {"GTinst": {"Segmentation": np.zeros((2, 4))}})
    with pytest.raises(DataError, match="float64"):
        data[0]
    with pytest.raises(DataError, match="no split 'holiday'"):
        open_dataset(f"sbd:{tmp_path}", "holiday")


def test_train_aug_is_vocs_train_and_what_sbd_has_more(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", {"train": ["a"], "val": ["b"]}, LABELS, OBJECTS)
    make_sbd(tmp_path / "sbd", {"train": ["a", "c"], "val": ["b", "d"]}, LABELS % 255, OBJECTS % 255)
    data = open_dataset(f"voc:{tmp_path / 'voc'},{tmp_path / 'sbd'}", "train_aug")
    assert data.ids() == ["a", "c", "d"] and len(data) == 3
    assert IGNORE in data[0].labels and IGNORE not in data[1].labels, "VOC's own labels where it has them"
    assert [sample.id for sample in data] == data.ids() and all(len(sample.instances or ()) == 2 for sample in data)
    with pytest.raises(DataError, match="add SBD"):
        open_dataset(f"voc:{tmp_path / 'voc'}", "train_aug")


def test_train_aug_as_a_list_with_label_files(tmp_path: Path) -> None:
    base = make_voc(tmp_path, {"train": ["a"], "train_aug": ["a"]}, LABELS, OBJECTS)
    mask(base / "SegmentationClassAug" / "a.png", np.full((2, 4), 3, np.uint8))
    data = open_dataset(f"voc:{tmp_path}", "train_aug")
    assert (data[0].labels == 3).all() and data.tasks == ("semantic",)


# -- Cityscapes --------------------------------------------------------------------------------------------------------
IDS = np.array([[7, 7, 26001, 26001], [24, 4, 26002, 33000]])


def make_cityscapes(root: Path, ids: np.ndarray, labels: bool = True) -> Path:
    stem = "aachen_000000_000019"
    picture(root / "leftImg8bit/train/aachen" / f"{stem}_leftImg8bit.png", *ids.shape)
    folder = root / "gtFine/train/aachen"
    mask(folder / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16))
    if labels:
        mask(folder / f"{stem}_gtFine_labelIds.png", np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8))
    return folder / f"{stem}_gtFine_instanceIds.png"


@pytest.mark.parametrize("labels", [True, False])
def test_cityscapes_objects_and_segments(labels: bool, tmp_path: Path) -> None:
    make_cityscapes(tmp_path, IDS, labels)
    data = open_dataset(f"cityscapes:{tmp_path}", "train")
    sample = data[0]
    assert "panoptic" in data.tasks and sample.panoptic is not None and sample.instances is not None
    assert sample.labels.tolist() == [[0, 0, 13, 13], [11, IGNORE, 13, 18]]
    assert sample.panoptic.segments == (
        Segment(7, 0),
        Segment(24, 11, crowd=True),
        Segment(26001, 13),
        Segment(26002, 13),
        Segment(33000, 18),
    )
    assert sample.panoptic.ids.tolist() == [[7, 7, 26001, 26001], [24, 0, 26002, 33000]]
    assert sample.instances.classes.tolist() == [11, 13, 13, 18]
    assert sample.instances.crowd is not None and sample.instances.crowd.tolist() == [True, False, False, False]
    assert [item.name for item in data.classes if item.thing] == [
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ]  # fmt: skip


def test_cityscapes_official_segments_are_used_where_they_are(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, IDS)
    stem, folder = "aachen_000000_000019", tmp_path / "gtFine" / "cityscapes_panoptic_train"
    segments = [{"id": 7, "category_id": 7, "iscrowd": 0}, {"id": 26001, "category_id": 26, "iscrowd": 0}]
    item = {"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": segments}
    ids = np.array([[7, 7, 26001, 26001], [0, 0, 0, 0]])
    coloured(folder / f"{stem}_gtFine_panoptic.png", np.stack([ids & 255, ids >> 8, ids >> 16], axis=-1))
    folder.with_suffix(".json").write_text(json.dumps({"annotations": [item]}))
    panoptic = open_dataset(f"cityscapes:{tmp_path}", "train")[0].panoptic
    assert panoptic is not None and panoptic.segments == (Segment(7, 0), Segment(26001, 13))
    folder.with_suffix(".json").write_text("{}")
    with pytest.raises(DataError, match=r"cityscapes_panoptic_train\.json"):
        open_dataset(f"cityscapes:{tmp_path}", "train")[0]


def test_cityscapes_unknown_ids_and_broken_files(tmp_path: Path) -> None:
    path = make_cityscapes(tmp_path, np.array([[7, 999], [65535, 7]]), labels=False)
    data = open_dataset(f"cityscapes:{tmp_path}", "train")
    with pytest.raises(DataError, match=r"label 999 at pixel \(x=1, y=0\)"):
        data[0]
    path.write_bytes(b"")
    with pytest.raises(PictureError, match="instanceIds"):
        data[0]
    coloured(path, np.zeros((2, 2, 3)))
    with pytest.raises(PictureError, match="3 channels"):
        data[0]


# -- real samples ------------------------------------------------------------------------------------------------------
def test_real_voc_objects(shared_data: Path) -> None:
    data = open_dataset(f"voc:{shared_data / 'voc_ade_samples'}", "trainval")
    found = {sample.id: sample.instances for sample in data}["2011_000006"]
    assert found is not None and found.masks is not None
    names = [data.classes[label].name for label in found.classes]
    assert names.count("person") >= 3 and len(data.problems) == 0 and (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_real_cityscapes_objects(shared_data: Path) -> None:
    data = open_dataset(f"cityscapes:{shared_data / 'loader_fixtures/mmseg_cityscapes_256x128'}", "val")
    sample = data[0]
    assert sample.instances is not None and sample.panoptic is not None
    assert [data.classes[label].name for label in sample.instances.classes].count("person") == 4
    labels = {segment.id: segment.label for segment in sample.panoptic.segments}
    # The files of the sample were shrunk apart from each other: borders differ.
    agree = [sample.labels[sample.panoptic.ids == number] == label for number, label in labels.items()]
    assert np.concatenate(agree).mean() > 0.99


def test_fixtures_with_instance_ids_alone(shared_data: Path) -> None:
    data = open_dataset(f"cityscapes:{shared_data / 'loader_fixtures/datumaro/cityscapes_dataset/dataset'}", "train")
    assert data[0].panoptic is not None
