"""``auto``: measure every installed backend in every wanted precision and keep the fastest whose accuracy holds."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.data.streets import StreetScenes
from edgeseg.engines.build import load_named
from edgeseg.engines.cache import CHOICE, cache_lock
from edgeseg.engines.keys import engine_fields
from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.engines.serving import open_predictor
from edgeseg.engines.session import PRECISIONS, Frames, Progress, check_precision, get_backend, installed, not_runnable
from edgeseg.errors import BackendError, EdgesegError
from edgeseg.files import sha256_json, write_json
from edgeseg.folder import RANGES, ModelFolder
from edgeseg.metrics import headline
from edgeseg.postprocess.decoder import class_map
from edgeseg.scene import Prediction

AGREEMENT = {"fp32": 0.999, "bf16": 0.985, "fp16": 0.99, "int8": 0.97}
"""Least share of pixels whose class must agree with ONNX Runtime in float32 for a precision to be chosen."""

FOREIGN = {"fp32": 0.999, "bf16": 0.95, "fp16": 0.95, "int8": 0.9}
"""The same on frames that are not the model's own: there many pixels are undecided, and only a broken engine shows."""

MAX_DROP = 0.01
"""Most mIoU that a precision may have lost by the figures in model.json; they count before any agreement."""

_ROUNDS, _RUNS, _FRAMES = 5, 4, 4


@dataclass(frozen=True)
class Candidate:
    """One backend and precision as measured: median engine latency, and agreement with the float32 reference."""

    backend: str
    precision: str
    latency_ms: float
    argmax_agreement: float
    holds: bool


def choose(
    folder: ModelFolder,
    backend: str,
    precision: str,
    threads: int,
    progress: Progress | None = None,
    frames: Frames | None = None,
) -> tuple[str, str]:
    """The (backend, precision) to use here: as recorded in the folder while nothing it rests on changed, else measured.

    Raises:
        BackendError: nothing that was asked for runs here and keeps the accuracy; says how near each came.
    """
    wanted = _wanted(folder, backend, precision)
    reasons = [f"{name} {kind}: {reason}" for name, kind in wanted if (reason := _refusal(name, kind))]
    usable = [pair for pair in wanted if not _refusal(*pair)]
    if not usable:
        raise BackendError(f"nothing here runs {precision} on backend {backend}: {'; '.join(reasons)}", fix="see `edgeseg doctor`")
    basis = {f"{name}/{kind}": engine_fields(folder, get_backend(name), kind, threads) for name, kind in usable}
    stamp = sha256_json(basis)
    if recorded := _recorded(folder, stamp):
        return recorded
    measured = measure(folder, usable, threads, progress, frames)
    good = [item for item in measured if item.holds]
    if not good:
        raise _nothing_holds(folder, measured)
    best = min(good, key=lambda item: item.latency_ms)
    _record(folder, stamp, best, measured)
    return best.backend, best.precision


def _wanted(folder: ModelFolder, backend: str, precision: str) -> list[tuple[str, str]]:
    backends = installed() if backend == "auto" else [get_backend(backend).NAME]
    if backend != "auto" and (reason := not_runnable(get_backend(backend))):
        fix = f"name it: --backend {backend} --precision fp16"
        raise BackendError(f"{backend} engines can be built here but not measured ({reason})", "a precision by name", fix)
    calibrated = RANGES in folder.manifest.files
    if precision != "auto":
        # Torch is the reference, slow on a CPU and absent from devices: it serves only when asked for by name.
        return [(name, precision) for name in backends if name != "torch" or backend == "torch"]
    kinds = [kind for kind in PRECISIONS if kind != "int8" or calibrated]
    return [(name, kind) for name in backends for kind in kinds if name != "torch" or backend == "torch"]


def _refusal(backend: str, precision: str) -> str:
    try:
        check_precision(get_backend(backend), precision)
    except BackendError as error:
        return error.what
    return ""


def measure(
    folder: ModelFolder,
    pairs: Sequence[tuple[str, str]],
    threads: int,
    progress: Progress | None = None,
    frames: Frames | None = None,
) -> list[Candidate]:
    """Build and measure each (backend, precision): engine latency in turns, so that a busy moment hits all alike."""
    tell = progress or (lambda _: None)
    pictures = list(frames()) if frames else street_frames(folder)
    bounds = AGREEMENT if frames else FOREIGN
    reference = _reference_labels(folder, threads, pictures)
    segmenters: dict[tuple[str, str], Segmenter | Predictor] = {}
    failures: list[EdgesegError] = []
    for name, kind in pairs:
        try:
            segmenters[name, kind] = open_predictor(load_named(folder, name, kind, threads, tell), folder.manifest, threads)
        except EdgesegError as error:
            tell(f"{name} {kind} is left out: {error}")
            failures.append(error)
    if not segmenters:
        raise failures[0]
    tell(f"measuring {', '.join(f'{name} {kind}' for name, kind in segmenters)}")
    agreements = {pair: _agreement(segmenter, pictures, reference) for pair, segmenter in segmenters.items()}
    latencies = _latencies(segmenters, pictures[0])
    for segmenter in segmenters.values():
        segmenter.close()
    return [
        Candidate(*pair, latencies[pair], agreements[pair], _holds(folder, *pair, agreements[pair], bounds[pair[1]]))
        for pair in segmenters
    ]


