"""COCO's objects (Lin et al., ECCV 2014) in its layout, or anybody's objects as COCO JSON."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Dataset, Sample, read_image
from edgeseg.data.coco_json import CocoDocument, Record, find_annotations, find_pictures, make_classes, read_document
from edgeseg.data.coco_masks import BadOutlineError, Mask, decode_outline
from edgeseg.data.segments import labels_from_masks
from edgeseg.errors import DataError
from edgeseg.manifest import Task
from edgeseg.scene import Instances, mask_boxes

Box = tuple[float, float, float, float]


class Coco(Dataset):
    """``coco:PATH``: the objects of ``PATH/annotations/instances_SPLIT2017.json``, pictures in ``PATH/SPLIT2017``.

    Also 2014 or no year, ``images/SPLIT``, Roboflow's ``SPLIT/_annotations.coco.json``, and ``coco:FILE.json`` with split
    "all", whose pictures lie where its ``file_name`` says, seen from the file.

    Classes are the categories in the order of their ids. A file without any outline is a set of boxes. In one with outlines an
    object that has none becomes a region to be ignored, the size of its box. Labels are the objects over 255: what is no object
    is unknown, so the set is no semantic one.
    """

    name = "coco"
    licence = "annotations CC BY 4.0; photos under their own Flickr licences"
    kind = "instances"
    tasks: tuple[Task, ...] = ("instance", "detection")

    def __init__(self, path: str, split: str) -> None:
        root = Path(path).expanduser()
        if not root.exists():
            raise DataError(f"{root}: no such directory", f"the root of a {self.name} data set", f"give --data {self.name}:PATH")
        self.split = split
        annotations = self._find(root, split)
        self._pictures = root.parent if root.is_file() else find_pictures(root, split, annotations)
        self._document = read_document(annotations, self.problems)
        self.classes = make_classes(self._document.categories, lambda record: True)
        self._outlined = any(record.get("segmentation") for found in self._document.annotations.values() for record in found)
        self._boxes_alone = not self._outlined and bool(self._document.annotations)
        if self._boxes_alone:
            self.tasks = ("detection",)

    def _find(self, root: Path, split: str) -> Path:
        if not root.is_file():
            return find_annotations(root, split, self.kind)
        if split != "all":
            raise DataError(f"{root}: no split {split!r} in one file", "--split all", "give --split all, or a folder of splits")
        return root

    @property
    def document(self) -> CocoDocument:
        """The annotations."""
        return self._document

    def ids(self) -> list[str]:
        return [picture_id(record) for record in self._document.images]

    def __getitem__(self, index: int) -> Sample:
        record = self._document.images[index]
        path = self._pictures / record["file_name"]
        image = read_image(path)
        height, width = image.shape[:2]
        listed = record.get("width") or width, record.get("height") or height
        if listed != (width, height):
            raise DataError(f"{path}: {width}x{height} px", f"{listed[0]}x{listed[1]} px as {self._document.path.name} says")
        instances = self._instances(self._document.annotations.get(record["id"], []), height, width)
        return Sample(image, labels_from_masks(instances, (height, width)), picture_id(record), instances)

    def _instances(self, records: list[Record], height: int, width: int) -> Instances:
        kept: list[Record] = []
        boxes: list[Box] = []
        masks: list[Mask] = []
        crowd: list[bool] = []
        for record in records:
            box = _box(record.get("bbox"), height, width)
            mask, reason = self._mask(record, height, width)
            if box is None and (reason or not self._outlined):
                self.problems.add(f"object without a box and with {reason or 'no outline'}, left out", _where(record))
                continue
            if reason:
                self.problems.add(f"{reason}: its box is ignored in training and evaluation", _where(record))
            kept.append(record)
            masks.append(_fill(box, height, width) if reason else mask)
            boxes.append(box or _tight(mask))
            crowd.append(bool(record.get("iscrowd", 0)) or bool(reason))
        return Instances(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([self._document.index[record["category_id"]] for record in kept], np.int64),
            masks=None if self._boxes_alone else np.array(masks, np.uint8).reshape(-1, height, width),
            keypoints=self._keypoints(kept),
            crowd=np.array(crowd, bool),
        )

    def _mask(self, record: Record, height: int, width: int) -> tuple[Mask, str]:
        """The mask, or none and why; a set of boxes has neither."""
        nothing: Mask = np.zeros((0, 0), np.uint8)
        if not self._outlined:
            return nothing, ""
        try:
            return decode_outline(record.get("segmentation"), height, width), ""
        except BadOutlineError as error:
            return nothing, str(error)

    def _keypoints(self, records: list[Record]) -> NDArray[np.float32] | None:
        return None


def picture_id(record: Record) -> str:
    """A picture's name: its file's, without the ending."""
    return Path(str(record["file_name"])).with_suffix("").as_posix()


def _where(record: Record) -> str:
    return f"annotation {record.get('id', '?')} of image {record['image_id']}"


def _box(box: object, height: int, width: int) -> Box | None:
    """x, y, w, h as x1, y1, x2, y2 inside the picture; None where nothing of it is."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) and abs(v) < 1e9 for v in box):
        return None
    x1, y1 = max(float(box[0]), 0.0), max(float(box[1]), 0.0)
    x2, y2 = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _tight(mask: Mask) -> Box:
    x1, y1, x2, y2 = mask_boxes(mask[None])[0].tolist()
    return x1, y1, x2, y2


def _fill(box: Box | None, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    if box is not None:
        x1, y1, x2, y2 = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
        mask[y1:y2, x1:x2] = 1
    return mask
