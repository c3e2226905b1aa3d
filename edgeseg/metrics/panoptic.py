"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4), as COCO's panopticapi computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo
from edgeseg.scene import VOID, Panoptic

Floats = NDArray[np.float64]


class PanopticQuality:
    """Predicted against true segments over any number of pictures.

    A predicted and a true segment of one class match when their IoU, with void pixels of the truth left out of the union,
    exceeds 0.5. Of the rest, true segments are misses, and predicted ones false unless most of their pixels are void or a
    crowd of their class; crowds themselves are never missed.

    Args:
        classes: the classes; PQ is averaged over those that are true or predicted somewhere.
    """

    headline = "pq"

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        self.classes = tuple(classes)
        count = len(self.classes)
        self.iou: Floats = np.zeros(count)
        self.matched, self.false, self.missed = (np.zeros(count, np.int64) for _ in range(3))

    def update(self, predicted: Panoptic, true: Panoptic) -> None:
        """Add a picture.

        Raises:
            DataError: sizes differ, a pixel's id is of no segment, an id appears twice, or a label is no class.
        """
        if predicted.ids.shape != true.ids.shape:
            raise DataError(f"segments of shape {predicted.ids.shape}", f"the truth's shape {true.ids.shape}")
        table, guess, truth = self._overlaps(predicted, true)
        area, true_area = table.sum(axis=0), table.sum(axis=1)
        # Row and column 0 are void.
        union = area[None] + true_area[:, None] - table - table[:1]
        same = (truth.labels[:, None] == guess.labels[None]) & ~truth.crowd[:, None]
        same[0], same[:, 0] = False, False
        iou = np.divide(table, union, out=np.zeros(table.shape), where=same & (union > 0))
        pairs = np.nonzero(iou > 0.5)  # at most one a segment (section 4.1)
        self.iou += np.bincount(truth.labels[pairs[0]], iou[pairs], minlength=len(self.classes))
        self._count(self.matched, truth.labels[pairs[0]])
        lost = (true_area > 0) & ~truth.crowd
        lost[pairs[0]], lost[0] = False, False
        self._count(self.missed, truth.labels[lost])
        crowd = truth.crowd[:, None] & (truth.labels[:, None] == guess.labels[None])
        excused = table[0] + np.where(crowd, table, 0).sum(axis=0)
        wrong = (area > 0) & (2 * excused <= area)
        wrong[pairs[1]], wrong[0] = False, False
        self._count(self.false, guess.labels[wrong])

    def summary(self) -> dict[str, float]:
        """``pq``, ``sq``, ``rq``, and the same of ``_things`` and ``_stuff``: means over classes, NaN without any."""
        thing = np.array([item.thing for item in self.classes], bool)
        found = {}
        for suffix, chosen in (("", np.ones(len(thing), bool)), ("_things", thing), ("_stuff", ~thing)):
            for name, values in zip(("pq", "sq", "rq"), self._qualities(), strict=True):
                known = values[chosen & ~np.isnan(values)]
                found[name + suffix] = float(known.mean()) if known.size else float("nan")
        return found

    def per_class(self) -> dict[str, float]:
        """PQ of each class by name; NaN where it is neither true nor predicted."""
        return {item.name: float(value) for item, value in zip(self.classes, self._qualities()[0], strict=True)}

    def _qualities(self) -> tuple[Floats, Floats, Floats]:
        """PQ, SQ and RQ, each (C): equation 1; NaN where a class is neither true nor predicted."""
        weight = self.matched + (self.false + self.missed) / 2
        known = weight > 0
        blank = np.full(len(weight), np.nan)
        pq = np.divide(self.iou, weight, out=blank.copy(), where=known)
        rq = np.divide(self.matched, weight, out=blank.copy(), where=known)
        return pq, np.where(known, self.iou / np.maximum(self.matched, 1), np.nan), rq

    def _overlaps(self, predicted: Panoptic, true: Panoptic) -> tuple[NDArray[np.int64], _Table, _Table]:
        """Pixels of each pair of segments, (true, predicted) with void first, by one histogram."""
        guess, truth = (self._table(scene, what) for scene, what in ((predicted, "predicted"), (true, "true")))
        rows, columns = len(truth.ids), len(guess.ids)
        codes = truth.places(true.ids, "true") * columns + guess.places(predicted.ids, "predicted")
        return np.bincount(codes, minlength=rows * columns).reshape(rows, columns), guess, truth

    def _table(self, scene: Panoptic, what: str) -> _Table:
        segments = sorted(scene.segments, key=lambda segment: segment.id)
        ids = np.array([VOID, *(segment.id for segment in segments)], np.int64)
        if (np.diff(ids) <= 0).any():
            raise DataError(f"{what} segments with the ids {ids[1:].tolist()[:20]}", "distinct ids of 1 or more")
        labels = np.array([0, *(segment.label for segment in segments)], np.int64)
        if labels.min() < 0 or labels.max() >= len(self.classes):
            bad = int(labels.min() if labels.min() < 0 else labels.max())
            raise DataError(f"{what} segment of label {bad}", f"0..{len(self.classes) - 1}")
        return _Table(ids, labels, np.array([False, *(segment.crowd for segment in segments)], bool))

    @staticmethod
    def _count(counts: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        counts += np.bincount(labels, minlength=len(counts))


@dataclass(frozen=True)
class _Table:
    """A picture's segments by ascending id, void (of label 0, which nothing reads) first."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    def places(self, ids: NDArray[np.int32], what: str) -> NDArray[np.int64]:
        """Row of the table for each pixel, flat."""
        flat = ids.ravel()
        found = np.searchsorted(self.ids, flat)
        found[found == len(self.ids)] = 0
        if (bad := flat[self.ids[found] != flat]).size:
            raise DataError(f"{what} pixels with id {bad[0]}", f"{VOID} (void) or the id of a segment")
        return found
