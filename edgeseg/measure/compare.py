"""How far the outputs of two backends or precisions lie apart on the same frames."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.engines.build import load_named
from edgeseg.errors import BackendError, EdgesegError
from edgeseg.preprocess import Preprocessor

if TYPE_CHECKING:
    from edgeseg.folder import ModelFolder


@dataclass(frozen=True)
class Difference:
    """Tensor ``b`` against reference ``a`` over all frames.

    max_rel is max|a - b| / max|a| of the frame that is worst; argmax_agreement is the share of pixels whose class
    agrees, at the network's output resolution (for outputs without a class axis: of values on the same side).
    """

    a: str
    b: str
    output: str
    max_abs: float
    max_rel: float
    argmax_agreement: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def classes_of(output: np.ndarray, threshold: float) -> np.ndarray:
    """Class per pixel of an output: argmax over axis 1 when it has several channels, else which side of ``threshold``."""
    if output.ndim == 4 and output.shape[1] > 1:
        return output.argmax(axis=1)
    return output if np.issubdtype(output.dtype, np.integer) else output > threshold


def tensor_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(max_abs, max_rel) of two arrays of one shape; infinite where only one of them is finite."""
    a64, b64 = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a.size:
        return 0.0, 0.0
    if not np.isfinite(a64).all() or not np.isfinite(b64).all():
        same = np.array_equal(a64, b64, equal_nan=True)
        return (0.0, 0.0) if same else (float("inf"), float("inf"))
    max_abs, scale = float(np.abs(a64 - b64).max()), float(np.abs(a64).max())
    return max_abs, max_abs / scale if scale else (0.0 if max_abs == 0 else float("inf"))


Outputs = dict[str, list[dict[str, np.ndarray]]]
"""What each engine ("backend/precision") gave: one dict of named arrays for each frame."""


def compare(
    folder: ModelFolder,
    pairs: Sequence[tuple[str, str]],
    frames: Sequence[np.ndarray],
    *,
    threads: int,
    progress: Callable[[str], None] | None = None,
) -> list[Difference]:
    """Every two of the (backend, precision) engines against each other, per output; the first of a pair is the reference.

    Raises:
        EdgesegError: fewer than two engines, or no frames.
    """
    check_enough(pairs, frames)
    return differences(folder, run_engines(folder, pairs, frames, threads=threads, progress=progress))


def check_enough(pairs: Sequence[tuple[str, str]], frames: Sequence[np.ndarray], least: int = 2) -> None:
    """Refuse fewer than ``least`` engines, or no frames, before any engine is built.

    Raises:
        EdgesegError: says how many there are.
    """
    if len(pairs) < least or not frames:
        many = "at least two engines" if least > 1 else "an engine"
        raise EdgesegError(f"{len(pairs)} engine(s), {len(frames)} frame(s)", f"{many} and one frame", "--backends ort,openvino")


def run_engines(
    folder: ModelFolder,
    pairs: Sequence[tuple[str, str]],
    frames: Sequence[np.ndarray],
    *,
    threads: int,
    progress: Callable[[str], None] | None = None,
) -> Outputs:
    """The outputs of each (backend, precision) engine on the frames, (H, W, 3) uint8 BGR."""
    outputs: Outputs = {}
    for backend, precision in pairs:
        if progress:
            progress(f"running {backend} {precision}")
        with contextlib.closing(load_named(folder, backend, precision, threads, progress)) as session:
            outputs[f"{backend}/{precision}"] = [session.run(feed) for feed in network_feeds(folder, frames, threads)]
    return outputs


def network_feeds(folder: ModelFolder, frames: Iterable[np.ndarray], threads: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """What the network is fed for each frame: its input's name -> (N, C, h, w) float32, the frame repeated N times."""
    spec, preprocess = folder.manifest.input, Preprocessor(folder.manifest.input, threads=threads)
    for frame in frames:
        yield {spec.name: np.repeat(preprocess(frame), spec.batch, axis=0)}


def differences(folder: ModelFolder, outputs: Outputs) -> list[Difference]:
    """Every two engines of ``run_engines`` against each other, in the order in which they ran."""
    threshold = _threshold(folder)
    return [
        _difference(a, b, name, outputs[a], outputs[b], threshold)
        for a, b in itertools.combinations(outputs, 2)
        for name in outputs[a][0]
        if name in outputs[b][0]
    ]


def _threshold(folder: ModelFolder) -> float:
    output = folder.manifest.output
    if output.kind != "logits":
        return output.threshold
    # On logits the probability's threshold is its logit.
    odds = output.threshold / max(1 - output.threshold, 1e-12)
    return float(np.log(max(odds, 1e-12)))


def _difference(
    a: str, b: str, name: str, left: Sequence[dict[str, np.ndarray]], right: Sequence[dict[str, np.ndarray]], threshold: float
) -> Difference:
    max_abs = max_rel = 0.0
    agreements = []
    for first, second in zip(left, right, strict=True):
        one, other = first[name], second[name]
        if one.shape != other.shape:
            raise BackendError(f"output {name!r}: {a} gives {one.shape}, {b} gives {other.shape}", "one shape")
        errors = tensor_difference(one, other)
        max_abs, max_rel = max(max_abs, errors[0]), max(max_rel, errors[1])
        agreements.append(np.mean(classes_of(one, threshold) == classes_of(other, threshold)))
    return Difference(a, b, name, max_abs, max_rel, float(np.mean(agreements)))
