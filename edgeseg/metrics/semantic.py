"""Pixel accuracy, mean accuracy, mean IU and frequency-weighted IU (Long, Shelhamer, Darrell, CVPR 2015, section 5).

With n_ij the number of pixels of class i predicted as class j and t_i = sum_j n_ij.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError


class ConfusionMatrix:
    """Counts of (true class, predicted class) over any number of frames.

    Args:
        num_classes: number of classes C.
        ignore_label: true label that does not count.
    """

    headline = "mean_iou"

    def __init__(self, num_classes: int, ignore_label: int = 255) -> None:
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, predicted: NDArray[np.uint8], true: NDArray[np.uint8]) -> None:
        """Add a frame; both are (H, W) uint8 label maps.

        Raises:
            DataError: shapes differ, labels are not uint8, or a label is no class.
        """
        if predicted.dtype != np.uint8 or true.dtype != np.uint8:
            raise DataError(f"label maps of {predicted.dtype} and {true.dtype}", "uint8")
        if predicted.shape != true.shape:
            raise DataError(f"prediction of shape {predicted.shape}", f"the truth's shape {true.shape}")
        # One 256x256 histogram of 16-bit codes costs the same for any class count and finds bad labels for free.
        codes = true.astype(np.uint16) << 8 | predicted
        table = np.bincount(codes.ravel(), minlength=1 << 16).reshape(256, 256)
        table[self.ignore_label] = 0
        if (bad := np.argwhere(table[self.num_classes :])).size:
            raise DataError(f"true label {bad[0][0] + self.num_classes}", f"0..{self.num_classes - 1} or {self.ignore_label}")
        if (bad := np.argwhere(table[:, self.num_classes :])).size:
            raise DataError(f"predicted label {bad[0][1] + self.num_classes}", f"0..{self.num_classes - 1}")
        self.counts += table[: self.num_classes, : self.num_classes]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix, e.g. of another process.

        Raises:
            DataError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise DataError(f"a confusion matrix of {other.num_classes} classes", f"{self.num_classes}")
        self.counts += other.counts

    @property
    def pixel_accuracy(self) -> float:
        """sum_i n_ii / sum_i t_i; NaN with no pixels."""
        return _ratio(np.trace(self.counts), self.counts.sum())

    @property
    def per_class_accuracy(self) -> NDArray[np.float64]:
        """n_ii / t_i, (C,) float64, NaN where the class has no pixels."""
        return _divide(np.diag(self.counts), self.counts.sum(axis=1))

    @property
    def mean_accuracy(self) -> float:
        """Mean of the per-class accuracies over classes that have pixels."""
        return _nan_mean(self.per_class_accuracy)

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """n_ii / (t_i + sum_j n_ji - n_ii), (C,) float64, NaN where a class is neither true nor predicted."""
        hits = np.diag(self.counts)
        return _divide(hits, self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean of the per-class IoU over classes that are true or predicted somewhere."""
        return _nan_mean(self.per_class_iou)

    @property
    def fw_iou(self) -> float:
        """sum_i t_i IoU_i / sum_i t_i."""
        totals = self.counts.sum(axis=1)
        present = totals > 0
        return _ratio(float((totals[present] * self.per_class_iou[present]).sum()), totals.sum())

    def summary(self) -> dict[str, float]:
        """The four figures under the names used in every report."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "fw_iou": self.fw_iou,
        }


def _divide(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")


def _nan_mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
