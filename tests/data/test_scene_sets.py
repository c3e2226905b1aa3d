"""The full ADE20K, Mapillary, GTA5 and SIFT Flow: official layouts made up in tmp_path, and the real samples where present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from edgeseg.data import open_dataset
from edgeseg.data.base import IGNORE
from edgeseg.data.segments import labels_of, number_segments
from edgeseg.errors import DataError, PictureError
from edgeseg.manifest import ClassInfo
from edgeseg.scene import Segment
from tests.data.pictures import coloured, mask, picture

STUFF, THING = ClassInfo(name="wall", colour=(1, 2, 3)), ClassInfo(name="car", colour=(4, 5, 6), thing=True)


def test_objects_of_two_classes_with_one_number_are_two_segments() -> None:
    labels = np.array([[0, 1, 1, 2], [0, 1, IGNORE, 2]], np.uint8)
    objects = np.array([[5, 1, 0, 1], [0, 2, 9, 1]])
    panoptic = number_segments(labels, objects, (STUFF, THING, THING))
    assert panoptic.segments == (
        Segment(1, 0),
        Segment(2, 1, crowd=True),
        Segment((2 << 16) + 1, 1),
        Segment((2 << 16) + 2, 1),
        Segment((3 << 16) + 1, 2),
    )
    assert (labels_of(panoptic) == labels).all() and panoptic.ids[1, 2] == 0
    assert panoptic.ids[0, 0] == panoptic.ids[1, 0], "stuff is one segment whatever its numbers"


# -- ADE20K of 2021 ----------------------------------------------------------------------------------------------------
ADE_NAMES = {312: "building, edifice", 401: "car, auto, automobile", 3000: "gazebo"}


def make_ade(root: Path, numbers: np.ndarray, objects: np.ndarray, names: dict[int, str] | None = None) -> Path:
    folder = root / "ADE20K_2021_17_01" / "images" / "ADE" / "validation" / "urban" / "street"
    picture(folder / "ADE_val_00000001.jpg", *numbers.shape)
    coloured(folder / "ADE_val_00000001_seg.png", np.stack([numbers // 256 * 10, numbers % 256, objects], axis=-1))
    listed = [{"name": name, "name_ndx": number} for number, name in (names or ADE_NAMES).items()]
    (folder / "ADE_val_00000001.json").write_text(json.dumps({"annotation": {"object": listed}}))
    return folder / "ADE_val_00000001.json"


def test_ade_full_names_become_the_150_classes(tmp_path: Path) -> None:
    numbers = np.array([[312, 312, 401, 401], [0, 3000, 401, 9]])
    make_ade(tmp_path, numbers, np.array([[1, 2, 3, 4], [0, 6, 4, 7]]))
    data = open_dataset(f"ade20k_full:{tmp_path}", "val")
    sample = data[0]
    assert data.ids() == ["ADE_val_00000001"] and data.tasks[0] == "panoptic"
    assert sample.labels.tolist() == [[1, 1, 20, 20], [IGNORE, IGNORE, 20, IGNORE]]
    assert sample.instances is not None and sample.instances.boxes.tolist() == [[2, 0, 3, 1], [2, 0, 4, 2]]
    assert sample.panoptic is not None and len(sample.panoptic.segments) == 3
    assert dict(data.problems) == {
        "name outside the 150 classes: ignored": "gazebo in ADE_val_00000001_seg.png",
        "pixels of a name that the JSON does not list: ignored": "name 9 of ADE_val_00000001_seg.png",
    }
    assert sum(item.thing for item in data.classes) == 100


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"annotation": {"object": [{"name": 1}]}}'])
def test_ade_full_broken_json(content: bytes, tmp_path: Path) -> None:
    path = make_ade(tmp_path, np.array([[312]]), np.array([[1]]))
    data = open_dataset(f"ade20k_full:{tmp_path}", "val")
    path.write_bytes(content)
    with pytest.raises(PictureError, match=path.name):
        data[0]
    path.unlink()
    with pytest.raises(PictureError, match=path.name):
        data[0]


def test_ade_full_json_in_latin_1(tmp_path: Path) -> None:
    path = make_ade(tmp_path, np.array([[312]]), np.array([[1]]))
    listed = {"annotation": {"object": [{"name": "building", "name_ndx": 312, "raw_name": "caf\xe9"}]}}
    path.write_bytes(json.dumps(listed, ensure_ascii=False).encode("latin-1"))
    assert open_dataset(f"ade20k_full:{tmp_path}", "val")[0].labels.tolist() == [[1]]


def test_real_ade_full(shared_data: Path) -> None:
    data = open_dataset(f"ade20k_full:{shared_data / 'voc_ade_samples'}", "train")
    index = data.ids().index("ADE_train_00016964")
    sample = data[index]
    assert sample.image.shape == (1467, 2200, 3) and sample.instances is not None
    names = [data.classes[label].name for label in sample.instances.classes]
    assert names.count("van") == 2 and names.count("car") >= 1 and "building" not in names
    assert (sample.labels != IGNORE).mean() > 0.8 and (labels_of(sample.panoptic) == sample.labels).all()  # type: ignore[arg-type]


# -- Mapillary ---------------------------------------------------------------------------------------------------------
CONFIG = [
    {"readable": "Bird", "name": "animal--bird", "color": [165, 42, 42], "instances": True, "evaluate": True},
    {"readable": "Sky", "name": "nature--sky", "color": [70, 130, 180], "instances": False, "evaluate": True},
    {"readable": "Unlabeled", "name": "void--unlabeled", "color": [0, 0, 0], "instances": False, "evaluate": False},
    {"readable": "Car", "name": "object--vehicle--car", "color": [0, 0, 142], "instances": True, "evaluate": True},
]


def make_mapillary(root: Path, version: str, ids: np.ndarray, config: Any = None) -> Path:
    (root / (f"config_{version}.json" if version else "config.json")).write_text(json.dumps(config or {"labels": CONFIG}))
    picture(root / "validation/images/a.jpg", *ids.shape)
    mask(root / "validation" / version / "labels" / "a.png", (ids >> 8).astype(np.uint8))
    mask(root / "validation" / version / "instances" / "a.png", ids.astype(np.uint16))
    return root / "validation" / version / "labels" / "a.png"


IDS = np.array([[0, 1, 256, 256], [512, 768, 769, 256]])


@pytest.mark.parametrize("version", ["v1.2", "v2.0", ""])
def test_mapillary_objects(version: str, tmp_path: Path) -> None:
    make_mapillary(tmp_path, version, IDS)
    data = open_dataset(f"mapillary:{tmp_path}", "val")
    sample = data[0]
    assert [item.name for item in data.classes] == ["Bird", "Sky", "Car"] and [item.thing for item in data.classes] == [1, 0, 1]
    assert sample.labels.tolist() == [[0, 0, 1, 1], [IGNORE, 2, 2, 1]]
    assert sample.instances is not None and sample.instances.classes.tolist() == [0, 0, 2, 2]
    assert sample.panoptic is not None and len(sample.panoptic.segments) == 5
    assert not any(segment.crowd for segment in sample.panoptic.segments), "number 0 is an object like any other"


def test_mapillary_versions(tmp_path: Path) -> None:
    make_mapillary(tmp_path, "v1.2", IDS)
    make_mapillary(tmp_path, "v2.0", IDS, {"labels": [*CONFIG, {**CONFIG[3], "readable": "Bus"}]})
    assert len(open_dataset(f"mapillary:{tmp_path}", "val").classes) == 4
    assert len(open_dataset(f"mapillary:{tmp_path},v1.2", "val").classes) == 3
    with pytest.raises(DataError, match=r"'v3'; expected v1.2, v2.0"):
        open_dataset(f"mapillary:{tmp_path},v3", "val")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "Error"),
        ([], "TypeError"),
        ({"labels": [{"readable": "x"}]}, "color"),
        ({"labels": [{**CONFIG[0], "readable": str(n)} for n in range(256)]}, "256 classes; expected at most 255"),
        ({"labels": [CONFIG[2]]}, "no label is evaluated"),
    ],
)
def test_mapillary_broken_config(config: Any, message: str, tmp_path: Path) -> None:
    make_mapillary(tmp_path, "v1.2", IDS)
    (tmp_path / "config_v1.2.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(DataError, match=message):
        open_dataset(f"mapillary:{tmp_path}", "val")


def test_mapillary_label_outside_the_config(tmp_path: Path) -> None:
    make_mapillary(tmp_path, "v1.2", np.array([[0, 4 << 8]]))
    with pytest.raises(DataError, match=r"a\.png: label 4 at pixel \(x=1, y=0\)"):
        open_dataset(f"mapillary:{tmp_path}", "val")[0]


def test_mapillary_fixture(shared_data: Path) -> None:
    root = shared_data / "loader_fixtures/datumaro/mapillary_vistas_dataset"
    data = open_dataset(f"mapillary:{root},v1.2", "val")
    assert len(data) == 2 and data[0].instances is not None and data[0].labels.max() <= 2


# -- GTA5 --------------------------------------------------------------------------------------------------------------
def make_gta(root: Path, names: tuple[str, ...] = ("00001", "00002")) -> None:
    for name in names:
        picture(root / "images" / f"{name}.png", 1, 4)
        mask(root / "labels" / f"{name}.png", np.array([[7, 33, 0, 34]], np.uint8))


def test_gta_label_ids_and_colours(tmp_path: Path) -> None:
    make_gta(tmp_path)
    colours = [[(128, 64, 128), (119, 11, 32), (20, 20, 20), (111, 74, 0)]]
    coloured(tmp_path / "labels" / "00002.png", np.array(colours))
    data = open_dataset(f"gta:{tmp_path}", "all")
    assert [sample.labels.tolist() for sample in data] == [[[0, 18, IGNORE, IGNORE]]] * 2
    palette = Image.fromarray(np.array([[7, 33, 0, 34]], np.uint8)).convert("P")
    palette.putdata([7, 33, 0, 34])
    palette.save(tmp_path / "labels" / "00002.png")
    assert data[1].labels.tolist() == [[0, 18, IGNORE, IGNORE]]
    coloured(tmp_path / "labels" / "00002.png", np.array([[(9, 9, 9)] * 4]))
    with pytest.raises(DataError, match=r"colour \(9, 9, 9\)"):
        data[1]
    mask(tmp_path / "labels" / "00002.png", np.array([[7, 35, 7, 7]], np.uint8))
    with pytest.raises(DataError, match=r"label 35 at pixel \(x=1, y=0\)"):
        data[1]
    (tmp_path / "labels" / "00002.png").unlink()
    with pytest.raises(PictureError, match="00002"):
        data[1]


def test_gta_splits(tmp_path: Path) -> None:
    make_gta(tmp_path)
    with pytest.raises(DataError, match="use --split all"):
        open_dataset(f"gta:{tmp_path}", "train")
    (tmp_path / "train.txt").write_text("00002.png\n")
    assert open_dataset(f"gta:{tmp_path}", "train").ids() == ["00002"]
    savemat(tmp_path / "split.mat", {"trainIds": np.array([[1]]), "valIds": np.array([[2], [1]]), "testIds": np.zeros((0, 1))})
    assert open_dataset(f"gta:{tmp_path}", "train").ids() == ["00001"]
    assert open_dataset(f"gta:{tmp_path}", "val").ids() == ["00001", "00002"]
    with pytest.raises(DataError, match="split 'test' has no frames"):
        open_dataset(f"gta:{tmp_path}", "test")


# -- SIFT Flow ---------------------------------------------------------------------------------------------------------
FOLDER = "spatial_envelope_256x256_static_8outdoorcategories"


def make_siftflow(root: Path, names: tuple[str, ...] = ("coast_a1", "street_b2")) -> Path:
    for name in names:
        picture(root / "Images" / FOLDER / f"{name}.jpg", 2, 4)
        for kind, values in (("SemanticLabels", [0, 1, 33, 28]), ("GeoLabels", [-1, 1, 3, 2])):
            folder = root / kind / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            savemat(folder / f"{name}.mat", {"S": np.array([values] * 2, np.int16 if kind == "GeoLabels" else np.uint8)})
    return root / "GeoLabels" / FOLDER / f"{names[0]}.mat"


def test_siftflow_has_two_label_spaces(tmp_path: Path) -> None:
    path = make_siftflow(tmp_path)
    data = open_dataset(f"siftflow:{tmp_path}", "all")
    sample = data[0]
    assert len(data.classes) == 33 and [len(space.classes) for space in data.spaces] == [3]
    assert sample.labels.tolist() == [[IGNORE, 0, 32, 27]] * 2 and data.classes[27].name == "sky"
    assert [space.tolist() for space in sample.spaces] == [[[IGNORE, 0, 2, 1]] * 2] and sample.spaces[0].dtype == np.uint8
    savemat(path, {"S": np.array([[1, 2, 4, 1]] * 2)})
    with pytest.raises(DataError, match=r"coast_a1\.mat: label 3 at pixel"):
        data[0]
    savemat(path, {"S": np.array([[1, 2, 3, 1, 1]] * 2)})
    with pytest.raises(DataError, match="label map of 5x2 px"):
        data[0]
    path.write_bytes(b"")
    with pytest.raises(PictureError, match="coast_a1"):
        data[0]
    path.unlink()
    with pytest.raises(DataError, match="coast_a1"):
        data[0]


def test_siftflow_splits(tmp_path: Path) -> None:
    make_siftflow(tmp_path)
    for split in ("train", "test"):
        with pytest.raises(DataError, match="use --split all"):
            open_dataset(f"siftflow:{tmp_path}", split)
    (tmp_path / "TestSet1.txt").write_text(f"{FOLDER}\\street_b2.jpg\n")
    assert open_dataset(f"siftflow:{tmp_path}", "test").ids() == ["street_b2"] == open_dataset(f"siftflow:{tmp_path}", "val").ids()
    assert open_dataset(f"siftflow:{tmp_path}", "train").ids() == ["coast_a1"]
    (tmp_path / "trainval.txt").write_text("coast_a1\nstreet_b2\n")
    assert len(open_dataset(f"siftflow:{tmp_path}", "train")) == 2


@pytest.mark.parametrize("name", ["ade20k_full", "mapillary", "gta", "siftflow"])
def test_missing_directory_and_split(name: str, tmp_path: Path) -> None:
    makers: dict[str, Any] = {
        "ade20k_full": lambda: make_ade(tmp_path, np.array([[312]]), np.array([[1]])),
        "mapillary": lambda: make_mapillary(tmp_path, "v1.2", IDS),
        "gta": lambda: make_gta(tmp_path),
        "siftflow": lambda: make_siftflow(tmp_path),
    }
    for split in ("train", "val", "all", "holiday"):
        with pytest.raises(DataError) as caught:
            open_dataset(f"{name}:{tmp_path}", split)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="nowhere"):
        open_dataset(f"{name}:{tmp_path / 'nowhere'}", "val")
    makers[name]()
    with pytest.raises(DataError, match="holiday"):
        open_dataset(f"{name}:{tmp_path}", "holiday")
