"""A segmenter without a network, and sources that misbehave on purpose."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from edgeseg_live.frames import Result
from edgeseg_live.sources import CorruptFrameError, Picture, SourceFactory

from edgeseg.manifest import ClassInfo, InputSpec, Manifest
from edgeseg.postprocess import LabelDecoder
from edgeseg.preprocess import Preprocessor

COLOURS = [(70, 130, 180), (128, 64, 128), (107, 142, 35), (220, 20, 60)]
NAMES = ["sky", "road", "tree", "car"]


def make_manifest(width: int = 96, height: int = 64) -> Manifest:
    """A model of four classes."""
    return Manifest(
        name="fake",
        classes=[ClassInfo(name=name, colour=colour) for name, colour in zip(NAMES, COLOURS, strict=True)],
        input=InputSpec(width=width, height=height, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    )


class FakeSegmenter:
    """Real pre- and postprocessing around a stand-in for the network: bright is sky, then car, tree, road by colour.

    ``infer_s`` is how long it takes; the GIL is free meanwhile, as it is in a native engine.
    """

    def __init__(self, width: int = 96, height: int = 64, infer_s: float = 0.0) -> None:
        self.manifest = make_manifest(width, height)
        self.infer_s = infer_s
        self._preprocess = Preprocessor(self.manifest.input)
        self._decode = LabelDecoder(self.manifest.output, len(NAMES))
        self.inferences = 0
        self.fail_at: int | None = None

    def allocate_input(self) -> np.ndarray:
        return self._preprocess.allocate()

    def allocate_output(self) -> np.ndarray:
        spec = self.manifest.input
        return np.empty((1, len(NAMES), spec.height // 2, spec.width // 2), np.float32)

    def preprocess(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return self._preprocess(frame, out)

    def infer(self, tensor: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = self.allocate_output() if out is None else out
        self.inferences += 1
        if self.fail_at == self.inferences:
            raise RuntimeError("the engine broke")
        if self.infer_s:
            time.sleep(self.infer_s)
        small = tensor[0, :, ::2, ::2]
        out[0, 0] = small.sum(axis=0)
        out[0, 1] = -small.sum(axis=0)
        out[0, 2] = small[1] * 2 - small[0] - small[2]
        out[0, 3] = small[0] * 2 - small[1] - small[2]
        return out

    def decode(self, output: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
        return self._decode(output, size, out)

    def __enter__(self) -> FakeSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""

    @property
    def session(self) -> FakeSegmenter:
        return self

    backend, precision = "fake", "fp32"


def picture(index: int, size: tuple[int, int] = (72, 128), media_ns: int | None = None) -> Picture:
    """A picture of (H, W) whose pixels tell its number in its first pixel."""
    image = np.zeros((*size, 3), np.uint8)
    image[: size[0] // 2] = (200, 120 + index % 100, 60)
    image[0, 0] = (index % 256, index // 256 % 256, 0)
    return Picture(image, media_ns)


def number_of(image: np.ndarray) -> int:
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


Step = Picture | Exception | float | threading.Event
"""What a scripted source does next: give a picture, raise, sleep, or hang until the event."""


class ScriptedSource:
    """Plays a list of steps; ``opening`` is played by ``open``."""

    def __init__(self, steps: Iterable[Step | None], live: bool, opening: Iterable[Step] = ()) -> None:
        self.live = live
        self._steps: Iterator[Step | None] = iter(steps)
        self._opening = list(opening)
        self.closed = False

    def open(self) -> None:
        for step in self._opening:
            self._play(step)

    def _play(self, step: Step | None) -> Picture | None:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            step.wait(30)
        elif isinstance(step, float):
            time.sleep(step)
        return step if isinstance(step, Picture) else None

    def read(self) -> Picture | None:
        for step in self._steps:
            if (found := self._play(step)) is not None:
                return found
            if step is None:
                return None
        return None

    def close(self) -> None:
        self.closed = True


def scripted(*scripts: Callable[[], ScriptedSource], live: bool = True) -> SourceFactory:
    """Each connection plays the next script; the last one is repeated."""
    endless = itertools.chain(scripts, itertools.repeat(scripts[-1]))
    return SourceFactory(lambda: next(endless)(), live, "scripted:")


def clip(count: int, size: tuple[int, int] = (72, 128), fps: float = 25.0) -> SourceFactory:
    """A recording of ``count`` pictures."""
    period = int(1e9 / fps)
    return scripted(lambda: ScriptedSource((picture(i, size, i * period) for i in range(count)), live=False), live=False)


class Keeper:
    """A sink that remembers what it saw; ``delay_s`` makes it slow."""

    shown = "keeper:"

    def __init__(self, lossless: bool = True, delay_s: float = 0.0, fail_at: int | None = None) -> None:
        self.lossless, self.delay_s, self.fail_at = lossless, delay_s, fail_at
        self.numbers: list[int] = []
        self.indices: list[int] = []
        self.captured_ns: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.labels: list[np.ndarray] = []
        self.opened = self.closed = self.aborted = 0

    def open(self, host: Any) -> None:
        self.opened += 1

    def write(self, result: Result) -> None:
        if self.fail_at is not None and len(self.numbers) + 1 == self.fail_at:
            raise OSError(28, "No space left on device")
        time.sleep(self.delay_s)
        self.numbers.append(number_of(result.frame.image))
        self.indices.append(result.frame.index)
        self.captured_ns.append(result.frame.capture_ns)
        self.sizes.append(result.frame.size)
        self.labels.append(result.labels[:2, :2].copy())

    def close(self) -> None:
        self.closed += 1

    def abort(self) -> None:
        self.aborted += 1

    def details(self) -> dict[str, Any]:
        return {}


CORRUPT = CorruptFrameError("damaged on purpose")
