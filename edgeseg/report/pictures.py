"""Pictures of a report: frames beside their truth and predictions, and strips of a video."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.manifest import ClassInfo
from edgeseg.native import overlay
from edgeseg.postprocess import colorize, palette_bgr

Image = NDArray[np.uint8]

_CAPTION_PX = 24
_WRONG_BGR = (40, 40, 230)


def comparison(
    image: Image, truth: Image, predictions: Sequence[tuple[str, Image]], classes: Sequence[ClassInfo], ignore: int = 255
) -> Image:
    """A row: frame, truth, each prediction over the frame, and where the last one is wrong; (H, W, 3) uint8 BGR.

    Args:
        image: (H, W, 3) uint8 BGR.
        truth: (H, W) uint8 labels.
        predictions: (caption, (H, W) uint8 labels) each.
    """
    palette = palette_bgr(classes)
    tiles = [("frame", image), ("truth", colorize(truth, palette))]
    tiles += [(name, overlay(image, labels, palette, 0.6)) for name, labels in predictions]
    name, last = predictions[-1]
    tiles.append((f"wrong, {name}", _mistakes(image, truth, last, ignore)))
    return np.asarray(cv2.hconcat([_captioned(caption, tile) for caption, tile in tiles]), np.uint8)


def _mistakes(image: Image, truth: Image, labels: Image, ignore: int) -> Image:
    picture = np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)[..., None], 3, axis=2)
    picture[(labels != truth) & (truth != ignore)] = _WRONG_BGR
    return picture


def _captioned(text: str, tile: Image) -> Image:
    bar = np.full((_CAPTION_PX, tile.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, text, (6, _CAPTION_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (240, 240, 240), 1, cv2.LINE_AA)
    return np.asarray(cv2.vconcat([bar, tile]), np.uint8)


def strip(video: Path, count: int = 4, width: int = 480) -> Image | None:
    """``count`` frames spread over a video, side by side at ``width`` pixels each; None when it cannot be read."""
    capture = cv2.VideoCapture(str(video))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    tiles = []
    for index in np.linspace(0, max(total - 1, 0), count).astype(int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        good, frame = capture.read()
        if good:
            height = round(frame.shape[0] * width / frame.shape[1])
            tiles.append(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    capture.release()
    return np.asarray(cv2.hconcat(tiles), np.uint8) if tiles else None


def data_uri(picture: Image, quality: int = 85) -> str:
    """A JPEG of ``picture`` as a data: URI, so that a page is one file."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
