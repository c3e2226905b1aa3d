"""The procedural street scenes as a source: a drive that never ends and needs no file."""

from __future__ import annotations

import numpy as np

from edgeseg.data.streets import CLIP_SEED, StreetScenes
from edgeseg.data.streets_world import FPS
from edgeseg.errors import SourceError
from edgeseg_live.frames import Image
from edgeseg_live.sources import Picture
from edgeseg_live.sources.v4l2 import parse_size
from edgeseg_live.uri import Uri


class SynthSource:
    """``synth:?size=WxH&fps=N&seed=S&loop=N``: 1280x720 at 30 by default. A picture depends on its time and the seed alone.

    ``loop`` draws so many pictures and then plays them over and over, which costs nothing. Seeds count from where no split
    of the ``streets`` data set has any.
    """

    live = False

    def __init__(self, uri: Uri) -> None:
        uri.only("size", "fps", "seed", "loop")
        if uri.rest not in ("", "streets"):
            raise SourceError(f"--source {uri.shown}: no scene {uri.rest!r}", "synth: or synth:streets", "use synth:")
        self._width, self._height = parse_size(uri, "1280x720") or (1280, 720)
        self._fps = uri.number("fps", FPS, 0.01, 1000)
        self._seed = CLIP_SEED + uri.integer("seed", 0, 0, 2**31 - 1)
        self._loop = uri.integer("loop", 0, 0, 1000)
        self._scenes: StreetScenes | None = None
        self._drawn: list[Image] = []
        self._next = 0

    def open(self) -> None:
        self._scenes = StreetScenes(self._width, self._height, self._seed)
        self._next, self._drawn = 0, []

    def _draw(self, scenes: StreetScenes, index: int) -> Image:
        if self._loop and index >= self._loop:
            return self._drawn[index % self._loop]
        image = np.asarray(scenes.render(round(index * FPS / self._fps)).image, np.uint8)
        if self._loop:
            self._drawn.append(image)
        return image

    def read(self) -> Picture | None:
        if self._scenes is None:
            return None
        index, self._next = self._next, self._next + 1
        return Picture(self._draw(self._scenes, index), int(index * 1e9 / self._fps))

    def close(self) -> None:
        self._scenes, self._drawn = None, []


def open_source(uri: Uri) -> SynthSource:
    return SynthSource(uri)
