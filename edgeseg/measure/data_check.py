"""Decode a data set from end to end, and count what is in it and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Dataset, Sample
from edgeseg.errors import DataError, PictureError
from edgeseg.manifest import ClassInfo
from edgeseg.measure.samples import spread

_SHOWN = 20


@dataclass
class ClassCount:
    """One class: pixels that have it, pictures with such pixels or objects, and objects (crowds apart)."""

    name: str
    thing: bool
    pixels: int = 0
    pictures: int = 0
    instances: int = 0
    crowds: int = 0


@dataclass
class DataReport:
    """What a split holds.

    Attributes:
        pictures: of the split; ``read`` of them were decoded, ``failed`` could not be.
        unreadable: files that are missing or broken; ``invalid``: labels outside the classes, other sizes and the like.
        sizes: pictures by "WIDTHxHEIGHT".
        void_share: of all pixels read, those that have no class.
        spaces: classes of further label spaces by their name.
        problems: what the annotations have wrong and does not stop a run, by kind.
        examples: the first of all that is wrong.
        good: indices of samples that were read.
    """

    data: str
    split: str
    licence: str
    tasks: list[str]
    modality: str
    pictures: int
    read: int = 0
    unreadable: int = 0
    invalid: int = 0
    void_share: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    classes: list[ClassCount] = field(default_factory=list)
    spaces: dict[str, list[ClassCount]] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    good: list[int] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return self.unreadable + self.invalid

    @property
    def usable(self) -> bool:
        """Whether training would get through: every picture that was looked at is good, and one has truth of any kind."""
        return not self.failed and any(item.pixels or item.instances or item.crowds for item in self.classes)

    @property
    def absent(self) -> list[str]:
        """Classes of which nothing was found."""
        return [item.name for item in self.classes if not item.pictures]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "absent": self.absent, "failed": self.failed, "usable": self.usable}


def check_dataset(
    dataset: Dataset, uri: str, limit: int | None = None, progress: Callable[[float], None] = lambda done: None
) -> DataReport:
    """Read every sample, or ``limit`` of them spread over the split, and count.

    Args:
        uri: what the data set is called in the report.
        progress: told how many samples were looked at.
    """
    report = DataReport(
        uri, dataset.split, dataset.licence, list(dataset.tasks), dataset.modality, len(dataset), classes=_empty(dataset.classes)
    )
    report.spaces = {space.name: _empty(space.classes) for space in dataset.spaces}
    names, sizes, void = dataset.ids(), Counter[str](), [0, 0]
    for done, index in enumerate(spread(len(dataset), limit), 1):
        try:
            sample = dataset[index]
        except PictureError as error:
            report.unreadable += 1
            report.examples.append(error.what)
        except DataError as error:
            report.invalid += 1
            report.examples.append(str(error))
        else:
            _count(report, sample, dataset, void)
            sizes[f"{sample.image.shape[1]}x{sample.image.shape[0]}"] += 1
            report.good.append(index)
        progress(done)
    report.read, report.sizes = len(report.good), dict(sizes.most_common())
    report.void_share = void[0] / void[1] if void[1] else 0.0
    for name, count in Counter(names).items():
        if count > 1:
            dataset.problems.add("pictures of one name", f"{name} ({count} times)")
    report.problems = dataset.problems.counts
    report.examples += [f"{where}: {kind}" for kind, where in dataset.problems]
    report.examples = report.examples[:_SHOWN]
    return report


def _empty(classes: Sequence[ClassInfo]) -> list[ClassCount]:
    return [ClassCount(item.name, item.thing) for item in classes]


def _count(report: DataReport, sample: Sample, dataset: Dataset, void: list[int]) -> None:
    pixels = np.bincount(sample.labels.ravel(), minlength=256)
    void[0] += int(pixels[IGNORE])
    void[1] += sample.labels.size
    found = _count_objects(report.classes, sample, dataset)
    _count_pixels(report.classes, pixels, found)
    for counts, labels in zip(report.spaces.values(), sample.spaces, strict=True):
        _count_pixels(counts, np.bincount(labels.ravel(), minlength=256), set())


def _count_pixels(counts: list[ClassCount], pixels: NDArray[np.int64], found: set[int]) -> None:
    for label, item in enumerate(counts):
        item.pixels += int(pixels[label])
        item.pictures += bool(pixels[label]) or label in found


def _count_objects(counts: list[ClassCount], sample: Sample, dataset: Dataset) -> set[int]:
    """The classes of the sample's objects, counted."""
    objects = sample.instances
    if objects is None:
        return set()
    crowd = np.zeros(len(objects), bool) if objects.crowd is None else objects.crowd
    for place, label in enumerate(objects.classes.tolist()):
        counts[label].crowds += int(crowd[place])
        counts[label].instances += int(not crowd[place])
        if objects.masks is not None and not objects.masks[place].any():
            dataset.problems.add("object whose outline covers no pixel", f"object {place} of {sample.id}")
    return set(objects.classes.tolist())
