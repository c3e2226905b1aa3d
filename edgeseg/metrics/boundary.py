"""How well borders lie: boundary F1 (Csurka et al., BMVC 2013) and mean IoU in a band around borders (Kohli et al., IJCV 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.metrics.semantic import ConfusionMatrix

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class BoundaryF1:
    """The contour matching score BF of Csurka, Larlus and Perronnin, section 3.2, over any number of frames.

    In each frame and for each class the precision is the share of the predicted border that lies within ``tolerance`` of the
    true border, the recall the share of the true border within it of the predicted one, and BF their harmonic mean. A class
    counts in a frame where it has a border in the truth or the prediction. A border pixel has a 4-neighbour of another class;
    pixels without truth and what is predicted there do not count, nor does the frame's edge.

    Args:
        num_classes: number of classes C.
        ignore_label: true label that does not count.
        tolerance: distance in shares of the frame's diagonal; the authors take 0.0075.
    """

    def __init__(self, num_classes: int, ignore_label: int = 255, tolerance: float = 0.0075) -> None:
        self.num_classes, self.ignore_label, self.tolerance = num_classes, ignore_label, tolerance
        self.frames = 0
        self._sums: NDArray[np.float64] = np.zeros((num_classes, 3))  # precision, recall, BF
        self._counts: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self._frame_sum, self._frame_count = 0.0, 0

    def update(self, predicted: Labels, true: Labels) -> None:
        """Add a frame; both are (H, W) uint8 label maps.

        Raises:
            DataError: shapes differ, labels are not uint8, or a label is no class.
        """
        check_label_maps(predicted, true, self.num_classes, self.ignore_label)
        ignored = true == self.ignore_label
        reach = self.tolerance * math.hypot(*true.shape)
        true_edges, predicted_edges = borders(true, ignored), borders(predicted, ignored)
        scores = []
        for index in np.union1d(true[true_edges], predicted[predicted_edges]).tolist():
            found = _match(predicted_edges & (predicted == index), true_edges & (true == index), reach)
            self._sums[index] += found
            self._counts[index] += 1
            scores.append(found[2])
        self.frames += 1
        if scores:
            self._frame_sum, self._frame_count = self._frame_sum + float(np.mean(scores)), self._frame_count + 1

    def merge(self, other: BoundaryF1) -> None:
        """Add another score, e.g. of another process.

        Raises:
            DataError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise DataError(f"a boundary score of {other.num_classes} classes", f"{self.num_classes}")
        self._sums += other._sums
        self._counts += other._counts
        self.frames += other.frames
        self._frame_sum, self._frame_count = self._frame_sum + other._frame_sum, self._frame_count + other._frame_count

    def _means(self) -> NDArray[np.float64]:
        counts = np.where(self._counts > 0, self._counts, 1)[:, None]
        return np.where(self._counts[:, None] > 0, self._sums / counts, np.nan)

    def per_class(self) -> NDArray[np.float64]:
        """BF of each class over the frames in which it counts: (C,) float64, NaN where it counts in none."""
        return self._means()[:, 2]

    def summary(self) -> dict[str, float]:
        """Means over the classes of BF, precision and recall, and the mean over frames of each frame's mean BF; 0..1 or NaN."""
        means = self._means()[self._counts > 0]
        precision, recall, score = means.mean(axis=0).tolist() if len(means) else [math.nan] * 3
        per_frame = self._frame_sum / self._frame_count if self._frame_count else math.nan
        return {"boundary_f1": score, "boundary_precision": precision, "boundary_recall": recall, "boundary_f1_frames": per_frame}


class Trimap:
    """Mean IoU of the pixels within some distances of a true border: where a border is lost, it shows (DeepLab, section 5.1).

    Args:
        num_classes: number of classes C.
        ignore_label: true label that does not count.
        widths: distances in pixels.
    """

    def __init__(self, num_classes: int, ignore_label: int = 255, widths: Sequence[float] = (1, 2, 4, 8)) -> None:
        self.ignore_label = ignore_label
        self.bands = {width: ConfusionMatrix(num_classes, ignore_label) for width in widths}

    def update(self, predicted: Labels, true: Labels) -> None:
        """Add a frame, as ``ConfusionMatrix.update`` does."""
        check_label_maps(predicted, true, next(iter(self.bands.values())).num_classes, self.ignore_label)
        distance = distances(borders(true, true == self.ignore_label))
        for width, counts in self.bands.items():
            counts.update(predicted, np.where(distance <= width, true, np.uint8(self.ignore_label)))

    def summary(self) -> dict[str, float]:
        """Mean IoU by name, ``trimap_WIDTH``."""
        return {f"trimap_{width:g}": counts.mean_iou for width, counts in self.bands.items()}


def check_label_maps(predicted: Labels, true: Labels, num_classes: int, ignore_label: int) -> None:
    """Refuse what no ``ConfusionMatrix`` would count.

    Raises:
        DataError: shapes differ, labels are not uint8, or a label is no class.
    """
    ConfusionMatrix(num_classes, ignore_label).update(predicted, true)


def borders(labels: Labels, ignored: Mask) -> Mask:
    """Pixels (H, W) that have a 4-neighbour of another class; ignored pixels neither are border nor make one."""
    edges = np.zeros(labels.shape, bool)
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (labels[one] != labels[other]) & ~ignored[one] & ~ignored[other]
        edges[one] |= differ
        edges[other] |= differ
    return edges


def distances(edges: Mask) -> NDArray[np.float32]:
    """Euclidean distance of every pixel to the nearest edge pixel, (H, W) float32; infinite where there is none."""
    if not edges.any():
        return np.full(edges.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _match(predicted: Mask, true: Mask, reach: float) -> tuple[float, float, float]:
    """Precision, recall and BF of one class's borders in one frame."""
    precision, recall = _near(predicted, true, reach), _near(true, predicted, reach)
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def _near(edges: Mask, others: Mask, reach: float) -> float:
    """The share of ``edges`` within reach of ``others``; 0 with no edge."""
    if not edges.any():
        return 0.0
    # A distance of exactly the tolerance must not depend on the last bit of a square root.
    return float((distances(others)[edges] <= reach + 1e-4).mean())
