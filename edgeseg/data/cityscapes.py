"""Cityscapes fine annotations (Cordts et al. 2016): the 19 classes of the benchmark, everything else ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, check_labels, read_indices
from edgeseg.data.pairs import Pair, PairDataset, choose_split
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo

# Label id in *_labelIds.png, name and colour, in the order of the train ids (cityscapesScripts, helpers/labels.py).
_TABLE: tuple[tuple[int, str, tuple[int, int, int]], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_NUM_LABEL_IDS = 34
_IMAGE, _TRAIN_IDS, _LABEL_IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"

CLASSES = tuple(ClassInfo(name=name, colour=colour) for _, name, colour in _TABLE)


def _train_id_table() -> NDArray[np.uint8]:
    table = np.full(256, IGNORE, np.uint8)
    for train_id, (label_id, _, _) in enumerate(_TABLE):
        table[label_id] = train_id
    return table


class Cityscapes(PairDataset):
    """``cityscapes:PATH`` with leftImg8bit/ and gtFine/; splits train (2975), val (500); test has no public labels."""

    name = "cityscapes"
    licence = "Cityscapes terms (non-commercial research)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        super().__init__(Path(path).expanduser(), split)

    def _list_pairs(self) -> list[Pair]:
        split = choose_split(self.split, {"train": "train", "val": "val", "test": "test"}, self.name)
        images = sorted((self.root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}"))
        if not images:
            pattern = self.root / "leftImg8bit" / split / "CITY" / f"*{_IMAGE}"
            raise DataError(
                f"{self.root}: no pictures of split {split!r}", str(pattern), "unpack leftImg8bit_trainvaltest.zip there"
            )
        return [self._pair(image, split) for image in images]

    def _pair(self, image: Path, split: str) -> Pair:
        stem = image.name[: -len(_IMAGE)]
        folder = self.root / "gtFine" / split / image.parent.name
        for suffix in (_TRAIN_IDS, _LABEL_IDS):
            if (folder / f"{stem}{suffix}").is_file():
                return Pair(image, folder / f"{stem}{suffix}", stem)
        raise DataError(
            f"{folder / stem}{_LABEL_IDS}: missing", "labelIds or labelTrainIds beside it", "unpack gtFine_trainvaltest.zip"
        )

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        labels = read_indices(path)
        if path.name.endswith(_TRAIN_IDS):
            return labels
        check_labels(labels, _NUM_LABEL_IDS, path)
        return np.asarray(_train_id_table()[labels], np.uint8)
