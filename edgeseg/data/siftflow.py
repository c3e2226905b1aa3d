"""SIFT Flow (Liu et al., PAMI 2011; geometry by Tighe and Lazebnik, ECCV 2010): 33 semantic and 3 geometric classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Sample, check_labels, check_pair
from edgeseg.data.matlab import read_mat
from edgeseg.data.pairs import Pair, PairDataset, bit_palette, find_images, read_list
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo, LabelSpace

_NAMES = (
    "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door", "fence", "field",
    "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea", "sidewalk", "sign", "sky",
    "staircase", "streetlight", "sun", "tree", "window",
)  # fmt: skip
_GEOMETRY = (("sky", (70, 130, 180)), ("horizontal", (128, 64, 128)), ("vertical", (107, 142, 35)))

CLASSES = tuple(ClassInfo(name=n, colour=c) for n, c in zip(_NAMES, bit_palette(len(_NAMES) + 1)[1:], strict=True))
GEOMETRY = LabelSpace(name="geometry", classes=[ClassInfo(name=name, colour=colour) for name, colour in _GEOMETRY])
_TEST, _TRAIN = ("TestSet1.txt", "test.txt"), ("TrainSet1.txt", "trainval.txt", "train.txt")


class SiftFlow(PairDataset):
    """``siftflow:PATH`` with Images/, SemanticLabels/ and GeoLabels/; splits train (2,488) and test (200; ``val`` is the same).

    The test split is TestSet1.txt or test.txt; train is TrainSet1.txt, trainval.txt or train.txt, else all that is not tested.
    A sample has two label maps: ``labels`` of the 33 classes, and ``spaces[0]`` of sky, horizontal and vertical. Labels below 1
    are no truth.
    """

    name = "siftflow"
    licence = "the authors' terms (research); pictures of LabelMe"
    classes = CLASSES
    spaces = (GEOMETRY,)

    def __init__(self, path: str, split: str) -> None:
        super().__init__(Path(path).expanduser(), split)

    def _list_pairs(self) -> list[Pair]:
        if self.split not in ("train", "val", "test", "all"):
            raise DataError(f"{self.name}: no split {self.split!r}", "train, val, test, all", "choose one of them with --split")
        images = self.root / "Images"
        pairs = []
        for path in find_images(images):
            labels = self.root / "SemanticLabels" / path.relative_to(images).with_suffix(".mat")
            pairs.append(Pair(path, labels, path.stem))
        if not pairs:
            raise DataError(f"{images}: no pictures", "Images/, SemanticLabels/ and GeoLabels/", "point at what holds them")
        return pairs if self.split == "all" else self._choose(pairs)

    def _choose(self, pairs: list[Pair]) -> list[Pair]:
        tested = self._names(_TEST)
        if self.split != "train":
            if tested is None:
                raise DataError(f"{self.root}: no list of the test split", " or ".join(_TEST), "put one there, or use --split all")
            return [pair for pair in pairs if pair.id in tested]
        trained = self._names(_TRAIN)
        if trained is not None:
            return [pair for pair in pairs if pair.id in trained]
        if tested is None:
            raise DataError(f"{self.root}: no split lists", " or ".join((*_TEST, *_TRAIN)), "put one there, or use --split all")
        return [pair for pair in pairs if pair.id not in tested]

    def _names(self, lists: tuple[str, ...]) -> set[str] | None:
        """The names of the first list that is there; lines may be paths, of Windows too."""
        path = next((self.root / name for name in lists if (self.root / name).is_file()), None)
        if path is None:
            return None
        return {line.replace("\\", "/").rpartition("/")[2].rpartition(".jpg")[0] or line for line in read_list(path, "")}

    def __getitem__(self, index: int) -> Sample:
        sample, pair = super().__getitem__(index), self._pairs[index]
        path = self.root / "GeoLabels" / pair.labels.relative_to(self.root / "SemanticLabels")
        geometry = _labels(path, len(GEOMETRY.classes))
        check_pair(sample.image, geometry, path)
        return Sample(sample.image, sample.labels, sample.id, spaces=(geometry,))

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        return _labels(path, len(self.classes))


def _labels(path: Path, count: int) -> NDArray[np.uint8]:
    """Labels 1..count of a variable S as 0..count - 1."""
    stored = np.asarray(read_mat(path, "S")["S"])
    if stored.ndim != 2 or stored.dtype.kind not in "iuf":
        raise DataError(f"{path}: S of shape {stored.shape}, {stored.dtype}", "a map (H, W) of numbers")
    labels = np.where(stored < 1, IGNORE, stored.astype(np.int64) - 1)
    check_labels(labels, count, path)
    return labels.astype(np.uint8)
