"""One door to the metrics: predictions of any task against samples, and the figures that follow."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.manifest import Manifest
from edgeseg.metrics import FIGURES, headline
from edgeseg.metrics.boundary import BoundaryF1, Trimap
from edgeseg.metrics.semantic import ConfusionMatrix
from edgeseg.scene import Instances, Panoptic, Prediction


class Truth(Protocol):
    """What is needed of a sample."""

    @property
    def labels(self) -> NDArray[np.uint8]: ...

    @property
    def id(self) -> str: ...

    @property
    def instances(self) -> Instances | None: ...

    @property
    def panoptic(self) -> Panoptic | None: ...

    @property
    def spaces(self) -> tuple[NDArray[np.uint8], ...]: ...


class Score:
    """The metric of a model's task over any number of frames.

    Attributes:
        headline: the name of the figure that counts.

    Args:
        manifest: the model's.
        borders: measure how well borders lie too (labels only): boundary F1, and mean IoU in bands around borders.
    """

    def __init__(self, manifest: Manifest, borders: bool = False) -> None:
        self.task, self.headline = manifest.task, headline(manifest)
        self._names = manifest.class_names
        self._spaces = {space.name: ConfusionMatrix(len(space.classes), manifest.ignore_label) for space in manifest.spaces}
        self._metric = _make(manifest)
        self._borders: list[Any] = []
        if borders:
            if self.task != "semantic":
                raise DataError(f"boundary F1 of a {self.task} model", "a model that gives labels", "leave it out")
            count, ignore = len(manifest.classes), manifest.ignore_label
            self._borders = [BoundaryF1(count, ignore), Trimap(count, ignore)]

    def update(self, predicted: Prediction, sample: Truth) -> None:
        """Add a frame.

        Raises:
            DataError: the sample lacks the truth of the task, or a label is no class.
        """
        if isinstance(predicted, Instances):
            self._metric.update(predicted, self._require(sample.instances, sample, "instances"), sample.labels.shape)
        elif isinstance(predicted, Panoptic):
            self._metric.update(predicted, self._require(sample.panoptic, sample, "segments"))
        elif isinstance(predicted, list):
            self._update_labels(predicted[0], sample.labels)
            for matrix, labels, truth in zip(self._spaces.values(), predicted[1:], sample.spaces, strict=True):
                matrix.update(labels, truth)
        else:
            self._update_labels(predicted, sample.labels)

    def _update_labels(self, predicted: NDArray[np.uint8], true: NDArray[np.uint8]) -> None:
        for metric in (self._metric, *self._borders):
            metric.update(predicted, true)

    def _require(self, truth: Any, sample: Truth, what: str) -> Any:
        if truth is None:
            raise DataError(f"{sample.id}: no {what} in the data", f"the truth for {self.task}", "another data set")
        return truth

    def summary(self) -> dict[str, float]:
        """The task's figures by name; those of further label spaces are ``NAME_mean_iou`` and so on."""
        values = self._metric.summary()
        found = {name: float(values[name]) for name in FIGURES[self.task] if name in values}
        for space, matrix in self._spaces.items():
            found |= {f"{space}_{name}": float(value) for name, value in matrix.summary().items()}
        for metric in self._borders:
            found |= {name: float(value) for name, value in metric.summary().items()}
        return found

    def per_class(self) -> dict[str, float]:
        """The headline figure (IoU for mean IoU) of each class by name, NaN where it has none."""
        values = self._metric.per_class_iou if isinstance(self._metric, ConfusionMatrix) else self._metric.per_class()
        if isinstance(values, dict):
            return {str(name): float(value) for name, value in values.items()}
        return {name: float(value) for name, value in zip(self._names, values, strict=True)}


def _make(manifest: Manifest) -> Any:
    if manifest.task == "semantic":
        return ConfusionMatrix(len(manifest.classes), manifest.ignore_label)
    if manifest.task == "panoptic":
        from edgeseg.metrics.panoptic import PanopticQuality

        return PanopticQuality(manifest.classes)
    from edgeseg.metrics.instance import CocoMetric

    sigmas = manifest.keypoints.sigmas if manifest.keypoints else None
    return CocoMetric(manifest.task, manifest.classes, sigmas)
