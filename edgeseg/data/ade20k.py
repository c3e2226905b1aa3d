"""ADE20K, the 150-class scene parsing benchmark (Zhou et al. 2017) in the layout of ADEChallengeData2016; label 0 is ignored."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, check_labels, read_indices
from edgeseg.data.pairs import Pair, PairDataset, choose_split, find_images, read_class_table
from edgeseg.errors import DataError

_SPLITS = {"train": "training", "val": "validation", "training": "training", "validation": "validation"}

# First synonym of objectInfo150.txt and the benchmark's colours.
CLASSES = read_class_table((resources.files("edgeseg.data") / "ade20k.csv").read_text("utf-8").splitlines(), "ade20k.csv")[0]


class Ade20k(PairDataset):
    """``ade20k:PATH`` with images/ and annotations/; splits train (20,210) and val (2,000)."""

    name = "ade20k"
    licence = "ADE20K terms (non-commercial research and education)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        root = Path(path).expanduser()
        super().__init__(root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root, split)

    def _list_pairs(self) -> list[Pair]:
        folder = choose_split(self.split, _SPLITS, self.name)
        images, labels = self.root / "images" / folder, self.root / "annotations" / folder
        pairs = [Pair(path, labels / f"{path.stem}.png", path.stem) for path in find_images(images)]
        if not pairs:
            raise DataError(
                f"{images}: no pictures", "the folder ADEChallengeData2016", "give --data ade20k:PATH and a split it has"
            )
        return pairs

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        labels = read_indices(path)
        check_labels(labels, len(self.classes) + 1, path)
        # 1..150 become 0..149 and 0 wraps round to 255; what was 255 stays ignored.
        return np.asarray(np.where(labels == IGNORE, IGNORE, labels - np.uint8(1)), np.uint8)
