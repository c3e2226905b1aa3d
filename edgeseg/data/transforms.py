"""Random scale, crop, flip and colour for training: one generator per frame, so the order of workers changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE
from edgeseg.errors import DataError

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Augment:
    """A random view of a frame at the crop size.

    Args:
        crop: (height, width) of what comes out, pixels.
        scale: range of the zoom, drawn log-uniformly.
        aspect: largest change of the aspect ratio, as a factor.
        flip: whether to mirror half of the frames.
        colour: strength of brightness, contrast, saturation, hue and gamma changes; 0 switches them off.
        base: (height, width) that zoom 1 means, or None for the frame's own size.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    aspect: float = 1.1
    flip: bool = True
    colour: float = 0.4
    base: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise DataError(f"scale range {self.scale}", "0 < low <= high")

    def __call__(self, image: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        """(H, W, 3) and (H, W) uint8 in, crop-sized pair out; uncovered pixels are grey and ignored."""
        image, labels = self._zoom(image, labels, rng)
        if self.flip and rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.colour:
            image = jitter_colour(image, self.colour, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)

    def _zoom(self, image: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        # Scale and crop are one affine map, so only the pixels of the crop are computed.
        height, width = image.shape[:2]
        base_h, base_w = self.base or (height, width)
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        stretch = np.exp(rng.uniform(-np.log(self.aspect), np.log(self.aspect)) / 2)
        sx, sy = base_w / width * zoom * stretch, base_h / height * zoom / stretch
        left = _offset(width * sx, self.crop[1], rng)
        top = _offset(height * sy, self.crop[0], rng)
        # Half-pixel centres: x_out + 0.5 = (x_in + 0.5) * s - left.
        matrix = np.array([[sx, 0, sx / 2 - 0.5 - left], [0, sy, sy / 2 - 0.5 - top]])
        size = (self.crop[1], self.crop[0])
        if max(sx, sy) < 0.7:  # bilinear sampling aliases when it skips pixels
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / min(sx, sy)), np.uint8)
        out = cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(114, 114, 114)
        )
        marks = cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE)
        return np.asarray(out, np.uint8), np.asarray(marks, np.uint8)


def _offset(size: float, crop: int, rng: np.random.Generator) -> float:
    """Left or top edge of the crop inside (or, where the picture is smaller, outside) the scaled picture."""
    slack = size - crop
    return float(rng.uniform(min(slack, 0), max(slack, 0)))


def jitter_colour(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast and gamma by one table; saturation and hue in a luma-chroma rotation; (H, W, 3) uint8."""
    gain, contrast = np.exp(rng.uniform(-strength, strength, 2))
    gamma = np.exp(rng.uniform(-strength, strength) * 0.7)
    tint = np.exp(rng.uniform(-strength, strength, 3) * 0.25)
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma
    table = ((ramp * gain - 0.45) * contrast + 0.45) * tint
    image = np.asarray(cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8)[:, None]), np.uint8)
    return _rotate_chroma(image, np.exp(rng.uniform(-strength, strength)), rng.uniform(-strength, strength) * 0.4)


def _rotate_chroma(image: NDArray[np.uint8], saturation: float, angle: float) -> NDArray[np.uint8]:
    """Scale and turn the colour plane about the grey axis: one 3x3 matrix on BGR."""
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = grey + saturation * (np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * axis)
    return np.asarray(cv2.transform(image, turn), np.uint8)
