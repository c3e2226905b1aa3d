"""Data sets: one file each, one line each in ``REGISTRY``."""

from __future__ import annotations

import os
from importlib import import_module

from edgeseg.data.base import Dataset, Sample
from edgeseg.errors import DataError

__all__ = ["REGISTRY", "Dataset", "Sample", "open_dataset"]

REGISTRY = {
    "ade20k": "edgeseg.data.ade20k:Ade20k",
    "ade20k_full": "edgeseg.data.ade20k_full:Ade20kFull",
    "camvid": "edgeseg.data.camvid:CamVid",
    "cityscapes": "edgeseg.data.cityscapes:Cityscapes",
    "coco": "edgeseg.data.coco:Coco",
    "coco_keypoints": "edgeseg.data.coco_keypoints:CocoKeypoints",
    "coco_panoptic": "edgeseg.data.coco_panoptic:CocoPanoptic",
    "folder": "edgeseg.data.folder:Folder",
    "gta": "edgeseg.data.gta:Gta5",
    "mapillary": "edgeseg.data.mapillary:Mapillary",
    "nyuv2": "edgeseg.data.nyuv2:NyuV2",
    "rooms": "edgeseg.data.rooms:Rooms",
    "sbd": "edgeseg.data.sbd:Sbd",
    "siftflow": "edgeseg.data.siftflow:SiftFlow",
    "streets": "edgeseg.data.streets:Streets",
    "sunrgbd": "edgeseg.data.sunrgbd:SunRgbd",
    "voc": "edgeseg.data.voc:Voc2012",
}


def open_dataset(uri: str, split: str) -> Dataset:
    """The data set that ``NAME:ARGUMENT`` names, e.g. ``camvid:/data/CamVid``; what follows the colon is the class's own.

    Raises:
        DataError: unknown name, missing directory or split.
    """
    name, _, argument = uri.partition(":")
    if name not in REGISTRY:
        expected = f"NAME:PATH with NAME in {', '.join(sorted(REGISTRY))}"
        fix = f"--data folder:{uri} for a folder of images and masks" if os.path.isdir(uri) else "see docs/data.md"
        raise DataError(f"--data {uri}: unknown data set {name!r}", expected, fix)
    module, _, cls = REGISTRY[name].partition(":")
    dataset: Dataset = getattr(import_module(module), cls)(argument, split)
    return dataset
