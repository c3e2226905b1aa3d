"""NYUDv2 and SUN RGB-D: the official files made up in tmp_path, and the real samples where present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from edgeseg.data import open_dataset
from edgeseg.data.base import IGNORE
from edgeseg.data.rgbd import depth_plane, plane_depth
from edgeseg.data.sunrgbd import read_intrinsics
from edgeseg.errors import DataError, PictureError
from tests.data.pictures import picture

h5py = pytest.importorskip("h5py")
HEIGHT, WIDTH = 4, 6


# -- NYUDv2 ------------------------------------------------------------------------------------------------------------
def make_nyu(root: Path) -> dict[str, np.ndarray]:
    """Three frames; raw labels 1..4 are floor, wall, chair and chair again of the 40."""
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8),
        "labels": rng.integers(0, 5, (3, HEIGHT, WIDTH)).astype(np.uint16),
        "instances": rng.integers(0, 3, (3, HEIGHT, WIDTH)).astype(np.uint8),
        "depths": rng.random((3, HEIGHT, WIDTH), np.float32) * 5 + 1,
    }
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, array in arrays.items():  # MATLAB stores down the columns: (N, W, H), (N, 3, W, H)
            file[name] = array.transpose(0, 2, 1) if array.ndim == 3 else array.transpose(0, 3, 2, 1)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    savemat(root / "classMapping40.mat", {"mapClass": np.array([[2, 1, 5, 5]])})
    thirteen = np.arange(40) % 13 + 1
    savemat(root / "class13Mapping.mat", {"classMapping13": {"labels13": thirteen[None], "classes13": np.zeros(13)}})
    return arrays


def test_nyu_frames_labels_and_objects(tmp_path: Path) -> None:
    arrays = make_nyu(tmp_path)
    data = open_dataset(f"nyuv2:{tmp_path}", "train")
    assert data.ids() == ["0001", "0003"] and len(data.classes) == 40 and data.modality == "rgb"
    sample = data[1]
    assert (sample.image == arrays["images"][2][..., ::-1]).all()
    raw, numbers = arrays["labels"][2], arrays["instances"][2]
    assert (sample.labels == np.array([IGNORE, 1, 0, 4, 4])[raw]).all()
    assert sample.instances is not None and sample.instances.masks is not None and sample.instances.crowd is not None
    # Raw labels 3 and 4 are both chairs; their numbers are counted apart.
    expected = {(label, number) for label, number in zip(raw.ravel(), numbers.ravel(), strict=True) if label > 2 and number}
    assert (~sample.instances.crowd).sum() == len(expected) and set(sample.instances.classes.tolist()) == {4}
    union = sample.instances.masks[~sample.instances.crowd].any(axis=0)
    assert (union == ((raw > 2) & (numbers > 0))).all()
    assert open_dataset(f"nyuv2:{tmp_path / 'nyu_depth_v2_labeled.mat'}", "val").ids() == ["0002"]


def test_nyu_thirteen_classes(tmp_path: Path) -> None:
    arrays = make_nyu(tmp_path)
    data = open_dataset(f"nyuv2:{tmp_path},13", "test")
    assert len(data.classes) == 13
    assert (data[0].labels == np.array([IGNORE, 1, 0, 4, 4])[arrays["labels"][1]]).all()
    savemat(tmp_path / "class13Mapping.mat", {"classMapping13": {"labels13": np.full((1, 40), 14)}})
    with pytest.raises(DataError, match=r"mapping to 14\.\.14; expected 1\.\.13"):
        open_dataset(f"nyuv2:{tmp_path},13", "test")


def test_nyu_depth_planes(tmp_path: Path) -> None:
    arrays = make_nyu(tmp_path)
    data = open_dataset(f"nyuv2:{tmp_path},rgbd", "test")
    frame = data[0].image
    assert data.modality == "rgbd" and frame.shape == (HEIGHT, WIDTH, 4)
    assert (frame[..., 3] == depth_plane(arrays["depths"][1])).all() and (frame[..., :3] == arrays["images"][1][..., ::-1]).all()


def test_nyu_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled\.mat: missing"):
        open_dataset(f"nyuv2:{tmp_path}", "train")
    make_nyu(tmp_path)
    with pytest.raises(DataError, match="no labelled split 'holiday'"):
        open_dataset(f"nyuv2:{tmp_path}", "holiday")
    with pytest.raises(DataError, match="'depth'; expected 13, 40"):
        open_dataset(f"nyuv2:{tmp_path},depth", "train")
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[4]]), "testNdxs": np.array([[2]])})
    with pytest.raises(DataError, match=r"3 frames; expected those that splits\.mat names \(4\)"):
        open_dataset(f"nyuv2:{tmp_path}", "train")
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(DataError, match=r"splits\.mat: missing.*fix: put splits\.mat"):
        open_dataset(f"nyuv2:{tmp_path}", "train")
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 7.3 cut off")
    with pytest.raises(DataError, match="not HDF5"):
        open_dataset(f"nyuv2:{tmp_path}", "train")
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(DataError, match="no variable 'labels'"):
        open_dataset(f"nyuv2:{tmp_path}", "train")


def test_nyu_label_outside_the_mapping(tmp_path: Path) -> None:
    make_nyu(tmp_path)
    savemat(tmp_path / "classMapping40.mat", {"mapClass": np.array([[2, 1, 5]])})
    with pytest.raises(DataError, match=r"frame 2 of .*: label 4; expected 0\.\.3"):
        open_dataset(f"nyuv2:{tmp_path}", "test")[0]


def test_nyu_in_worker_processes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    arrays = make_nyu(tmp_path)
    data: Any = open_dataset(f"nyuv2:{tmp_path}", "train")
    assert (data[0].image == arrays["images"][0][..., ::-1]).all()
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2, collate_fn=lambda sample: sample.labels)
    assert [(labels == data[place].labels).all() for place, labels in enumerate(loader)] == [True, True]


# -- SUN RGB-D ---------------------------------------------------------------------------------------------------------
FRAMES = ("kv1/NYUdata/NYU0001", "kv2/kinect2data/000002_rgbf000103-resize")


def make_sun(root: Path, benchmark: bool = False) -> Path:
    for frame in FRAMES:
        folder = root / "SUNRGBD" / frame
        picture(folder / "image" / "a.jpg", 2, 4)
        (folder / "depth_bfx").mkdir()
        millimetres = np.array([[0, 1000, 2500, 8191]] * 2, np.uint16)
        cv2.imwrite(str(folder / "depth_bfx" / "a.png"), millimetres << 3 | millimetres >> 13)
        (folder / "intrinsics.txt").write_text("529.5 0 365 \n0 528.5 265 \n0 0 1 \n")
        names = np.array(["Night_Stand", "spaceship", "wall"], object)
        savemat(folder / "seg.mat", {"seglabel": np.array([[0, 1, 2, 3]] * 2, np.uint16), "names": names})
    toolbox = root / "SUNRGBDtoolbox"
    (toolbox / "traintestSUNRGBD").mkdir(parents=True)
    paths = [np.array([f"/n/fs/sun3d/data/SUNRGBD/{frame}/"], object) for frame in FRAMES]
    savemat(toolbox / "traintestSUNRGBD" / "allsplit.mat", {"alltrain": paths[0], "alltest": paths[1]})
    if benchmark:
        (toolbox / "Metadata").mkdir()
        records = [{"rgbpath": f"/n/fs/sun3d/data/SUNRGBD/{frame}/image/a.jpg"} for frame in reversed(FRAMES)]
        savemat(toolbox / "Metadata" / "SUNRGBDMeta.mat", {"SUNRGBDMeta": np.array(records, object)})
        with h5py.File(toolbox / "Metadata" / "SUNRGBD2Dseg.mat", "w") as file:
            group, references = file.create_group("SUNRGBD2Dseg"), []
            for place, values in enumerate(([5, 5, 5, 5], [0, 37, 1, 2])):
                file[f"#refs#/{place}"] = np.array([values] * 2, np.float64).T
                references.append([file[f"#refs#/{place}"].ref])
            group.create_dataset("seglabel", data=np.array(references, h5py.ref_dtype), dtype=h5py.ref_dtype)
    return root / "SUNRGBD" / FRAMES[0]


def test_sun_names_of_a_frame(tmp_path: Path) -> None:
    make_sun(tmp_path)
    data = open_dataset(f"sunrgbd:{tmp_path}", "train")
    assert data.ids() == [FRAMES[0]] and len(data.classes) == 37
    assert data[0].labels.tolist() == [[IGNORE, 31, IGNORE, 0]] * 2 and data.classes[31].name == "night stand"
    assert data.problems.counts == {"name outside the 37 classes: ignored": 1}
    assert open_dataset(f"sunrgbd:{tmp_path}", "val").ids() == [FRAMES[1]]
    assert open_dataset(f"sunrgbd:{tmp_path}", "all").ids() == list(FRAMES)


def test_sun_labels_of_the_benchmark_come_first(tmp_path: Path) -> None:
    make_sun(tmp_path, benchmark=True)
    data = open_dataset(f"sunrgbd:{tmp_path}", "train")
    assert data[0].labels.tolist() == [[IGNORE, 36, 0, 1]] * 2 and len(data.problems) == 0
    assert open_dataset(f"sunrgbd:{tmp_path}", "test")[0].labels.tolist() == [[4, 4, 4, 4]] * 2
    path = tmp_path / "SUNRGBDtoolbox" / "Metadata" / "SUNRGBD2Dseg.mat"
    path.unlink()  # HDF5 knows open files by their inode
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not HDF5"):
        open_dataset(f"sunrgbd:{tmp_path}", "train")[0]


def test_sun_depth_is_rotated_millimetres(tmp_path: Path) -> None:
    make_sun(tmp_path)
    frame = open_dataset(f"sunrgbd:{tmp_path},rgbd", "train")[0].image
    assert (frame[..., 3] == depth_plane(np.array([[0, 1, 2.5, 8]], np.float32))).all()


def test_sun_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SUNRGBD: no such directory"):
        open_dataset(f"sunrgbd:{tmp_path}", "train")
    folder = make_sun(tmp_path)
    with pytest.raises(DataError, match="no split 'holiday'"):
        open_dataset(f"sunrgbd:{tmp_path}", "holiday")
    data = open_dataset(f"sunrgbd:{tmp_path},rgbd", "train")
    (folder / "intrinsics.txt").write_text("1 2 3")
    with pytest.raises(PictureError, match=r"intrinsics\.txt: 3 numbers"):
        data[0]
    with pytest.raises(PictureError, match=r"none\.txt"):
        read_intrinsics(tmp_path / "none.txt")
    (folder / "seg.mat").write_bytes(b"")
    with pytest.raises(PictureError, match=r"seg\.mat"):
        data[0]
    (folder / "image" / "a.jpg").unlink()
    with pytest.raises(PictureError, match="image: no picture"):
        data[0]
    (tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat").unlink()
    with pytest.raises(DataError, match="use --split all"):
        open_dataset(f"sunrgbd:{tmp_path}", "train")


def test_hha_planes(tmp_path: Path) -> None:
    make_sun(tmp_path / "sun")
    make_nyu(tmp_path / "nyu")
    assert open_dataset(f"sunrgbd:{tmp_path / 'sun'},hha", "train")[0].image.shape == (2, 4, 3)
    frame = open_dataset(f"nyuv2:{tmp_path / 'nyu'},rgb-hha", "train")[0].image
    assert frame.shape == (HEIGHT, WIDTH, 6) and frame.dtype == np.uint8 and frame[..., 3].any()


def test_real_sun_frame(shared_data: Path, tmp_path: Path) -> None:
    source, folder = shared_data / "depth_samples" / "other_formats", make_sun(tmp_path)
    (folder / "image" / "a.jpg").write_bytes((source / "SUN_color.jpg").read_bytes())
    (folder / "depth_bfx" / "a.png").write_bytes((source / "SUN_depth.png").read_bytes())
    height, width = cv2.imread(str(source / "SUN_color.jpg")).shape[:2]
    savemat(folder / "seg.mat", {"seglabel": np.ones((height, width), np.uint16), "names": np.array(["wall", "bed"], object)})
    frame = open_dataset(f"sunrgbd:{tmp_path},rgbd", "train")[0].image
    depth = plane_depth(frame[..., 3])
    known = depth[depth > 0]
    assert frame.shape == (height, width, 4) and known.size > depth.size / 2 and known.min() > 0.3 and known.max() <= 8.05
    assert np.median(np.abs(np.diff(depth, axis=1))) < 0.05, "a room is smooth almost everywhere"
