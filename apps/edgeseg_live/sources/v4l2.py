"""A camera at ``/dev/videoN``, by OpenCV's V4L2 reader."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import SourceError
from edgeseg_live.sources import Picture
from edgeseg_live.uri import Uri

_READ_TIMEOUT_MS = 5000


class CameraSource:
    """``/dev/videoN`` or ``v4l2:/dev/videoN?size=1280x720&fps=30&format=MJPG``; without options as the driver has it."""

    live = True

    def __init__(self, uri: Uri) -> None:
        uri.only("size", "fps", "format")
        self._path = Path(uri.rest)
        self._size = parse_size(uri, "")
        self._fps = uri.number("fps", 0, 0, 1000)
        self._format = uri.take("format", "")
        if self._format and len(self._format) != 4:
            raise SourceError(f"{uri.shown}: format={self._format!r}", "a FourCC such as MJPG or YUYV", "correct ?format=")
        self._capture: cv2.VideoCapture | None = None
        check_device(self._path)

    def open(self) -> None:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_V4L2, self._parameters())
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{self._path}: cannot be opened as a camera", "a V4L2 capture device", "close other programs that use it"
            )
        self._capture = capture

    def _parameters(self) -> list[int]:
        chosen = [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS, cv2.CAP_PROP_BUFFERSIZE, 1]
        if self._format:
            chosen += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._format)]
        if self._size:
            chosen += [cv2.CAP_PROP_FRAME_WIDTH, self._size[0], cv2.CAP_PROP_FRAME_HEIGHT, self._size[1]]
        if self._fps:
            chosen += [cv2.CAP_PROP_FPS, int(self._fps)]
        return chosen

    def read(self) -> Picture | None:
        ok, image = self._capture.read() if self._capture is not None else (False, None)
        if not ok or image is None:
            return None
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return Picture(np.asarray(image, np.uint8))

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def check_device(path: Path) -> None:
    """Refuse what is no readable character device; the message lists the cameras there are."""
    cameras = ", ".join(sorted(str(item) for item in Path("/dev").glob("video*"))) or "none"
    if not path.exists():
        raise SourceError(
            f"--source {path}: no such device", f"a camera (this machine has: {cameras})", "plug it in, or choose another"
        )
    if not stat.S_ISCHR(path.stat().st_mode):
        raise SourceError(f"--source {path}: not a device", f"a camera (this machine has: {cameras})", "choose a camera")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"--source {path}: permission denied", "a camera you may use", "add yourself to the group `video`")


def parse_size(uri: Uri, default: str) -> tuple[int, int] | None:
    """Option ``size=WxH`` as (W, H); None when it and the default are empty."""
    text = uri.take("size", default)
    if not text:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 16384 and 16 <= int(height) <= 16384):
        raise SourceError(f"{uri.shown}: size={text!r}", "WIDTHxHEIGHT, 16 to 16384 each", "for example size=1280x720")
    return int(width), int(height)


def open_source(uri: Uri) -> CameraSource:
    return CameraSource(uri)
