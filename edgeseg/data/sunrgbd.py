"""SUN RGB-D (Song et al., CVPR 2015): 10,335 indoor frames with depth of four sensors, 37 classes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Dataset, Sample, check_labels, check_pair, read_image
from edgeseg.data.matlab import open_hdf5, read_mat
from edgeseg.data.nyuv2 import make_classes
from edgeseg.data.words import MODALITIES, modality_of, split_words
from edgeseg.errors import DataError, PictureError

_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds",
    "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "fridge", "tv",
    "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag",
)  # fmt: skip
CLASSES = make_classes(_NAMES)
_BY_NAME = {name: label for label, name in enumerate(_NAMES)} | {
    "television": 24,
    "refrigerator": 23,
    "refridgerator": 23,
    "nightstand": 31,
    "book": 22,
}
_SPLITS = {"train": "alltrain", "test": "alltest", "val": "alltest"}
FAR_METRES = 8.0
"""Depth beyond it is told as 8 m, as by the toolbox (read3dPoints)."""


class SunRgbd(Dataset):
    """``sunrgbd:PATH``, ``sunrgbd:PATH,rgb-hha``: PATH holds SUNRGBD/ and SUNRGBDtoolbox/; words name the modality.

    Splits train (5,285) and test (5,050; ``val`` is the same) from the toolbox's traintestSUNRGBD/allsplit.mat, or "all": every
    frame there is. Labels are the benchmark's, Metadata/SUNRGBD2Dseg.mat with SUNRGBDMeta.mat, where these are there; else the
    frame's own seg.mat, whose free names become one of the 37 classes where they are spelled like it; the others are ignored
    and counted. Depth is depth_bfx, with its holes filled, else depth.
    """

    name = "sunrgbd"
    licence = "the authors' terms (research; see the SUN RGB-D site)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        root, words = split_words(path, MODALITIES, self.name)
        self.split, self.modality, self._root = split, modality_of(words), root
        if not (root / "SUNRGBD").is_dir():
            raise DataError(f"{root / 'SUNRGBD'}: no such directory", "SUNRGBD/ and SUNRGBDtoolbox/", "point at what holds them")
        self._frames = self._list_frames()
        if not self._frames:
            raise DataError(f"{root}: split {split!r} has no frames", "frames with image/ and seg.mat", "unpack SUNRGBD.zip")
        self._file: tuple[int, Any] = (-1, None)
        self._places = self._benchmark_places()

    def _list_frames(self) -> list[str]:
        if self.split == "all":
            found = (self._root / "SUNRGBD").rglob("intrinsics.txt")
            return sorted(path.parent.relative_to(self._root / "SUNRGBD").as_posix() for path in found)
        if self.split not in _SPLITS:
            raise DataError(
                f"{self.name}: no split {self.split!r}", ", ".join([*_SPLITS, "all"]), "choose one of them with --split"
            )
        variable = _SPLITS[self.split]
        path = self._root / "SUNRGBDtoolbox" / "traintestSUNRGBD" / "allsplit.mat"
        found = read_mat(path, variable, fix="unpack SUNRGBDtoolbox.zip beside SUNRGBD, or use --split all")[variable]
        return [_relative(str(item)) for item in np.atleast_1d(found)]

    def _benchmark_places(self) -> dict[str, int]:
        """Where each frame stands in SUNRGBD2Dseg.mat; empty where the toolbox's files are not there."""
        metadata = self._root / "SUNRGBDtoolbox" / "Metadata"
        if not (metadata / "SUNRGBD2Dseg.mat").is_file() or not (metadata / "SUNRGBDMeta.mat").is_file():
            return {}
        found = read_mat(metadata / "SUNRGBDMeta.mat", "SUNRGBDMeta")["SUNRGBDMeta"]
        return {_relative(str(Path(item.rgbpath).parent.parent)): place for place, item in enumerate(np.atleast_1d(found))}

    def ids(self) -> list[str]:
        return list(self._frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self._frames[index]
        folder = self._root / "SUNRGBD" / frame
        path = _only(folder, "image", (".jpg", ".png"))
        image = read_image(path)
        labels = self._benchmark_labels(frame) if frame in self._places else self._own_labels(folder)
        check_pair(image, labels, folder / "seg.mat")
        return Sample(self._pack(image, folder), labels, frame)

    def _benchmark_labels(self, frame: str) -> NDArray[np.uint8]:
        path = self._root / "SUNRGBDtoolbox" / "Metadata" / "SUNRGBD2Dseg.mat"
        if self._file[0] != os.getpid():  # see NyuV2
            self._file = os.getpid(), open_hdf5(path, "SUNRGBD2Dseg")
        file = self._file[1]
        try:
            labels = np.asarray(file[file["SUNRGBD2Dseg"]["seglabel"][self._places[frame]][0]]).T
        except (OSError, RuntimeError, KeyError, ValueError, IndexError) as error:
            raise PictureError(f"{path}: {frame}: {error}", "seglabel of each frame", "get the toolbox again") from error
        check_labels(labels.astype(np.int64), len(self.classes) + 1, path)
        return (labels.astype(np.uint8) - np.uint8(1)).astype(np.uint8)  # 0 is unlabelled, and wraps round to 255

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": (-1, None)}

    def _own_labels(self, folder: Path) -> NDArray[np.uint8]:
        path = folder / "seg.mat"
        found = read_mat(path, "seglabel", "names", fix="unpack SUNRGBD.zip whole")
        raw, names = np.asarray(found["seglabel"], np.int64), [str(name) for name in np.atleast_1d(found["names"])]
        check_labels(raw, len(names) + 1, path)
        table = np.full(len(names) + 1, IGNORE, np.uint8)
        for number, name in enumerate(names, 1):
            label = _BY_NAME.get(" ".join(name.lower().replace("_", " ").split()))
            if label is not None:
                table[number] = label
            elif (raw == number).any():
                self.problems.add("name outside the 37 classes: ignored", f"{name} in {path}")
        return np.asarray(table[np.where(raw < len(table), raw, 0)], np.uint8)

    def _pack(self, image: NDArray[np.uint8], folder: Path) -> NDArray[np.uint8]:
        if self.modality == "rgb":
            return image
        from edgeseg.data.rgbd import pack, read_depth

        name = "depth_bfx" if (folder / "depth_bfx").is_dir() else "depth"
        path = _only(folder, name, (".png",))
        depth = np.minimum(read_depth(path, "sun"), np.float32(FAR_METRES))
        if depth.shape != image.shape[:2]:
            depth = np.asarray(cv2.resize(depth, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST), np.float32)
        return pack(image, depth, read_intrinsics(folder / "intrinsics.txt"), self.modality)


def read_intrinsics(path: Path) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy from the nine numbers of a camera matrix, row by row.

    Raises:
        PictureError: missing, or other numbers.
    """
    try:
        values = [float(word) for word in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: {error}", "the 9 numbers of a camera matrix") from error
    if len(values) != 9 or not np.isfinite(values).all() or values[0] <= 0 or values[4] <= 0:
        raise PictureError(f"{path}: {len(values)} numbers", "the 9 numbers of a camera matrix, row by row")
    return values[0], values[4], values[2], values[5]


def _relative(path: str) -> str:
    # The lists name the authors' own disk: only what follows SUNRGBD holds elsewhere.
    return path.replace("\\", "/").partition("SUNRGBD/")[2].strip("/") or path.strip("/")


def _only(folder: Path, name: str, endings: Iterable[str]) -> Path:
    found = sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in endings)
    if not found:
        raise PictureError(f"{folder / name}: no picture", f"one *{' or *'.join(endings)}", "unpack SUNRGBD.zip whole")
    return found[0]
