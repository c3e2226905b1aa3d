"""Rooms: patterns on surfaces, light, and what a sensor makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.rooms_view import Floats

Colour = tuple[float, float, float]
"""B, G, R in 0..1."""
Pattern = Literal["plain", "stripes", "bands", "checks", "bricks", "frame"]
_TILE = 64


@dataclass(frozen=True)
class Texture:
    """A pattern of two colours over surface coordinates in metres.

    Attributes:
        size: metres of one repetition.
        grain: strength of the irregularity, 0..1.
        glow: light of its own, as a share of the colour.
    """

    first: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: Pattern = "plain"
    size: float = 0.3
    grain: float = 0.1
    glow: float = 0.0

    def paint(self, u: Floats, v: Floats, grain: Floats) -> Floats:
        """(3, n) colours at surface coordinates (n); ``grain`` is the tile of ``make_grain``."""
        colour = np.asarray(self.first, np.float32)[:, None]
        if self.pattern != "plain":
            colour = np.where(self._second(u, v), np.asarray(self.second, np.float32)[:, None], colour)
        scale = np.float32(_TILE / 1.7)
        rows, columns = (v * scale).astype(np.int32) % _TILE, (u * scale).astype(np.int32) % _TILE
        return np.asarray(colour * (1 + np.float32(self.grain) * grain[rows, columns]), np.float32)

    def _second(self, u: Floats, v: Floats) -> NDArray[np.bool_]:
        a, b = u / np.float32(self.size), v / np.float32(self.size)
        if self.pattern == "stripes":
            return a % 1 < 0.4
        if self.pattern == "bands":
            return b % 1 < 0.4
        if self.pattern == "checks":
            return (np.floor(a) + np.floor(b)) % 2 == 0
        row = np.floor(b * 2)
        if self.pattern == "bricks":
            return (b * 2 - row < 0.12) | ((a + row / 2) % 1 < 0.05)
        return (np.abs(a % 1 - 0.5) > 0.42) | (np.abs(b % 1 - 0.5) > 0.42)


def make_grain(rng: np.random.Generator) -> Floats:
    """A tile (64, 64) float32 of smooth irregularity, about -1..1, that repeats without a seam."""
    coarse = rng.standard_normal((_TILE // 8, _TILE // 8), dtype=np.float32)
    fine = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
    wrapped = np.pad(coarse, 1, mode="wrap")
    large = cv2.resize(wrapped, None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)[8:-8, 8:-8]
    return np.clip(large * 0.6 + fine * 0.25, -1.5, 1.5).astype(np.float32)


@dataclass(frozen=True)
class Light:
    """A lamp below the ceiling and what the walls scatter.

    Attributes:
        place: (3) world.
        strength: of the lamp, falling with distance.
        ambient: the same everywhere.
        tint: of both.
    """

    place: Floats
    strength: float
    ambient: float
    tint: Colour


def make_light(rng: np.random.Generator, size: tuple[float, float, float]) -> Light:
    """Light for a room of width, height and length in metres."""
    width, height, length = size
    place = np.array(
        [rng.uniform(-0.35, 0.35) * width, height - rng.uniform(0.05, 0.4), rng.uniform(0.2, 0.8) * length], np.float32
    )
    warm = rng.uniform(-0.12, 0.12)
    return Light(place, float(rng.uniform(0.6, 1.05)), float(rng.uniform(0.38, 0.62)), (1 - warm, 1.0, 1 + warm))


@dataclass(frozen=True)
class Sensor:
    """What a camera makes of light.

    Attributes:
        gain: brightness.
        gamma: of the response.
        noise: deviation in grey levels.
        dark: next to no light: few photons a pixel, amplified, so that colours say little.
    """

    gain: float
    gamma: float
    noise: float
    dark: bool

    @classmethod
    def make(cls, rng: np.random.Generator, dark: bool) -> Sensor:
        return cls(float(rng.uniform(0.85, 1.25)), float(rng.uniform(0.75, 1.1)), float(rng.uniform(1.5, 6.0)), dark)

    def expose(self, light: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR of light (H, W, 3) float32 in 0..1."""
        if self.dark:
            return self._in_the_dark(light, rng)
        # Optics blur edges a little; without it they would be sharper than any camera gives.
        soft = cv2.GaussianBlur(light, (0, 0), 0.5)
        picture = 255 * np.power(np.clip(soft * np.float32(self.gain), 0, 1), np.float32(self.gamma))
        picture += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(self.noise)
        return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)

    def _in_the_dark(self, light: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
        photons, read_noise = 3.0 * self.gain, 2.2
        signal = np.clip(light, 0, 1) * np.float32(photons)
        # Poisson's deviation is the root of the mean; for so few photons the read noise hides its shape.
        deviation = np.sqrt(signal + np.float32(read_noise**2))
        seen = signal + rng.standard_normal(light.shape, dtype=np.float32) * deviation
        return np.clip(seen * 12 + 30, 0, 255).astype(np.uint8)
