"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) in the devkit's layout: 20 classes, background, 255 = void.

With the Semantic Boundaries Dataset beside it there is the split ``train_aug`` of 10,582 pictures that most papers train on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Dataset, Sample, check_pair, read_indices
from edgeseg.data.pairs import Pair, PairDataset, read_coloured, read_list
from edgeseg.data.sbd import Sbd
from edgeseg.data.voc_objects import CLASSES, objects_from_maps
from edgeseg.errors import DataError
from edgeseg.manifest import Task

_VOID_COLOUR = (224, 224, 192)


class Voc2012(PairDataset):
    """``voc:PATH``, PATH being VOC2012, VOCdevkit or what holds it; splits are the lists in ImageSets/Segmentation.

    Objects come from SegmentationObject, where that folder is there. ``voc:PATH,SBD`` adds the split ``train_aug``: VOC's train,
    and all of SBD that is in neither of VOC's train and val. A list of that name with the folder SegmentationClassAug does as well.
    """

    name = "voc"
    licence = "Flickr terms of use (research; see the PASCAL VOC site)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        own, _, sbd = path.partition(",")
        root = Path(own).expanduser()
        for below in ("VOC2012", "VOCdevkit/VOC2012"):
            root = root / below if (root / below).is_dir() else root
        self._more: Dataset | None = None
        self._sbd_path = sbd
        super().__init__(root, split)
        has_objects = (root / "SegmentationObject").is_dir() and self._folder == "SegmentationClass"
        self.tasks: tuple[Task, ...] = ("semantic", "instance", "detection") if has_objects else ("semantic",)

    def _list_pairs(self) -> list[Pair]:
        names = self._names("train" if self._joins_sbd else self.split)
        self._folder = "SegmentationClass"
        aug = self.root / "SegmentationClassAug"
        if aug.is_dir() and not self._joins_sbd and "aug" in self.split:
            self._folder = aug.name
        pairs = [Pair(self.root / "JPEGImages" / f"{n}.jpg", self.root / self._folder / f"{n}.png", n) for n in names]
        missing = [pair.labels for pair in pairs if not pair.labels.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: missing ({len(missing)} of {len(pairs)} label files)", "a label PNG for each name in the list"
            )
        if self._joins_sbd:
            self._join_sbd({*names, *self._names("val")})
        return pairs

    @property
    def _joins_sbd(self) -> bool:
        return self.split == "train_aug" and bool(self._sbd_path)

    def _join_sbd(self, known: set[str]) -> None:
        self._more = Sbd(self._sbd_path, "trainval", without=known)

    def _names(self, split: str) -> list[str]:
        lists = self.root / "ImageSets" / "Segmentation"
        known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
        fix = f"point at VOC2012 and choose a split it lists (found: {known})"
        if split == "train_aug":
            fix += ", or add SBD: --data voc:VOC2012,benchmark_RELEASE"
        return read_list(lists / f"{split}.txt", fix)

    def ids(self) -> list[str]:
        return [*super().ids(), *(self._more.ids() if self._more else [])]

    def __getitem__(self, index: int) -> Sample:
        own = len(self._pairs)
        if self._more and index >= own:
            return self._more[index - own]
        sample = super().__getitem__(index)
        if "instance" not in self.tasks:
            return sample
        path = self.root / "SegmentationObject" / f"{sample.id}.png"
        objects = read_indices(path)
        check_pair(sample.image, objects, path)
        instances = objects_from_maps(objects, sample.labels, path, self.problems)
        return Sample(sample.image, sample.labels, sample.id, instances)

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        return read_coloured(path, self.classes, (_VOID_COLOUR,))
