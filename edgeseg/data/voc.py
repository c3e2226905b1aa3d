"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) in the devkit's layout: 20 classes, background, 255 = void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.pairs import Pair, PairDataset, bit_palette, read_coloured, read_list
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo

_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VOID_COLOUR = (224, 224, 192)

CLASSES = tuple(ClassInfo(name=name, colour=colour) for name, colour in zip(_NAMES, bit_palette(len(_NAMES)), strict=True))


class Voc2012(PairDataset):
    """``voc:PATH``, PATH being VOC2012, VOCdevkit or what holds it; splits are the lists in ImageSets/Segmentation."""

    name = "voc"
    licence = "Flickr terms of use (research; see the PASCAL VOC site)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        root = Path(path).expanduser()
        for below in ("VOC2012", "VOCdevkit/VOC2012"):
            root = root / below if (root / below).is_dir() else root
        super().__init__(root, split)

    def _list_pairs(self) -> list[Pair]:
        lists = self.root / "ImageSets" / "Segmentation"
        known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
        names = read_list(lists / f"{self.split}.txt", f"point at VOC2012 and choose a split it lists (found: {known})")
        pairs = [Pair(self.root / "JPEGImages" / f"{n}.jpg", self.root / "SegmentationClass" / f"{n}.png", n) for n in names]
        missing = [pair.labels for pair in pairs if not pair.labels.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: missing ({len(missing)} of {len(pairs)} label files)", "a label PNG for each name in the list"
            )
        return pairs

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        return read_coloured(path, self.classes, (_VOID_COLOUR,))
