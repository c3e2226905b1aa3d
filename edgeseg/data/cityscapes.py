"""Cityscapes fine annotations (Cordts et al. 2016): the 19 classes of the benchmark, everything else ignored."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Sample, check_labels, check_pair, read_ids16, read_indices
from edgeseg.data.coco_panoptic import read_panoptic
from edgeseg.data.pairs import Pair, PairDataset, choose_split
from edgeseg.data.segments import Region, instances_of, make_panoptic
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo, Task
from edgeseg.scene import Panoptic

# Label id in *_labelIds.png, name and colour, in the order of the train ids (cityscapesScripts, helpers/labels.py).
TABLE: tuple[tuple[int, str, tuple[int, int, int]], ...] = (
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
NUM_LABEL_IDS = 34
FIRST_THING = 24
PER_CLASS = 1000
"""An object's id is 1000 times its label id, plus its number; smaller ids are label ids of stuff or of groups of things."""
_IMAGE, _TRAIN_IDS, _LABEL_IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_INSTANCE_IDS, _PANOPTIC = "_gtFine_instanceIds.png", "_gtFine_panoptic.png"

CLASSES = tuple(ClassInfo(name=name, colour=colour, thing=number >= FIRST_THING) for number, name, colour in TABLE)


def train_id_table() -> NDArray[np.uint8]:
    """(256) uint8: the class of a label id, 255 where it is not of the 19."""
    table = np.full(256, IGNORE, np.uint8)
    for train_id, (label_id, _, _) in enumerate(TABLE):
        table[label_id] = train_id
    return table


class Cityscapes(PairDataset):
    """``cityscapes:PATH`` with leftImg8bit/ and gtFine/; splits train (2975), val (500); test has no public labels.

    Objects and segments come from ``*_instanceIds.png``, where the first picture has one; a group of things is a crowd. Where
    cityscapesScripts has made ``gtFine/cityscapes_panoptic_SPLIT.json`` and its folder of PNGs, the segments come from there.
    """

    name = "cityscapes"
    licence = "Cityscapes terms (non-commercial research)"
    classes = CLASSES

    def __init__(self, path: str, split: str) -> None:
        super().__init__(Path(path).expanduser(), split)
        has_objects = _objects_path(self._pairs[0].labels).is_file()
        self.tasks: tuple[Task, ...] = ("semantic", "instance", "panoptic", "detection") if has_objects else ("semantic",)

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
        for suffix in (_TRAIN_IDS, _LABEL_IDS, _INSTANCE_IDS):
            if (folder / f"{stem}{suffix}").is_file():
                return Pair(image, folder / f"{stem}{suffix}", stem)
        raise DataError(
            f"{folder / stem}{_LABEL_IDS}: missing", "labelIds or labelTrainIds beside it", "unpack gtFine_trainvaltest.zip"
        )

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if "panoptic" not in self.tasks:
            return sample
        path = _objects_path(self._pairs[index].labels)
        ids = read_ids16(path)
        check_pair(sample.image, ids, path)
        panoptic, _ = make_panoptic(ids, self._regions(ids))
        instances = instances_of(panoptic, self.classes)
        return Sample(sample.image, sample.labels, sample.id, instances, self._official(sample.id) or panoptic)

    def _regions(self, ids: NDArray[np.int32]) -> dict[int, Region]:
        """What the ids stand for; those that are no class of the benchmark have no region."""
        regions = {}
        table = train_id_table()
        for number in np.unique(ids).tolist():
            label_id = number // PER_CLASS if number >= PER_CLASS else number
            train_id = int(table[label_id]) if label_id < NUM_LABEL_IDS else IGNORE
            if train_id != IGNORE:
                regions[number] = Region(train_id, crowd=number < PER_CLASS and self.classes[train_id].thing)
        return regions

    def _official(self, sample_id: str) -> Panoptic | None:
        segments = self._panoptic_segments.get(sample_id)
        if segments is None:
            return None
        path = self._panoptic_json.with_suffix("") / f"{sample_id}{_PANOPTIC}"
        index = {label_id: train_id for train_id, (label_id, _, _) in enumerate(TABLE)}
        return read_panoptic(path, segments, index, self.problems)

    @property
    def _panoptic_json(self) -> Path:
        return self.root / "gtFine" / f"cityscapes_panoptic_{self.split}.json"

    @cached_property
    def _panoptic_segments(self) -> dict[str, Any]:
        """``segments_info`` by picture, where cityscapesScripts' file is there."""
        path = self._panoptic_json
        if not path.is_file():
            return {}
        try:
            return {item["image_id"]: item["segments_info"] for item in json.loads(path.read_bytes())["annotations"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = "make it again with cityscapesScripts (csCreatePanopticImgs), or remove it"
            raise DataError(f"{path}: {error}", "COCO panoptic JSON", fix) from error

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        if path.name.endswith(_INSTANCE_IDS):
            ids = read_ids16(path)
            return self._to_train_ids(np.where(ids >= PER_CLASS, ids // PER_CLASS, ids), path)
        labels = read_indices(path)
        return labels if path.name.endswith(_TRAIN_IDS) else self._to_train_ids(labels, path)

    def _to_train_ids(self, labels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        check_labels(labels, NUM_LABEL_IDS, path)
        return np.asarray(cv2.LUT(labels.astype(np.uint8), train_id_table()), np.uint8)


def _objects_path(labels: Path) -> Path:
    stem = labels.name.partition("_gtFine_")[0]
    return labels.with_name(f"{stem}{_INSTANCE_IDS}")
