"""VOC2012, Cityscapes, ADE20K, CamVid and folders: official layouts made up in tmp_path, and the real samples where present."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeseg.data import REGISTRY, open_dataset
from edgeseg.data.base import IGNORE
from edgeseg.data.pairs import bit_palette
from edgeseg.errors import DataError, PictureError

Build = Callable[[Path, np.ndarray], Path]


def picture(path: Path, height: int = 4, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), (10, 60, 200), np.uint8))


def mask(path: Path, labels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(labels.ravel().tolist())
        image.putpalette([level for colour in bit_palette(256) for level in colour])
    image.save(path)


def make_voc(root: Path, labels: np.ndarray) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    picture(base / "JPEGImages" / "2007_000032.jpg", *labels.shape)
    mask(base / "SegmentationClass" / "2007_000032.png", labels, palette=True)
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n")
    return base / "SegmentationClass" / "2007_000032.png"


def make_cityscapes(root: Path, labels: np.ndarray) -> Path:
    stem = "aachen_000000_000019"
    picture(root / "leftImg8bit" / "train" / "aachen" / f"{stem}_leftImg8bit.png", *labels.shape)
    path = root / "gtFine" / "train" / "aachen" / f"{stem}_gtFine_labelIds.png"
    mask(path, labels)
    return path


def make_ade(root: Path, labels: np.ndarray) -> Path:
    picture(root / "ADEChallengeData2016" / "images" / "training" / "ADE_train_00000001.jpg", *labels.shape)
    path = root / "ADEChallengeData2016" / "annotations" / "training" / "ADE_train_00000001.png"
    mask(path, labels)
    return path


def make_camvid(root: Path, labels: np.ndarray) -> Path:
    picture(root / "train" / "0001TP_006690.png", *labels.shape)
    mask(root / "trainannot" / "0001TP_006690.png", labels)
    (root / "train.txt").write_text("/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png\n")
    return root / "trainannot" / "0001TP_006690.png"


def make_folder(root: Path, labels: np.ndarray) -> Path:
    picture(root / "train" / "images" / "a.jpg", *labels.shape)
    mask(root / "train" / "masks" / "a.png", labels)
    (root / "classes.csv").write_text("index,name,r,g,b,note\n0,ground,1,2,3,\n1,thing,200,0,0,\n2,void,0,0,0,ignore\n")
    return root / "train" / "masks" / "a.png"


BUILDERS: dict[str, Build] = {
    "voc": make_voc,
    "cityscapes": make_cityscapes,
    "ade20k": make_ade,
    "camvid": make_camvid,
    "folder": make_folder,
}
# What is stored, and what must come out.
CASES = {
    "voc": ([0, 1, 20, 255], [0, 1, 20, IGNORE]),
    "cityscapes": ([7, 33, 0, 29], [0, 18, IGNORE, IGNORE]),
    "ade20k": ([0, 1, 150, 150], [IGNORE, 0, 149, 149]),
    "camvid": ([0, 10, 11, 8], [0, 10, IGNORE, 8]),
    "folder": ([0, 1, 2, 255], [0, 1, IGNORE, IGNORE]),
}
WRONG = {"voc": 21, "cityscapes": 34, "ade20k": 151, "camvid": 12, "folder": 9}


def every(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, sorted(BUILDERS))


@every("name")
def test_stored_labels_become_class_indices(name: str, tmp_path: Path) -> None:
    stored, expected = CASES[name]
    BUILDERS[name](tmp_path, np.tile(np.array(stored, np.uint8), (3, 1)))
    data = open_dataset(f"{name}:{tmp_path}", "train")
    sample = data[0]
    assert len(data) == 1 and sample.id == data.ids()[0] and data.split == "train" and data.licence
    assert sample.image.shape == (3, 4, 3) and sample.image.dtype == np.uint8
    assert np.abs(sample.image[0, 0].astype(int) - (10, 60, 200)).max() < 12, "pictures are BGR"
    assert sample.labels.dtype == np.uint8 and sample.labels.tolist() == [expected] * 3
    assert [other.id for other in data] == data.ids()


@every("name")
def test_a_label_outside_the_classes_names_file_value_and_pixel(name: str, tmp_path: Path) -> None:
    labels = np.zeros((3, 4), np.uint8)
    labels[1, 2] = WRONG[name]
    path = BUILDERS[name](tmp_path, labels)
    with pytest.raises(DataError, match=rf"{path.name}: label {WRONG[name]} at pixel \(x=2, y=1\)"):
        open_dataset(f"{name}:{tmp_path}", "train")[0]


@every("name")
def test_a_mask_of_another_size_is_refused(name: str, tmp_path: Path) -> None:
    path = BUILDERS[name](tmp_path, np.zeros((3, 4), np.uint8))
    mask(path, np.zeros((3, 5), np.uint8))
    with pytest.raises(DataError, match=rf"{path.name}: label map of 5x3 px.*4x3 px"):
        open_dataset(f"{name}:{tmp_path}", "train")[0]


@every("name")
@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_corrupt_masks_and_pictures_name_the_file(name: str, content: bytes, tmp_path: Path) -> None:
    path = BUILDERS[name](tmp_path, np.zeros((3, 4), np.uint8))
    good = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(PictureError, match=path.name):
        open_dataset(f"{name}:{tmp_path}", "train")[0]
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(PictureError, match=path.name):
        open_dataset(f"{name}:{tmp_path}", "train")[0]
    path.write_bytes(good)
    image = next(p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".jpg", ".png") and p != path)
    image.write_bytes(content)
    with pytest.raises(PictureError, match=image.name):
        open_dataset(f"{name}:{tmp_path}", "train")[0]


def declared_png(side: int) -> bytes:
    """A PNG of a few bytes that says it is ``side`` pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@every("name")