def street_frames(folder: ModelFolder, count: int = _FRAMES) -> list[np.ndarray]:
    """Drawn street scenes of the model's size: pictures with the statistics of pictures, for want of the model's own.

    Depth planes, which streets have none of, are those of an even slope.
    """
    spec = folder.manifest.input
    width, height = max(spec.width, 32), max(spec.height, 32)
    frames = [StreetScenes(width, height, seed).render(0).image for seed in range(count)]
    if (planes := spec.channels - 3) > 0:
        slope = np.repeat(np.linspace(40, 220, height).astype(np.uint8)[:, None], width, 1)
        frames = [np.dstack([frame, *[slope] * planes]) for frame in frames]
    return frames


def _holds(folder: ModelFolder, backend: str, precision: str, agreement: float, bound: float) -> bool:
    drop = measured_drop(folder, backend, precision)
    return agreement >= bound if drop is None else drop <= MAX_DROP


def measured_drop(folder: ModelFolder, backend: str, precision: str) -> float | None:
    """What `edgeseg eval` found this engine to lose of mIoU, AP or PQ (0..1) against float32, at worst; None if not measured."""
    figure = headline(folder.manifest)
    scores = {
        (item.backend, item.precision, item.data): item.values[figure]
        for item in folder.manifest.measurements
        # Ranges are written differently for other architectures, so their figures say nothing here.
        if item.what == "eval" and figure in item.values and platform.machine() in item.machine
    }
    drops = [
        max(full) - score
        for (name, kind, data), score in scores.items()
        if (name, kind) == (backend, precision)
        and (full := [value for (_, other, where), value in scores.items() if other == "fp32" and where == data])
    ]
    return max(drops, default=None)


def _reference_labels(folder: ModelFolder, threads: int, frames: Sequence[np.ndarray]) -> list[Prediction]:
    name = "ort" if "ort" in installed() else installed()[0]
    with open_predictor(load_named(folder, name, "fp32", threads), folder.manifest, threads) as reference:
        return [reference(frame) for frame in frames]


def _agreement(segmenter: Segmenter | Predictor, frames: Sequence[np.ndarray], reference: Sequence[Prediction]) -> float:
    """Share of pixels whose class is the reference's, whatever the task."""
    return float(
        np.mean([_same(segmenter(frame), expected, frame.shape[:2]) for frame, expected in zip(frames, reference, strict=True)])
    )


def _same(found: Prediction, expected: Prediction, size: tuple[int, int]) -> float:
    if isinstance(found, list) and isinstance(expected, list):
        return float(np.mean([np.mean(one == other) for one, other in zip(found, expected, strict=True)]))
    return float(np.mean(class_map(found, size) == class_map(expected, size)))


def _latencies(segmenters: dict[tuple[str, str], Segmenter | Predictor], frame: np.ndarray) -> dict[tuple[str, str], float]:
    times: dict[tuple[str, str], list[float]] = {pair: [] for pair in segmenters}
    buffers: dict[tuple[str, str], tuple[np.ndarray, Any]] = {
        pair: (item.preprocess(frame), item.allocate_output()) for pair, item in segmenters.items()
    }
    for _ in range(_ROUNDS):
        for pair, segmenter in segmenters.items():
            tensor, out = buffers[pair]
            segmenter.infer(tensor, out)  # the first run after another engine finds cold caches
            for _ in range(_RUNS):
                started = time.perf_counter_ns()
                segmenter.infer(tensor, out)
                times[pair].append((time.perf_counter_ns() - started) / 1e6)
    return {pair: float(np.median(values)) for pair, values in times.items()}


def _nothing_holds(folder: ModelFolder, measured: Sequence[Candidate]) -> BackendError:
    rows = "; ".join(f"{item.backend} {item.precision} agrees on {item.argmax_agreement:.2%}" for item in measured)
    kind = measured[0].precision
    return BackendError(
        f"no engine keeps the accuracy: {rows}",
        f"at least {AGREEMENT[kind]:.1%} of pixels as in float32, or {FOREIGN[kind]:.1%} on frames that are not the model's own",
        f"`edgeseg build {folder.path} --data DATA` judges on its own frames; else `edgeseg calibrate` with more images or another "
        "--method, or --precision fp32",
    )


def recorded_choices(folder: ModelFolder) -> list[dict[str, Any]]:
    """What ``auto`` chose in this folder, newest last: {"stamp", "backend", "precision", "candidates"}."""
    try:
        choices = json.loads((folder.engines / CHOICE).read_bytes())["choices"]
        return [item for item in choices if {"stamp", "backend", "precision", "candidates"} <= item.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _recorded(folder: ModelFolder, stamp: str) -> tuple[str, str] | None:
    for item in recorded_choices(folder):
        if item["stamp"] == stamp:
            return str(item["backend"]), str(item["precision"])
    return None


def _record(folder: ModelFolder, stamp: str, best: Candidate, measured: Sequence[Candidate]) -> None:
    entry = {"stamp": stamp, "backend": best.backend, "precision": best.precision, "candidates": [vars(item) for item in measured]}
    with cache_lock(folder):
        kept = [item for item in recorded_choices(folder) if item["stamp"] != stamp][-15:]
        write_json(folder.engines / CHOICE, {"choices": [*kept, entry]})
