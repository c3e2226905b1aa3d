"""Mapillary Vistas (Neuhold et al., ICCV 2017), versions 1.2 (66 labels) and 2.0 (124), classes read from its config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Sample, check_classes, check_labels, check_pair, read_ids16, read_indices
from edgeseg.data.pairs import Pair, PairDataset, choose_split, find_images
from edgeseg.data.segments import instances_of, number_segments
from edgeseg.data.words import split_words
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo, Task

VERSIONS = ("v2.0", "v1.2")
_SPLITS = {"train": ("training", "train"), "val": ("validation", "val"), "training": ("training",), "validation": ("validation",)}


class Mapillary(PairDataset):
    """``mapillary:PATH``, or ``mapillary:PATH,v1.2``: PATH holds training/, validation/ and config_v2.0.json or config_v1.2.json.

    Without a version the newest that is there. The old layout (``training/labels`` and ``config.json``) does as well. Labels that
    the config does not evaluate are ignored. Things are the labels that the config says have instances; ``instances/*.png``
    holds 256 * label + number.
    """

    name = "mapillary"
    licence = "CC BY-NC-SA (research edition)"

    def __init__(self, path: str, split: str) -> None:
        root, words = split_words(path, VERSIONS, self.name)
        self._version = words[0] if words else next((v for v in VERSIONS if (root / f"config_{v}.json").is_file()), "")
        super().__init__(root, split)
        self.classes, self._table = _read_config(self._config_path())
        has_objects = self._objects(self._pairs[0].labels).is_file()
        self.tasks: tuple[Task, ...] = ("semantic", "panoptic", "instance", "detection") if has_objects else ("semantic",)

    def _config_path(self) -> Path:
        return self.root / (f"config_{self._version}.json" if self._version else "config.json")

    def _list_pairs(self) -> list[Pair]:
        choose_split(self.split, dict.fromkeys(_SPLITS, ""), self.name)
        folder = next((self.root / name for name in _SPLITS[self.split] if (self.root / name).is_dir()), self.root / self.split)
        images, labels = folder / "images", folder / self._version / "labels"
        pairs = [Pair(path, labels / f"{path.stem}.png", path.stem) for path in find_images(images)]
        if not pairs:
            raise DataError(f"{images}: no pictures", "Mapillary Vistas with training/ and validation/", "point at what holds them")
        if not pairs[0].labels.is_file():
            what = f"{pairs[0].labels}: missing"
            raise DataError(what, "labels of that version", f"choose one with --data mapillary:PATH,{VERSIONS[1]}")
        return pairs

    def _objects(self, labels: Path) -> Path:
        return labels.parent.parent / "instances" / labels.name

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if "panoptic" not in self.tasks:
            return sample
        path = self._objects(self._pairs[index].labels)
        objects = read_ids16(path)
        check_pair(sample.image, objects, path)
        panoptic = number_segments(sample.labels, objects % 256 + 1, self.classes)
        return Sample(sample.image, sample.labels, sample.id, instances_of(panoptic, self.classes), panoptic)

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        labels = read_indices(path)
        check_labels(labels, len(self._table), path)
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self._table)] = self._table
        return np.asarray(table[labels], np.uint8)


def _read_config(path: Path) -> tuple[tuple[ClassInfo, ...], NDArray[np.uint8]]:
    """The classes that are evaluated, and the class of each label, 255 for the others."""
    expected = '{"labels": [{"readable": ..., "color": [r, g, b], "instances": ..., "evaluate": ...}, ...]}'
    try:
        labels = json.loads(path.read_bytes())["labels"]
        kept = [place for place, item in enumerate(labels) if item.get("evaluate", True)]
        classes = tuple(
            ClassInfo(name=item["readable"], colour=tuple(item["color"]), thing=bool(item["instances"]))
            for item in (labels[place] for place in kept)
        )
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", expected, "unpack the set whole") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {type(error).__name__} {error}", expected, "restore the file") from error
    check_classes(classes, path)
    if not classes:
        raise DataError(f"{path}: no label is evaluated", expected, "restore the file")
    table = np.full(len(labels), IGNORE, np.uint8)
    table[kept] = np.arange(len(kept))
    return classes, table
