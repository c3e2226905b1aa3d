"""Accuracy of a built engine on labelled frames, through the very preprocessing and decoding that runs live."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeseg.data import open_dataset
from edgeseg.engines.segmenter import Segmenter
from edgeseg.errors import DataError
from edgeseg.measure.machine import machine_line, measurement
from edgeseg.measure.samples import (
    Pictures,
    check_classes,
    picture_digest,
    refuse_calibrated,
    require_data,
    seen_in_calibration,
    spread,
)
from edgeseg.metrics.semantic import ConfusionMatrix

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset
    from edgeseg.folder import ModelFolder


@dataclass(frozen=True)
class Evaluation:
    """Figures in 0..1 (Long et al., CVPR 2015, section 5); a class that is neither true nor predicted has IoU None."""

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    fw_iou: float
    per_class_iou: dict[str, float | None]
    backend: str
    precision: str
    data: str
    split: str
    images: int
    skipped: int
    seconds: float
    machine: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def evaluate(
    folder: ModelFolder,
    segmenter: Segmenter,
    data: str | None = None,
    split: str = "test",
    frames: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate an opened engine on a split and keep the figures in the manifest when the whole split was used.

    Args:
        segmenter: over an engine of this folder.
        data: such as "camvid:PATH"; by default the procedural scenes, for a model trained on them.
        frames: at most so many frames, spread evenly.

    Raises:
        DataError: no data, other classes, too many unreadable pictures, or pictures that int8 calibration saw.
    """
    name = require_data(folder.manifest, data)
    dataset = open_dataset(name, split)
    check_classes(folder.manifest, dataset)
    indices = spread(len(dataset), frames)
    if not indices:
        raise DataError(f"{name}: split {split!r} has no pictures", "labelled pictures", "choose another --split")
    started = time.monotonic()
    counts, skipped = _count(folder, segmenter, dataset, indices, progress)
    result = _evaluation(folder, segmenter, counts, name, split, len(indices) - skipped, skipped, time.monotonic() - started)
    if len(indices) == len(dataset):
        _keep(folder, result, dataset)
    return result


def _count(
    folder: ModelFolder, segmenter: Segmenter, dataset: Dataset, indices: list[int], progress: Callable[[int], object] | None
) -> tuple[ConfusionMatrix, int]:
    manifest = folder.manifest
    seen = refuse_calibrated(folder, dataset, indices) if segmenter.session.precision == "int8" else set()
    counts = ConfusionMatrix(len(manifest.classes), ignore_label=manifest.ignore_label)
    pictures = Pictures(dataset, indices, progress)
    for sample in pictures:
        if seen and picture_digest(sample.image) in seen:
            raise seen_in_calibration(folder, dataset, 1, sample.id)
        counts.update(segmenter(sample.image), sample.labels)
    return counts, pictures.skipped


def _evaluation(
    folder: ModelFolder,
    segmenter: Segmenter,
    counts: ConfusionMatrix,
    data: str,
    split: str,
    images: int,
    skipped: int,
    seconds: float,
) -> Evaluation:
    ious = [None if math.isnan(value) else float(value) for value in counts.per_class_iou]
    return Evaluation(
        **counts.summary(),
        per_class_iou=dict(zip(folder.manifest.class_names, ious, strict=True)),
        backend=segmenter.session.backend,
        precision=segmenter.session.precision,
        data=data,
        split=split,
        images=images,
        skipped=skipped,
        seconds=round(seconds, 3),
        machine=machine_line(),
    )


def _keep(folder: ModelFolder, result: Evaluation, dataset: Dataset) -> None:
    values = {name: getattr(result, name) for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "fw_iou")}
    values["images"] = float(result.images)
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    folder.add_measurement(measurement("eval", result.backend, result.precision, f"{dataset.name} {dataset.split}", finite))
