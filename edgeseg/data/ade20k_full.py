"""The full ADE20K of 2021 (Zhou et al., IJCV 2019): thousands of names, of which the 150 of the benchmark are told apart."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.ade20k import CLASSES
from edgeseg.data.base import IGNORE, Sample, check_pair, read_image
from edgeseg.data.pairs import Pair, PairDataset, choose_split
from edgeseg.data.segments import instances_of, number_segments
from edgeseg.errors import DataError, PictureError

_SPLITS = {"train": "training", "val": "validation", "training": "training", "validation": "validation"}
_BY_NAME = {item.name: label for label, item in enumerate(CLASSES)}


class Ade20kFull(PairDataset):
    """``ade20k_full:PATH``, PATH being ADE20K_2021_17_01, its images/ADE, or what holds training/ and validation/.

    ``*_seg.png`` holds the name of a pixel (R / 10 * 256 + G) and its object (B), the ``.json`` beside it the names. A name is one
    of the 150 classes if its first synonym is; all others are ignored and counted. The 100 classes of ADE20K's instance
    challenge are things.
    """

    name = "ade20k_full"
    licence = "ADE20K terms (non-commercial research and education)"
    classes = CLASSES
    tasks = ("panoptic", "semantic", "instance", "detection")

    def __init__(self, path: str, split: str) -> None:
        root = Path(path).expanduser()
        for below in ("ADE20K_2021_17_01", "images/ADE"):
            root = root / below if (root / below).is_dir() else root
        super().__init__(root, split)

    def _list_pairs(self) -> list[Pair]:
        folder = self.root / choose_split(self.split, _SPLITS, self.name)
        labels = sorted(folder.rglob("*_seg.png"))
        if not labels:
            fix = "give --data ade20k_full:PATH and a split it has"
            raise DataError(f"{folder}: no *_seg.png", "the folder ADE20K_2021_17_01", fix)
        stems = [path.name[: -len("_seg.png")] for path in labels]
        return [Pair(path.with_name(f"{stem}.jpg"), path, stem) for path, stem in zip(labels, stems, strict=True)]

    def __getitem__(self, index: int) -> Sample:
        pair = self._pairs[index]
        image = read_image(pair.image)
        seg = np.asarray(cv2.cvtColor(read_image(pair.labels), cv2.COLOR_BGR2RGB), np.int32)
        check_pair(image, seg[..., 0], pair.labels)
        labels = self._labels(seg[..., 0] // 10 * 256 + seg[..., 1], pair)
        panoptic = number_segments(labels, seg[..., 2], self.classes)
        return Sample(image, labels, pair.id, instances_of(panoptic, self.classes), panoptic)

    def _labels(self, numbers: NDArray[np.int32], pair: Pair) -> NDArray[np.uint8]:
        names = read_names(pair.image.with_suffix(".json"))
        present = [number for number in np.unique(numbers).tolist() if number > 0]
        table = np.full(int(numbers.max(initial=0)) + 1, IGNORE, np.uint8)
        for number in present:
            if number not in names:
                self.problems.add("pixels of a name that the JSON does not list: ignored", f"name {number} of {pair.labels.name}")
            elif names[number] in _BY_NAME:
                table[number] = _BY_NAME[names[number]]
            else:
                self.problems.add("name outside the 150 classes: ignored", f"{names[number]} in {pair.labels.name}")
        return np.asarray(table[numbers], np.uint8)


def read_names(path: Path) -> dict[int, str]:
    """The first synonym of each name in a picture, by its number.

    Raises:
        PictureError: missing, or not a JSON of ADE20K.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror}", "the names of the picture's objects") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # as some of the set are
    try:
        objects = json.loads(text)["annotation"]["object"]
        return {int(item["name_ndx"]): str(item["name"]).split(",")[0].strip() for item in objects}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PictureError(f"{path}: {type(error).__name__} {error}", "annotation.object with name and name_ndx") from error
