"""What a run leaves to look at: metrics.csv, a TensorBoard log, and pictures of predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from edgeseg.files import atomic_path, write_bytes

_COLUMNS = ("epoch", "lr", "loss", "seconds", "frames_per_s")


class RunLog:
    """Writes one row an epoch; on resume, rows of epochs that will be run again are dropped.

    Args:
        figures: names of the figures of a validation, in order.
    """

    def __init__(self, directory: Path, first_epoch: int, figures: Sequence[str]) -> None:
        self._columns = (*_COLUMNS, *(f"val_{name}" for name in figures))
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
        self._rows.append({column: row.get(column, "") for column in self._columns})
        with atomic_path(self._csv) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        for key, value in values.items():
            self._board.add_scalar(key, value, epoch)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a JPEG atomically."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_bytes(path, data.tobytes())
