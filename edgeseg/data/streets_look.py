"""Light, weather and sensor of a procedural street: what makes two seeds of the same street look unlike."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.streets_view import Colour

_GRAIN_PX = 512  # the tile that grain repeats by


@dataclass(frozen=True)
class Look:
    """The choices of a seed.

    Attributes:
        sky_top, sky_bottom: colours of the sky, BGR.
        cloud: cover in 0..1.
        haze_m: distance at which 63% of a colour is lost to haze; haze_colour: what it is lost to.
        sun_side: side whose walls are in the sun; shadow: brightness of what is in shadow, 1 without sun.
        shadow_m: how far the buildings' shadow falls onto the street.
        lit: share of lit windows. asphalt, slabs: colours of road and pavement.
        gain: per-channel exposure. gamma, contrast, saturation: of the tone curve.
        noise: sigma of the sensor noise in levels. blur: sigma of the optics, share of the width. vignette: loss in the corners.
        focal: focal length over width. height_m: camera height.
        horizon: its place, share of the height. yaw: sideways shift, share of the width.
    """

    sky_top: Colour
    sky_bottom: Colour
    cloud: float
    haze_m: float
    haze_colour: Colour
    sun_side: int
    shadow: float
    shadow_m: float
    lit: float
    asphalt: Colour
    slabs: Colour
    gain: Colour
    gamma: float
    contrast: float
    saturation: float
    noise: float
    blur: float
    vignette: float
    focal: float
    height_m: float
    horizon: float
    yaw: float


# sky top, sky bottom, gain, sun probability, lit windows; all BGR.
_SKIES = (
    ((220, 160, 95), (245, 225, 200), (1.0, 1.0, 1.0), 0.9, 0.02),  # clear
    ((235, 235, 235), (252, 252, 250), (1.0, 1.0, 0.98), 0.35, 0.03),  # overexposed white
    ((165, 160, 155), (215, 212, 208), (0.92, 0.9, 0.88), 0.0, 0.08),  # overcast
    ((190, 150, 120), (150, 195, 245), (0.72, 0.86, 1.02), 0.8, 0.1),  # golden hour
    ((110, 74, 52), (120, 110, 135), (0.8, 0.68, 0.64), 0.0, 0.5),  # dusk
)
_SKY_ODDS = (0.32, 0.22, 0.22, 0.14, 0.1)


def make_look(rng: np.random.Generator) -> Look:
    """Draw a look."""
    top, bottom, gain, sun, lit = _SKIES[rng.choice(len(_SKIES), p=_SKY_ODDS)]
    sunny = rng.random() < sun
    shift = rng.normal(0, 8, 3)
    sky_bottom = np.clip(np.array(bottom) + shift, 0, 255)
    grey = rng.uniform(78, 130)
    tone = np.array(gain) * rng.uniform(0.85, 1.3) * np.exp(rng.normal(0, 0.05, 3))
    haze = 10 ** rng.uniform(2.0, 3.0) if rng.random() < 0.8 else rng.uniform(45, 100)
    return Look(
        sky_top=_bgr(np.clip(np.array(top) + shift, 0, 255)),
        sky_bottom=_bgr(sky_bottom),
        cloud=float(rng.uniform(0, 1)),
        haze_m=float(haze),
        haze_colour=_bgr(sky_bottom * 0.93),
        sun_side=int(rng.choice([-1, 1])),
        shadow=float(rng.uniform(0.45, 0.68)) if sunny else 1.0,
        shadow_m=float(rng.uniform(1, 11)),
        lit=lit,
        asphalt=_bgr(grey * np.array((1.02, 1.0, 0.98)) + rng.normal(0, 3, 3)),
        slabs=_bgr((grey + rng.uniform(8, 62)) * np.array((rng.uniform(0.86, 1.0), 0.97, 1.0)) + rng.normal(0, 4, 3)),
        gain=_bgr(tone),
        gamma=float(rng.uniform(0.7, 1.12)),
        contrast=float(rng.uniform(0.88, 1.2)),
        saturation=float(rng.uniform(0.6, 1.2)),
        noise=float(rng.uniform(1.0, 5.0)),
        blur=float(rng.uniform(0.0006, 0.0018)),
        vignette=float(rng.uniform(0, 0.3)),
        focal=float(rng.uniform(0.75, 1.2)),
        height_m=float(rng.uniform(1.15, 2.1)),
        horizon=float(rng.uniform(0.4, 0.56)),
        yaw=float(rng.uniform(-0.12, 0.12)),
    )


def _bgr(values: NDArray[np.float64]) -> Colour:
    b, g, r = (float(value) for value in values)
    return b, g, r


class Sensor:
    """Optics and sensor of one camera: blur, tone curve, saturation, vignette, noise."""

    def __init__(self, look: Look, width: int, height: int, rng: np.random.Generator) -> None:
        self._sigma = look.blur * width
        self._table = _tone_table(look)
        self._saturation = look.saturation
        self._grain = _make_grain(rng, look.noise, width, height)
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        loss = 1 - look.vignette * np.clip((x * x + y * y) / 2, 0, 1)
        self._vignette = cv2.merge([(loss * 255).astype(np.uint8)] * 3) if look.vignette > 0.05 else None

    def expose(self, picture: NDArray[np.uint8], frame: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 radiance to what the camera gives for frame number ``frame``."""
        if self._saturation != 1.0:
            luma = np.array([[0.114, 0.587, 0.299]] * 3) * (1 - self._saturation)
            picture = np.asarray(cv2.transform(picture, luma + np.eye(3) * self._saturation), np.uint8)
        if self._sigma > 0.3:
            picture = np.asarray(cv2.GaussianBlur(picture, (3, 3) if self._sigma < 0.9 else (5, 5), self._sigma), np.uint8)
        picture = np.asarray(cv2.LUT(picture, self._table), np.uint8)
        if self._vignette is not None:
            picture = np.asarray(cv2.multiply(picture, self._vignette, scale=1 / 255), np.uint8)
        height, width = picture.shape[:2]
        x, y = (frame * 37) % _GRAIN_PX, (frame * 53) % _GRAIN_PX
        grain = self._grain[y : y + height, x : x + width]
        return np.asarray(cv2.addWeighted(picture, 1.0, grain, 1.0, -128.0), np.uint8)


def _make_grain(rng: np.random.Generator, sigma: float, width: int, height: int) -> NDArray[np.uint8]:
    """Noise about 128, larger than the frame by a tile so that it can be shifted: coarse and coloured, fine and grey."""
    half, size = _GRAIN_PX // 2, _GRAIN_PX
    coarse = rng.standard_normal((half, half, 3), dtype=np.float32)
    coarse = coarse * 0.6 + coarse.mean(axis=2, keepdims=True)
    tile = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    tile = (tile + 0.5 * rng.standard_normal((size, size, 1), dtype=np.float32)) * sigma + 128
    return np.tile(np.clip(tile, 0, 255).astype(np.uint8), (height // size + 2, width // size + 2, 1))


def _tone_table(look: Look) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 1, 256)[:, None] * np.array(look.gain)
    curve = (np.clip(ramp, 0, None) ** look.gamma - 0.36) * look.contrast + 0.36
    return np.asarray(np.clip(curve * 255, 0, 255)[:, None], np.uint8)