def test_a_picture_that_declares_too_many_pixels_is_refused(name: str, tmp_path: Path) -> None:
    path = BUILDERS[name](tmp_path, np.zeros((3, 4), np.uint8))
    good = path.read_bytes()
    path.write_bytes(declared_png(60_000))
    with pytest.raises(PictureError, match=path.name):
        open_dataset(f"{name}:{tmp_path}", "train")[0]
    path.write_bytes(good)
    image = next(p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".jpg", ".png") and p != path)
    image.write_bytes(declared_png(60_000))
    with pytest.raises(PictureError, match=image.name):
        open_dataset(f"{name}:{tmp_path}", "train")[0]


@every("name")
def test_missing_directory_and_split_are_one_line_errors(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_dataset(f"{name}:{tmp_path / 'nowhere'}", "train")
    BUILDERS[name](tmp_path, np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError) as caught:
        open_dataset(f"{name}:{tmp_path}", "holiday")
    assert "holiday" in str(caught.value) and "\n" not in str(caught.value)


@every("name")
def test_empty_directory_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_dataset(f"{name}:{tmp_path}", "train")


def test_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"coconut.*ade20k, .*camvid, cityscapes, coco, .*folder, .*voc"):
        open_dataset("coconut:/x", "train")
    assert {"ade20k", "camvid", "cityscapes", "folder", "streets", "voc"} <= set(REGISTRY)


@pytest.mark.parametrize(("name", "count"), [("voc", 21), ("cityscapes", 19), ("ade20k", 150), ("camvid", 11)])
def test_official_classes(name: str, count: int, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path, np.full((2, 2), 7, np.uint8))
    classes = open_dataset(f"{name}:{tmp_path}", "train").classes
    assert len(classes) == count == len({item.name for item in classes})


