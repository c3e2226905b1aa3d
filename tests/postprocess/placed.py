"""Manifests and placements that the tests of the decoders share."""

from __future__ import annotations

from typing import Any

from edgeseg.manifest import ClassInfo, InputSpec, Manifest, MergeSpec, OutputSpec
from edgeseg.scene import Placement

NAMES = ("person", "dog", "sky", "grass")
PERSON, DOG, SKY, GRASS = range(4)
CLASSES = [ClassInfo(name=name, colour=(60 * i, 200 - 50 * i, 90), thing=i < 2) for i, name in enumerate(NAMES)]


def manifest(kind: str, task: str, **changes: Any) -> Manifest:
    """Two things and two stuff classes; an input of 64 x 48 px."""
    given = {"classes": CLASSES, "merge": MergeSpec(stuff_area=0), **changes}
    spec = InputSpec(width=64, height=48, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Manifest(name="m", task=task, input=spec, output=OutputSpec(kind=kind), **given)  # type: ignore[arg-type]


def stretched(height: int = 48, width: int = 64) -> Placement:
    """A frame that fills the input."""
    return Placement((height, width), (48, 64), 64 / width, 48 / height)


def letterboxed(height: int, width: int) -> Placement:
    """A frame at one scale at the top left of the input."""
    scale = min(48 / height, 64 / width)
    return Placement((height, width), (48, 64), scale, scale)
