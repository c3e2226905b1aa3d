"""What a run leaves to look at: metrics.csv, a TensorBoard log, and pictures of predictions."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from edgeseg.files import atomic_path, write_bytes
from edgeseg.manifest import ClassInfo
from edgeseg.postprocess import palette_bgr

_COLUMNS = (
    "epoch",
    "lr",
    "loss",
    "seconds",
    "frames_per_s",
    "val_mean_iou",
    "val_pixel_accuracy",
    "val_mean_accuracy",
    "val_fw_iou",
)


class RunLog:
    """Writes one row an epoch; on resume, rows of epochs that will be run again are dropped."""

    def __init__(self, directory: Path, first_epoch: int) -> None:
        self._csv = directory / "metrics.csv"
        self._rows = [row for row in self._read() if int(row["epoch"]) <= first_epoch]
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=first_epoch + 1)

    def _read(self) -> list[dict[str, str]]:
        if not self._csv.is_file():
            return []
        with self._csv.open(newline="") as stream:
            return [row for row in csv.DictReader(stream) if str(row.get("epoch")).isdigit()]

    def add(self, epoch: int, values: dict[str, float]) -> None:
        row = {"epoch": str(epoch), **{key: f"{value:.6g}" for key, value in values.items()}}
        self._rows.append({column: row.get(column, "") for column in _COLUMNS})
        with atomic_path(self._csv) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)
        for key, value in values.items():
            self._board.add_scalar(key, value, epoch)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def prediction_sheet(
    images: list[NDArray[np.uint8]], truths: list[NDArray[np.uint8]], predictions: list[NDArray[np.uint8]], classes: list[ClassInfo]
) -> NDArray[np.uint8]:
    """Rows of frame, truth and prediction, all at the first frame's size; (H, W, 3) uint8 BGR."""
    palette = palette_bgr(classes)
    height, width = images[0].shape[:2]

    def fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)

    triples = zip(images, truths, predictions, strict=True)
    return np.vstack([np.hstack([fit(image), palette[fit(truth)], palette[fit(guess)]]) for image, truth, guess in triples])


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a JPEG atomically."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_bytes(path, data.tobytes())
