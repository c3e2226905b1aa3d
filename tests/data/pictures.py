"""Pictures and label files for tests of loaders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

BGR = (10, 60, 200)


def picture(path: Path, height: int, width: int) -> None:
    """A picture of one colour, ``BGR``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), BGR, np.uint8))


def mask(path: Path, labels: np.ndarray) -> None:
    """A grey PNG of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), labels)


def coloured(path: Path, colours: np.ndarray) -> None:
    """An RGB PNG of (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(colours, np.uint8)).save(path)
