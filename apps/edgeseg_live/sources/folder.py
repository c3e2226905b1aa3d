"""A folder of pictures, in the order of their names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import SourceError
from edgeseg_live.sources import CorruptFrameError, Picture
from edgeseg_live.uri import Uri

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class FolderSource:
    """``folder:DIR?fps=N&loop=1`` or a bare directory; plays at ``fps`` (10)."""

    live = False

    def __init__(self, uri: Uri) -> None:
        uri.only("fps", "loop")
        self._period_ns = int(1e9 / uri.number("fps", 10, 0.01, 1000))
        self._loop = bool(uri.integer("loop", 0, 0, 1))
        directory = Path(uri.rest)
        if not directory.is_dir():
            raise SourceError(f"--source {uri.shown}: no such folder", "a folder of pictures", "correct the path")
        self._paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not self._paths:
            raise SourceError(
                f"--source {uri.shown}: no pictures", f"files ending in {', '.join(SUFFIXES)}", "choose another folder"
            )
        self._next = 0

    def open(self) -> None:
        self._next = 0

    def read(self) -> Picture | None:
        index, self._next = self._next, self._next + 1
        if index >= len(self._paths) and not self._loop:
            return None
        return Picture(read_picture(self._paths[index % len(self._paths)]), index * self._period_ns)

    def close(self) -> None:
        """Nothing is held open."""


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR.

    Raises:
        CorruptFrameError: unreadable, or a JPEG whose end is missing (OpenCV would fill the rest with grey).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFrameError(f"{path}: {error.strerror}") from error
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-64:]:
        raise CorruptFrameError(f"{path}: truncated")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise CorruptFrameError(f"{path}: no picture")
    return np.asarray(image, np.uint8)


def open_source(uri: Uri) -> FolderSource:
    return FolderSource(uri)
