"""Accuracy of a built engine on labelled frames, through the very preprocessing and decoding that runs live."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.measure.machine import machine_line, measurement
from edgeseg.measure.samples import Pictures, open_labelled, unseen
from edgeseg.metrics.score import Score

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset
    from edgeseg.folder import ModelFolder


@dataclass(frozen=True)
class Evaluation:
    """The figures of the model's task, in 0..1.

    Attributes:
        figures: by name, see ``edgeseg.metrics.FIGURES``; the one in ``headline`` counts.
        per_class: the headline figure (IoU, AP, PQ) of each class; None for a class that is neither true nor predicted.
        skipped: pictures that could not be read.
    """

    headline: str
    figures: dict[str, float]
    per_class: dict[str, float | None]
    backend: str
    precision: str
    data: str
    split: str
    images: int
    skipped: int
    seconds: float
    machine: str

    @property
    def value(self) -> float:
        """The figure that counts."""
        return self.figures[self.headline]

    def to_json(self) -> dict[str, Any]:
        rest = {name: value for name, value in vars(self).items() if name != "figures"}
        return {**self.figures, **rest}


def evaluate(
    folder: ModelFolder,
    predictor: Segmenter | Predictor,
    data: str | None = None,
    split: str = "test",
    frames: int | None = None,
    progress: Callable[[int], object] | None = None,
    borders: bool = False,
) -> Evaluation:
    """Evaluate an opened engine on a split and keep the figures in the manifest when the whole split was used.

    Args:
        predictor: over an engine of this folder.
        data: such as "camvid:PATH"; by default the procedural scenes, for a model trained on them.
        frames: at most so many frames, spread evenly.
        borders: measure how well borders lie too, see ``edgeseg.metrics.boundary``.

    Raises:
        DataError: no data, other classes, too many unreadable pictures, or pictures that int8 calibration saw.
    """
    name, dataset, indices = open_labelled(folder, data, split, frames)
    started = time.monotonic()
    score, pictures = Score(folder.manifest, borders), Pictures(dataset, indices, progress)
    for sample in unseen(folder, pictures, predictor.session.precision):
        score.update(predictor(sample.image), sample)
    skipped = pictures.skipped
    result = Evaluation(
        headline=score.headline,
        figures=score.summary(),
        per_class={label: None if math.isnan(value) else value for label, value in score.per_class().items()},
        backend=predictor.session.backend,
        precision=predictor.session.precision,
        data=name,
        split=split,
        images=len(indices) - skipped,
        skipped=skipped,
        seconds=round(time.monotonic() - started, 3),
        machine=machine_line(),
    )
    if len(indices) == len(dataset):
        _keep(folder, result, dataset)
    return result


def _keep(folder: ModelFolder, result: Evaluation, dataset: Dataset) -> None:
    values = {**result.figures, "images": float(result.images)}
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    folder.add_measurement(measurement("eval", result.backend, result.precision, f"{dataset.name} {dataset.split}", finite))
