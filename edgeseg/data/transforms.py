"""Random scale, crop, flip, elastic deformation and colour for training.

One generator per frame, so the order of workers changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Sample
from edgeseg.data.warp import Warp
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
        colour: strength of brightness, contrast, saturation, hue and gamma changes of the first three channels; 0 switches
            them off.
        base: (height, width) that zoom 1 means, or None for the frame's own size.
        keep_aspect: zoom 1 fits the frame into ``base`` instead of stretching it.
        elastic: deviation, px, of the random displacements on a 3x3 grid (U-Net, section 3.1, has 10 on 512 px tiles).
        keypoint_flip: the counterpart of each keypoint in a mirrored frame.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    aspect: float = 1.1
    flip: bool = True
    colour: float = 0.4
    base: tuple[int, int] | None = None
    keep_aspect: bool = False
    elastic: float = 0.0
    keypoint_flip: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise DataError(f"scale range {self.scale}", "0 < low <= high")

    def __call__(self, image: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        """(H, W, C) and (H, W) uint8 in, crop-sized pair out; uncovered pixels are grey and ignored."""
        out = self.view(Sample(image, labels, ""), rng)
        return out.image, out.labels

    def view(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with everything in it moved alike; instances that leave the crop are dropped, segments are not kept."""
        warp = self._warp((sample.image.shape[0], sample.image.shape[1]), rng)
        flipped = self.flip and rng.random() < 0.5
        if flipped:
            warp = dataclasses.replace(warp, mirrored=True)
        if self.elastic:
            warp = dataclasses.replace(warp, shift=elastic_field(self.crop, self.elastic, rng))
        image = warp.picture(sample.image)
        if self.colour:
            image = _jitter(image, self.colour, rng)
        return Sample(
            np.ascontiguousarray(image),
            np.ascontiguousarray(warp.labels(sample.labels, IGNORE)),
            sample.id,
            warp.instances(sample.instances, self.keypoint_flip) if sample.instances is not None else None,
            None,
            tuple(np.ascontiguousarray(warp.labels(space, IGNORE)) for space in sample.spaces),
        )

    def _warp(self, size: tuple[int, int], rng: np.random.Generator) -> Warp:
        # Scale and crop are one affine map, so only the pixels of the crop are computed.
        height, width = size
        base_h, base_w = self.base or size
        if self.keep_aspect:
            fit = min(base_h / height, base_w / width)
            base_h, base_w = height * fit, width * fit  # type: ignore[assignment]
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        stretch = np.exp(rng.uniform(-np.log(self.aspect), np.log(self.aspect)) / 2)
        sx, sy = base_w / width * zoom * stretch, base_h / height * zoom / stretch
        left = _offset(width * sx, self.crop[1], rng)
        top = _offset(height * sy, self.crop[0], rng)
        return Warp(float(sx), float(sy), left, top, self.crop)


def _offset(size: float, crop: int, rng: np.random.Generator) -> float:
    """Left or top edge of the crop inside (or, where the picture is smaller, outside) the scaled picture."""
    slack = size - crop
    return float(rng.uniform(min(slack, 0), max(slack, 0)))


def elastic_field(size: tuple[int, int], deviation: float, rng: np.random.Generator, grid: int = 3) -> NDArray[np.float32]:
    """Displacements (H, W, 2) float32 in px: normal on a coarse grid, bicubic between (Ronneberger et al. 2015, section 3.1)."""
    coarse = rng.normal(0, deviation, (grid, grid, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _jitter(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    if image.shape[2] == 3:
        return jitter_colour(image, strength, rng)
    colours = jitter_colour(np.ascontiguousarray(image[..., :3]), strength, rng)
    return np.concatenate([colours, image[..., 3:]], axis=2)


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
