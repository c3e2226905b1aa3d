"""GTA5, "Playing for Data" (Richter et al., ECCV 2016): rendered streets with Cityscapes' 19 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import check_labels, read_indices
from edgeseg.data.cityscapes import CLASSES, train_id_table
from edgeseg.data.matlab import read_mat
from edgeseg.data.pairs import Pair, PairDataset, find_images, is_palette, read_coloured, read_list
from edgeseg.errors import DataError

_SPLITS = {"train": "trainIds", "val": "valIds", "test": "testIds"}
_LICENSE_PLATE = 34
# Cityscapes' colours of labels outside the 19 (cityscapesScripts, helpers/labels.py).
_IGNORED = (
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100), (150, 120, 90),
    (0, 0, 90), (0, 0, 110), (20, 20, 20),
)  # fmt: skip


class Gta5(PairDataset):
    """``gta:PATH`` with images/ and labels/ (00001.png, ...); splits train, val and test from split.mat or lists, or "all".

    Labels are palette PNGs of Cityscapes' label ids, as they are distributed (34 is a licence plate), or colours.
    """

    name = "gta"
    licence = "research and education only, as its site says; the game's own terms apply"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        super().__init__(Path(path).expanduser(), split)

    def _list_pairs(self) -> list[Pair]:
        pairs = [Pair(path, self.root / "labels" / f"{path.stem}.png", path.stem) for path in find_images(self.root / "images")]
        if not pairs:
            raise DataError(f"{self.root / 'images'}: no pictures", "images/00001.png and so on", "unpack 01_images.zip there")
        if self.split == "all":
            return pairs
        wanted = set(self._names())
        return [pair for pair in pairs if pair.id in wanted]

    def _names(self) -> list[str]:
        fix = "put split.mat or that list there, or use --split all"
        if self.split in _SPLITS and (self.root / "split.mat").is_file():
            numbers = read_mat(self.root / "split.mat", _SPLITS[self.split])[_SPLITS[self.split]]
            return [f"{int(number):05d}" for number in np.atleast_1d(numbers)]
        return [Path(name).stem for name in read_list(self.root / f"{self.split}.txt", fix)]

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        if not is_palette(path):
            return read_coloured(path, self.classes, _IGNORED)
        labels = read_indices(path)
        check_labels(labels, _LICENSE_PLATE + 1, path)
        return np.asarray(train_id_table()[labels], np.uint8)