def test_voc_palette_is_the_devkits() -> None:
    assert bit_palette(256)[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert bit_palette(256)[15] == (192, 128, 128) and bit_palette(256)[20] == (0, 64, 128)
    assert bit_palette(256)[255] == (224, 224, 192)


def test_voc_reads_coloured_masks_too(tmp_path: Path) -> None:
    path = make_voc(tmp_path, np.zeros((1, 3), np.uint8))
    Image.fromarray(np.array([[(0, 0, 0), (192, 128, 128), (224, 224, 192)]], np.uint8)).save(path)
    assert open_dataset(f"voc:{tmp_path}", "train")[0].labels.tolist() == [[0, 15, IGNORE]]


def test_voc_list_naming_a_frame_without_labels(tmp_path: Path) -> None:
    make_voc(tmp_path, np.zeros((2, 2), np.uint8))
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text("2007_000032\n2007_000099\n")
    with pytest.raises(DataError, match=r"2007_000099.png: missing \(1 of 2"):
        open_dataset(f"voc:{tmp_path}", "train")


def test_empty_lists_are_refused(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", np.zeros((2, 2), np.uint8))
    (tmp_path / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text("\n \n")
    make_camvid(tmp_path / "camvid", np.zeros((2, 2), np.uint8))
    (tmp_path / "camvid/train.txt").write_text("\n")
    for name in ("voc", "camvid"):
        with pytest.raises(DataError, match=r"train.txt: no frames"):
            open_dataset(f"{name}:{tmp_path / name}", "train")


def test_camvid_line_with_one_path(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("train/0001.png\n")
    with pytest.raises(DataError, match="two paths a line"):
        open_dataset(f"camvid:{tmp_path}", "train")


def test_cityscapes_prefers_train_ids(tmp_path: Path) -> None:
    path = make_cityscapes(tmp_path, np.full((2, 2), 7, np.uint8))
    mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), np.array([[5, 18], [255, 0]], np.uint8))
    assert open_dataset(f"cityscapes:{tmp_path}", "train")[0].labels.tolist() == [[5, 18], [IGNORE, 0]]


# -- folders ---------------------------------------------------------------------------------------------------------
def test_folder_with_split_inside_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / "city" / "x.png")
        mask(tmp_path / "masks" / split / "city" / "x.png", np.eye(4, 6, dtype=np.uint8))
    train, val = (open_dataset(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert train.ids() == ["train/city/x"] and val.ids() == ["val/city/x"]
    assert [item.name for item in train.classes] == ["class 0", "class 1"]


def test_folder_with_lists(tmp_path: Path) -> None:
    for stem in "abc":
        picture(tmp_path / "images" / f"{stem}.jpg")
        mask(tmp_path / "masks" / f"{stem}.png", np.zeros((4, 6), np.uint8))
    (tmp_path / "val.txt").write_text("c.jpg\na\n")
    assert open_dataset(f"folder:{tmp_path}", "val").ids() == ["c", "a"]
    assert open_dataset(f"folder:{tmp_path}", "all").ids() == ["a", "b", "c"]
    (tmp_path / "val.txt").write_text("c\nzebra\n")
    with pytest.raises(DataError, match=r"'zebra' \(1 of 2 names\)"):
        open_dataset(f"folder:{tmp_path}", "val")
    with pytest.raises(DataError, match=r"train.txt"):
        open_dataset(f"folder:{tmp_path}", "train")


def test_folder_with_colour_masks(tmp_path: Path) -> None:
    path = make_folder(tmp_path, np.zeros((1, 3), np.uint8))
    Image.fromarray(np.array([[(1, 2, 3), (200, 0, 0), (0, 0, 0)]], np.uint8)).save(path)
    assert open_dataset(f"folder:{tmp_path}", "train")[0].labels.tolist() == [[0, 1, IGNORE]]
    Image.fromarray(np.array([[(1, 2, 3), (200, 0, 0), (9, 9, 9)]], np.uint8)).save(path)
    with pytest.raises(DataError, match=r"colour \(9, 9, 9\) at pixel \(x=2, y=0\)"):
        open_dataset(f"folder:{tmp_path}", "train")[0]


def test_folder_with_json_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, np.ones((1, 3), np.uint8))
    (tmp_path / "classes.csv").unlink()
    (tmp_path / "classes.json").write_text(json.dumps([{"name": "a", "colour": [0, 0, 0]}, {"name": "b", "colour": [9, 9, 9]}]))
    assert [item.name for item in open_dataset(f"folder:{tmp_path}", "train").classes] == ["a", "b"]
    for broken in ("{", "[]", '[{"name": "a"}]', '[{"name": "a", "colour": [1, 2, 300]}]', "[3]"):
        (tmp_path / "classes.json").write_text(broken)
        with pytest.raises(DataError, match=r"classes.json"):
            open_dataset(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize(
    "text", ["", "index,name,r,g,b\n", "index,name,r,g,b\n1,a,0,0,0\n", "name\nroad\n", "index,name,r,g,b\n0,a,0,0,999\n"]
)
def test_folder_with_a_broken_class_table(text: str, tmp_path: Path) -> None:
    make_folder(tmp_path, np.zeros((1, 3), np.uint8))
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=r"classes.csv"):
        open_dataset(f"folder:{tmp_path}", "train")


def test_folder_picture_without_mask(tmp_path: Path) -> None:
    make_folder(tmp_path, np.zeros((1, 3), np.uint8))
    picture(tmp_path / "train" / "images" / "lonely.png")
    with pytest.raises(DataError, match=r"lonely.png: no mask"):
        open_dataset(f"folder:{tmp_path}", "train")


# -- real samples ------------------------------------------------------------------------------------------------------
def test_real_voc_samples(shared_data: Path) -> None:
    data = open_dataset(f"voc:{shared_data / 'voc_ade_samples'}", "trainval")
    labels = {sample.id: set(np.unique(sample.labels).tolist()) for sample in data}
    assert labels["2011_000006"] == {0, 9, 15, 18, IGNORE}
    names = (shared_data / "voc_ade_samples/VOCdevkit/VOC2012/class_names.txt").read_text().split("\n")
    assert [n.replace(" ", "").replace("/", "") for n in names if n][1:] == [item.name for item in data.classes][1:]


def test_real_ade_samples(shared_data: Path) -> None:
    data = open_dataset(f"ade20k:{shared_data / 'voc_ade_samples'}", "val")
    first = data[0]
    assert len(data) == 3 and first.image.shape[:2] == first.labels.shape == (512, 683)
    rows = (shared_data / "voc_ade_samples/ADEChallengeData2016/objectInfo150.txt").read_text().splitlines()[1:]
    assert [row.split("\t")[4].split(",")[0].strip() for row in rows] == [item.name for item in data.classes]


def test_real_cityscapes_sample_by_label_ids_agrees_with_train_ids(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "loader_fixtures" / "mmseg_cityscapes_256x128"
    by_train_ids = open_dataset(f"cityscapes:{source}", "val")[0]
    for path in source.rglob("frankfurt*"):
        if "TrainIds" not in path.name and path.is_file():
            copy = tmp_path / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    by_label_ids = open_dataset(f"cityscapes:{tmp_path}", "val")[0]
    # The two files were shrunk apart from each other, so a few border pixels of the sample differ.
    assert (by_label_ids.labels == by_train_ids.labels).mean() > 0.995
    for label in np.unique(by_train_ids.labels):
        found = by_label_ids.labels[by_train_ids.labels == label]
        assert np.bincount(found).argmax() == label
    assert by_train_ids.labels.shape == (128, 256) and 5 < len(np.unique(by_train_ids.labels)) <= 20


def test_real_camvid_splits(shared_data: Path) -> None:
    splits = {name: open_dataset(f"camvid:{shared_data / 'camvid'}", name) for name in ("train", "val", "test", "trainval")}
    assert [len(split) for split in splits.values()] == [367, 101, 233, 468]
    assert not set(splits["test"].ids()) & set(splits["trainval"].ids())
    sample = splits["val"][0]
    assert sample.image.shape == (360, 480, 3) and set(np.unique(sample.labels)) <= {*range(11), IGNORE}


def test_a_bare_directory_is_told_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"fix: --data folder:{tmp_path}"):
        open_dataset(str(tmp_path), "train")
