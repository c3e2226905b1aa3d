"""NYU Depth v2 (Silberman et al., ECCV 2012): 1,449 indoor frames with depth, 40 classes (Gupta et al., CVPR 2013) or 13."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Dataset, Sample
from edgeseg.data.matlab import open_hdf5, read_mat
from edgeseg.data.pairs import bit_palette, choose_split
from edgeseg.data.segments import instances_of, number_segments
from edgeseg.data.words import MODALITIES, modality_of, split_words
from edgeseg.errors import DataError, PictureError
from edgeseg.manifest import ClassInfo

_NAMES40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds",
    "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refrigerator",
    "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip
_NAMES13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "television", "wall", "window",
)  # fmt: skip
_STUFF = {"wall", "floor", "ceiling"}
# fx, fy, cx, cy of the colour camera, to which depth is aligned (toolbox, camera_params.m).
INTRINSICS = (518.857901, 519.469611, 325.582449, 253.736166)
_SPLITS = {"train": "trainNdxs", "test": "testNdxs", "val": "testNdxs"}
_FIX = "put {} of the set's site beside nyu_depth_v2_labeled.mat"


def make_classes(names: tuple[str, ...]) -> tuple[ClassInfo, ...]:
    """Classes in VOC's colours; walls, floors and ceilings are stuff."""
    colours = bit_palette(len(names) + 1)[1:]
    return tuple(ClassInfo(name=n, colour=c, thing=n not in _STUFF) for n, c in zip(names, colours, strict=True))


class NyuV2(Dataset):
    """``nyuv2:PATH``, ``nyuv2:PATH,13``, ``nyuv2:PATH,rgb-hha``: the folder of nyu_depth_v2_labeled.mat, or that file.

    Beside it are splits.mat (train 795, test 654; ``val`` is the test split: there is no third), and classMapping40.mat, which
    joins the 894 names to 40; 13 classes need class13Mapping.mat as well. Words: 13 or 40 classes, and the modality
    (``rgb``, ``rgbd``, ``hha``, ``rgb-hha``). Depth is the set's, with its holes filled.
    """

    name = "nyuv2"
    licence = "the authors' terms (research; see the NYU Depth v2 site)"
    tasks = ("semantic", "panoptic", "instance", "detection")

    def __init__(self, path: str, split: str) -> None:
        root, words = split_words(path, ("13", "40", *MODALITIES), self.name)
        self.split, self.modality = split, modality_of(words)
        self._path = root if root.suffix == ".mat" else root / "nyu_depth_v2_labeled.mat"
        self._file: tuple[int, Any] = (-1, None)
        variable = choose_split(split, _SPLITS, self.name)
        arrays = self._arrays()
        fix = _FIX.format("splits.mat")
        self._frames = np.atleast_1d(read_mat(self._path.with_name("splits.mat"), variable, fix=fix)[variable]).astype(int)
        if self._frames.min(initial=1) < 1 or self._frames.max(initial=0) > len(arrays["images"]):
            raise DataError(f"{self._path}: {len(arrays['images'])} frames", f"those that splits.mat names ({self._frames.max()})")
        self.classes = make_classes(_NAMES13 if "13" in words else _NAMES40)
        self._table = self._read_table("13" in words)

    def _read_table(self, thirteen: bool) -> NDArray[np.uint8]:
        """The class of each of the 895 raw labels; 0 is unlabelled."""
        fix = _FIX.format("classMapping40.mat (S. Gupta's)")
        mapping = np.asarray(read_mat(self._path.with_name("classMapping40.mat"), "mapClass", fix=fix)["mapClass"], int).ravel()
        if thirteen:
            path = self._path.with_name("class13Mapping.mat")
            found = read_mat(path, "classMapping13", fix=_FIX.format("class13Mapping.mat"))["classMapping13"]
            mapping = np.asarray(found.labels13, int).ravel()[mapping - 1]
        if mapping.min() < 1 or mapping.max() > len(self.classes):
            raise DataError(f"{self._path.parent}: a mapping to {mapping.min()}..{mapping.max()}", f"1..{len(self.classes)}")
        return np.concatenate([[IGNORE], mapping - 1]).astype(np.uint8)

    def _arrays(self) -> Any:
        # A process of its own for loading must not share the parent's HDF5 handle.
        if self._file[0] != os.getpid():
            fix = "point at the folder that holds nyu_depth_v2_labeled.mat (2.8 GB)"
            self._file = os.getpid(), open_hdf5(self._path, "images", "labels", "instances", "depths", fix=fix)
        return self._file[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": (-1, None)}

    def ids(self) -> list[str]:
        return [f"{number:04d}" for number in self._frames]

    def __getitem__(self, index: int) -> Sample:
        number = int(self._frames[index])
        try:  # MATLAB's order is down the columns: (N, 3, W, H)
            image, raw, objects, depth = (
                np.asarray(self._arrays()[name][number - 1]).T for name in ("images", "labels", "instances", "depths")
            )
        except (OSError, RuntimeError) as error:
            raise PictureError(f"{self._path}: frame {number}: {error}", "an undamaged file", "get it again") from error
        where = f"frame {number} of {self._path.name}"
        if raw.max(initial=0) >= len(self._table):
            raise DataError(f"{where}: label {raw.max()}", f"0..{len(self._table) - 1}, as classMapping40.mat has them")
        labels = self._table[raw]
        # Numbers tell objects of one of the 894 names apart, not those of the class it joins.
        pairs = raw.astype(np.int64) << 16 | objects
        apart = np.unique(pairs, return_inverse=True)[1].reshape(raw.shape) + 1
        panoptic = number_segments(labels, np.where(objects > 0, apart, 0), self.classes)
        frame = self._pack(np.ascontiguousarray(image[..., ::-1]), np.ascontiguousarray(depth, np.float32))
        return Sample(frame, labels, self.ids()[index], instances_of(panoptic, self.classes), panoptic)

    def _pack(self, image: NDArray[np.uint8], depth: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self.modality == "rgb":
            return image
        from edgeseg.data.rgbd import pack

        return pack(image, depth, INTRINSICS, self.modality)
