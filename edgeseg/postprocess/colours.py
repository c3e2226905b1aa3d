"""Class colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.manifest import ClassInfo


def palette_bgr(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """The colours of ``classes`` as (256, 3) uint8 BGR; labels without a class are black."""
    palette = np.zeros((256, 3), np.uint8)
    for label, item in enumerate(classes[:256]):
        palette[label] = item.colour[::-1]
    return palette


def colorize(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 labels to (H, W, 3) uint8 in the colours (and channel order) of ``palette`` (256, 3) uint8."""
    return np.take(palette, labels, axis=0)
