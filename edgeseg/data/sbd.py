"""The Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): VOC's classes on 11,355 pictures, as MATLAB files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Sample, check_pair
from edgeseg.data.matlab import read_mat
from edgeseg.data.pairs import Pair, PairDataset, read_list
from edgeseg.data.voc_objects import CLASSES, objects_from_maps
from edgeseg.errors import DataError

_LISTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}


class Sbd(PairDataset):
    """``sbd:PATH``, PATH being benchmark_RELEASE or its folder dataset; splits train (8,498), val (2,857) and trainval.

    Args:
        without: names to leave out.
    """

    name = "sbd"
    licence = "Flickr terms of use (research), as VOC's; annotations by UC Berkeley"
    classes = CLASSES
    tasks = ("semantic", "instance", "detection")

    def __init__(self, path: str, split: str, without: Collection[str] = ()) -> None:
        root = Path(path).expanduser()
        for below in ("benchmark_RELEASE", "dataset"):
            root = root / below if (root / below).is_dir() else root
        self._without = frozenset(without)
        super().__init__(root, split)

    def _list_pairs(self) -> list[Pair]:
        if self.split not in _LISTS:
            raise DataError(f"{self.name}: no split {self.split!r}", ", ".join(_LISTS), "choose one of them with --split")
        fix = "point at benchmark_RELEASE or its folder dataset"
        names = [name for part in _LISTS[self.split] for name in read_list(self.root / f"{part}.txt", fix)]
        kept = [name for name in dict.fromkeys(names) if name not in self._without]
        return [Pair(self.root / "img" / f"{name}.jpg", self.root / "cls" / f"{name}.mat", name) for name in kept]

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        path = self.root / "inst" / f"{sample.id}.mat"
        objects = _segmentation(path, "GTinst")
        check_pair(sample.image, objects, path)
        return Sample(sample.image, sample.labels, sample.id, objects_from_maps(objects, sample.labels, path, self.problems))

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        return _segmentation(path, "GTcls")


def _segmentation(path: Path, variable: str) -> NDArray[np.uint8]:
    found = np.asarray(getattr(read_mat(path, variable)[variable], "Segmentation", 0))
    if found.ndim != 2 or found.dtype.kind not in "ui" or found.max(initial=0) > 255 or found.min(initial=0) < 0:
        raise DataError(f"{path}: {variable}.Segmentation of shape {found.shape}, {found.dtype}", "a map (H, W) of bytes")
    return np.asarray(found, np.uint8)
