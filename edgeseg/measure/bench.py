"""Latency of a built engine: alone, and from a camera frame to a label map."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.errors import EdgesegError
from edgeseg.measure.machine import machine_line, measurement

if TYPE_CHECKING:
    from edgeseg.folder import ModelFolder

_MIN_RUNS = 10


@dataclass(frozen=True)
class Latency:
    """Percentiles in milliseconds over ``runs`` timed runs."""

    p50: float
    p95: float
    p99: float
    mean: float
    min: float
    max: float
    runs: int


@dataclass(frozen=True)
class Benchmark:
    """Engine alone (input tensor to output tensor) and end to end (frame to label map); fps is the end-to-end rate."""

    engine_ms: Latency
    end_to_end_ms: Latency
    fps: float
    engine_fps: float
    backend: str
    precision: str
    threads: int
    frame_size: tuple[int, int]
    machine: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; "frame_size" is [width, height] in px."""
        return {**vars(self), "engine_ms": vars(self.engine_ms), "end_to_end_ms": vars(self.end_to_end_ms)}


def latency(times_ms: Sequence[float]) -> Latency:
    """Percentiles (linear interpolation) of a non-empty list of times."""
    p50, p95, p99 = (float(value) for value in np.percentile(times_ms, [50, 95, 99]))
    return Latency(p50, p95, p99, float(np.mean(times_ms)), float(np.min(times_ms)), float(np.max(times_ms)), len(times_ms))


def timed(
    call: Callable[[], object],
    duration_s: float,
    warmup_s: float,
    runs: int | None = None,
    tick: Callable[[float], object] | None = None,
) -> list[float]:
    """Milliseconds of each call, after a warm-up, for ``duration_s`` and at least ten calls, or for exactly ``runs``."""
    end = time.perf_counter() + warmup_s
    call()
    while time.perf_counter() < end:
        call()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < runs if runs else (len(times) < _MIN_RUNS or time.perf_counter() - begun < duration_s):
        started = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - started) / 1e6)
        if tick:
            tick(min(len(times) / runs if runs else (time.perf_counter() - begun) / duration_s, 1.0))
    return times


def bench(
    folder: ModelFolder,
    segmenter: Segmenter | Predictor,
    frames: Sequence[np.ndarray],
    *,
    threads: int,
    duration_s: float = 3.0,
    warmup_s: float = 0.5,
    runs: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Benchmark:
    """Time an opened engine and keep the figures in the manifest.

    Args:
        frames: (H, W, 3) uint8 BGR, taken in turns.
        runs: exactly so many timed runs of each kind, instead of ``duration_s`` seconds.
        progress: told the share done, 0..2: the engine alone is the first half.

    Raises:
        EdgesegError: no frames, or a duration or run count that is not positive.
    """
    if not frames or duration_s <= 0 or warmup_s < 0 or (runs is not None and runs < 1):
        raise EdgesegError(
            "nothing to time", "at least one frame and a positive duration or number of runs", "see `edgeseg bench --help`"
        )
    tell = progress or (lambda _: None)
    tensor = segmenter.preprocess(frames[0])
    out: Any = segmenter.allocate_output()  # whichever its own ``infer`` takes
    engine = latency(timed(lambda: segmenter.infer(tensor, out), duration_s, warmup_s, runs, tell))
    turns = itertools.cycle(frames)
    whole = latency(timed(lambda: segmenter(next(turns)), duration_s, warmup_s, runs, lambda share: tell(1 + share)))
    result = Benchmark(
        engine,
        whole,
        1e3 / whole.mean,
        1e3 / engine.mean,
        segmenter.session.backend,
        segmenter.session.precision,
        threads,
        (frames[0].shape[1], frames[0].shape[0]),
        machine_line(),
    )
    _keep(folder, result)
    return result


def _keep(folder: ModelFolder, result: Benchmark) -> None:
    values = {f"engine_{name}_ms": getattr(result.engine_ms, name) for name in ("p50", "p95", "p99")}
    values |= {f"end_to_end_{name}_ms": getattr(result.end_to_end_ms, name) for name in ("p50", "p95", "p99")}
    values |= {"fps": result.fps, "threads": float(result.threads)}
    what = f"frames {result.frame_size[0]}x{result.frame_size[1]}, threads {result.threads}"
    folder.add_measurement(measurement("bench", result.backend, result.precision, what, values))
