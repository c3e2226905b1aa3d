"""CamVid in the SegNet layout (Brostow et al. 2009; the 11 classes and splits of Badrinarayanan et al. 2017).

``train.txt``, ``val.txt`` and ``test.txt`` hold a picture and a label path a line; label 11 is unlabelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeseg.data.base import IGNORE, Dataset, Sample, check_labels, check_pair, read_image, read_indices
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo

_UNLABELLED = 11

CLASSES = (
    ClassInfo(name="sky", colour=(128, 128, 128)),
    ClassInfo(name="building", colour=(128, 0, 0)),
    ClassInfo(name="pole", colour=(192, 192, 128)),
    ClassInfo(name="road", colour=(128, 64, 128)),
    ClassInfo(name="pavement", colour=(60, 40, 222)),
    ClassInfo(name="tree", colour=(128, 128, 0)),
    ClassInfo(name="sign", colour=(192, 128, 128)),
    ClassInfo(name="fence", colour=(64, 64, 128)),
    ClassInfo(name="car", colour=(64, 0, 128)),
    ClassInfo(name="pedestrian", colour=(64, 64, 0)),
    ClassInfo(name="bicyclist", colour=(0, 128, 192)),
)


class CamVid(Dataset):
    """``camvid:PATH``; splits train (367), val (101), test (233) and trainval."""

    name = "camvid"
    licence = "CC BY-NC 4.0"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        self.split, self._root = split, Path(path).expanduser()
        lists = ("train", "val") if split == "trainval" else (split,)
        self._pairs = [pair for name in lists for pair in self._read_list(name)]

    def _read_list(self, split: str) -> list[tuple[str, str]]:
        path = self._root / f"{split}.txt"
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            expected = "CamVid's folder with train.txt, val.txt and test.txt"
            raise DataError(f"{path}: {error.strerror}", expected, "give --data camvid:PATH and a split it has") from error
        pairs = [self._local(line.split()) for line in lines if line.strip()]
        if not pairs:
            raise DataError(f"{path}: no frames", "a line per frame: IMAGE LABELS")
        return pairs

    def _local(self, words: list[str]) -> tuple[str, str]:
        # SegNet's own lists say /SegNet/CamVid/train/x.png: only the last two parts hold on other machines.
        if len(words) != 2:
            raise DataError(f"{self._root}: line {' '.join(words)!r}", "two paths a line: IMAGE LABELS")
        image, labels = ("/".join(Path(word).parts[-2:]) for word in words)
        return image, labels

    def ids(self) -> list[str]:
        return [Path(image).stem for image, _ in self._pairs]

    def __getitem__(self, index: int) -> Sample:
        image_name, label_name = self._pairs[index]
        image, labels = read_image(self._root / image_name), read_indices(self._root / label_name)
        labels = np.where(labels == _UNLABELLED, np.uint8(IGNORE), labels)
        check_pair(image, labels, self._root / label_name)
        check_labels(labels, len(self.classes), self._root / label_name)
        return Sample(image, labels, Path(image_name).stem)
