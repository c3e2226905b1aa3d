"""COCO's panoptic pictures (Kirillov et al., CVPR 2019): 80 things and 53 stuff classes, or other classes in the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Dataset, Sample, check_pair, read_image
from edgeseg.data.coco_json import find_annotations, find_pictures, make_classes, read_document
from edgeseg.data.problems import Problems
from edgeseg.data.segments import Region, instances_of, labels_of, make_panoptic
from edgeseg.errors import DataError, PictureError
from edgeseg.scene import Panoptic


class CocoPanoptic(Dataset):
    """``coco_panoptic:PATH``: ``annotations/panoptic_SPLIT2017.json``, its PNGs in the folder of that name beside it."""

    name = "coco_panoptic"
    licence = "annotations CC BY 4.0; photos under their own Flickr licences"
    tasks = ("panoptic", "semantic", "instance", "detection")

    def __init__(self, path: str, split: str) -> None:
        root = Path(path).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such directory", f"the root of a {self.name} data set", f"give --data {self.name}:PATH")
        self.split = split
        annotations = find_annotations(root, split, "panoptic")
        self._pictures, self._segments = find_pictures(root, split, annotations), annotations.with_suffix("")
        self._document = read_document(annotations, self.problems, annotation_ids=False)
        self.classes = make_classes(self._document.categories, lambda record: bool(record.get("isthing", 1)))
        self._images = [record for record in self._document.images if record["id"] in self._document.annotations]
        for record in self._document.images:
            if record["id"] not in self._document.annotations:
                self.problems.add("picture without segments, left out", str(record["file_name"]))
        if not self._images:
            raise DataError(f"{annotations}: no picture has segments", "an annotation for each picture", "restore the file")

    def ids(self) -> list[str]:
        return [Path(record["file_name"]).stem for record in self._images]

    def __getitem__(self, index: int) -> Sample:
        record = self._images[index]
        annotation = self._document.annotations[record["id"]][0]
        image = read_image(self._pictures / record["file_name"])
        path = self._segments / str(annotation.get("file_name") or f"{Path(record['file_name']).stem}.png")
        panoptic = read_panoptic(path, annotation.get("segments_info"), self._document.index, self.problems)
        labels = labels_of(panoptic)
        check_pair(image, labels, path)
        return Sample(image, labels, self.ids()[index], instances_of(panoptic, self.classes), panoptic)


def read_panoptic(path: Path, segments: Any, index: dict[int, int], problems: Problems) -> Panoptic:
    """A panoptic PNG with its ``segments_info``; ids of one and not of the other are counted, and void.

    Raises:
        PictureError: the PNG is missing or broken.
    """
    ids = read_ids(path)
    regions: dict[int, Region] = {}
    for item in segments if isinstance(segments, list) else []:
        number, category = (item.get("id"), item.get("category_id")) if isinstance(item, dict) else (None, None)
        where = f"segment {number} of {path.name}"
        if type(number) is not int or not 0 < number < 1 << 24:
            problems.add("segment whose id no pixel can have, left out", where)
        elif type(category) is not int or category not in index:
            problems.add("segment of an unknown category, left out", f"{where}: category {category}")
        elif number in regions:
            problems.add("second segment of one id, left out", where)
        else:
            regions[number] = Region(index[category], bool(item.get("iscrowd")))
    panoptic, unknown = make_panoptic(ids, regions)
    found = {segment.id for segment in panoptic.segments}
    for number in sorted(unknown):
        problems.add("segment of pixels that is not listed: void", f"id {number} of {path.name}")
    for number in sorted(regions.keys() - found):
        problems.add("segment without pixels", f"segment {number} of {path.name}")
    return panoptic


def read_ids(path: Path) -> NDArray[np.int32]:
    """(H, W) int32 of a panoptic PNG: R + 256 G + 65536 B.

    Raises:
        PictureError: missing, not a picture, or not RGB.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode not in ("RGB", "RGBA"):
                raise PictureError(f"{path}: panoptic picture of mode {picture.mode}", "an RGB PNG: id = R + 256 G + 65536 B")
            rgb = np.asarray(picture.convert("RGB"), np.int32)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path}: cannot read the panoptic picture ({error})", "an RGB PNG of segment ids") from error
    return np.asarray(rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16, np.int32)
