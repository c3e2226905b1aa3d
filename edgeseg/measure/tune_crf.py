"""The parameters of a dense CRF, found on validation frames: a coarse search, then a finer one around its best.

So the papers do it (Kraehenbuehl and Koltun, NIPS 2011, section 5; DeepLab, ICLR 2015, section 5.1). The network runs once on each
frame; its scores are kept, and each trial is inference in the CRF alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.errors import BackendError, DataError
from edgeseg.manifest import CrfSpec
from edgeseg.measure.samples import Pictures, open_labelled, unseen
from edgeseg.metrics.boundary import BoundaryF1
from edgeseg.metrics.semantic import ConfusionMatrix
from edgeseg.postprocess.decode import LabelDecoder
from edgeseg.postprocess.dense_crf import DenseCrf
from edgeseg.postprocess.placing import visible

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset
    from edgeseg.folder import ModelFolder
    from edgeseg.manifest import Manifest

METRICS = ("mean_iou", "boundary_f1")
ITERATIONS = 10
"""Mean-field steps of every trial; the papers' number."""
RANGES = {"w1": (1.0, 20.0), "sigma_alpha": (0.02, 0.25), "sigma_beta": (2.0, 40.0), "w2": (0.3, 10.0), "sigma_gamma": (0.5, 4.0)}
"""What the coarse search draws from, evenly in the logarithm; sigma_alpha in shares of the frame's diagonal."""
_MEASURED_WITHOUT = ("eval", "bench")


@dataclass(frozen=True)
class Trial:
    """One set of parameters and what came of it; ``crf`` None is the network alone."""

    crf: CrfSpec | None
    mean_iou: float
    boundary_f1: float


@dataclass(frozen=True)
class Tuning:
    """All trials, the best first.

    Attributes:
        baseline: the network alone.
        kept: whether the best beats the baseline and was written to the manifest.
    """

    metric: str
    baseline: Trial
    trials: list[Trial]
    kept: bool
    data: str
    split: str
    images: int
    skipped: int
    backend: str
    precision: str

    @property
    def best(self) -> Trial:
        return self.trials[0]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "best": self.best}


@dataclass(frozen=True)
class _Frame:
    image: NDArray[np.uint8]
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]


class _Labeller(Protocol):
    def __call__(self, frame: _Frame) -> NDArray[np.uint8]: ...


def tune_crf(
    folder: ModelFolder,
    predictor: Segmenter | Predictor,
    data: str | None = None,
    split: str = "val",
    images: int = 20,
    trials: int = 40,
    *,
    metric: str = "mean_iou",
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Tuning:
    """Search the parameters that are best on a split; write them to the manifest if they beat the network alone.

    Args:
        predictor: over an engine of this folder.
        images: at most so many frames, spread evenly.
        trials: sets of parameters, two thirds of them drawn from ``RANGES``, the rest around the best so far.
        metric: one of ``METRICS``.
        seed: of the draws; the same seed gives the same search.
        progress: told how many frames went through the network or a trial so far, of images * (trials + 2).

    Raises:
        BackendError: the model gives no scores of pixels, or more than one label map.
        DataError: no data, other classes, the test split, too many unreadable pictures, or pictures that int8 calibration saw.
    """
    manifest = folder.manifest
    _check(manifest, split, metric)
    name, dataset, indices = open_labelled(folder, data, split, images)
    counted = _Counter(progress or (lambda _: None))
    frames = _frames(folder, predictor, dataset, indices, counted)
    plain = LabelDecoder(manifest.output, len(manifest.classes), threads)
    baseline = _trial(manifest, frames, None, lambda frame: plain(frame.scores, _size(frame)), counted)
    tried = [baseline]
    for spec in _search(tried, metric, manifest.crf, _diagonal(frames), trials, np.random.default_rng(seed)):
        crf = DenseCrf(spec, threads, manifest.output)
        tried.append(_trial(manifest, frames, spec, lambda frame, crf=crf: crf(frame.image, frame.scores), counted))  # type: ignore[misc]
    ranked = sorted(tried[1:], key=lambda trial: -_value(trial, metric))
    kept = bool(_value(ranked[0], metric) > _value(baseline, metric))
    if kept:
        left = [item for item in manifest.measurements if item.what not in _MEASURED_WITHOUT]
        folder.update(crf=ranked[0].crf, measurements=left)
    session = predictor.session
    skipped = len(indices) - len(frames)
    return Tuning(metric, baseline, ranked, kept, name, split, len(frames), skipped, session.backend, session.precision)


def _check(manifest: Manifest, split: str, metric: str) -> None:
    if metric not in METRICS:
        raise DataError(f"metric {metric!r}", " or ".join(METRICS))
    if split == "test":
        raise DataError("tuning on the test split", "a split that no accuracy is told of", "--split val")
    if manifest.output.kind not in ("logits", "softmax", "sigmoid") or manifest.spaces or manifest.tile is not None:
        what = f"{manifest.name}: a dense CRF behind output {manifest.output.kind}"
        more = " in tiles" if manifest.tile is not None else " of several label spaces" if manifest.spaces else ""
        raise BackendError(what + more, "scores of pixels in one label space, of whole frames", "tune a semantic model")


class _Counter:
    """Counts frames over all stages for the progress bar."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        self._tell, self._done = tell, 0

    def advance(self) -> None:
        self._done += 1
        self._tell(self._done)


def _frames(
    folder: ModelFolder, predictor: Segmenter | Predictor, dataset: Dataset, indices: list[int], counted: _Counter
) -> list[_Frame]:
    frames = []
    for sample in unseen(folder, Pictures(dataset, indices), predictor.session.precision):
        output = predictor.infer(predictor.preprocess(sample.image))
        array = output[folder.manifest.output.name] if isinstance(output, dict) else output
        placement = predictor.preprocessor.placement((sample.image.shape[0], sample.image.shape[1]))
        scores = np.array(visible(array, placement)[0], np.float32)  # a copy: sessions use their memory again
        frames.append(_Frame(np.ascontiguousarray(sample.image[..., :3]), scores, sample.labels))
        counted.advance()
    return frames


def _trial(manifest: Manifest, frames: list[_Frame], spec: CrfSpec | None, label: _Labeller, counted: _Counter) -> Trial:
    count, ignore = len(manifest.classes), manifest.ignore_label
    areas, lines = ConfusionMatrix(count, ignore), BoundaryF1(count, ignore)
    for frame in frames:
        found = label(frame)
        areas.update(found, frame.labels)
        lines.update(found, frame.labels)
        counted.advance()
    return Trial(spec, areas.mean_iou, lines.summary()["boundary_f1"])


def _value(trial: Trial, metric: str) -> float:
    value = float(getattr(trial, metric))
    return value if math.isfinite(value) else -1.0


def _size(frame: _Frame) -> tuple[int, int]:
    return frame.image.shape[0], frame.image.shape[1]


def _diagonal(frames: list[_Frame]) -> float:
    return float(np.median([math.hypot(*_size(frame)) for frame in frames]))


def _search(
    tried: list[Trial], metric: str, known: CrfSpec | None, diagonal: float, count: int, rng: np.random.Generator
) -> Iterator[CrfSpec]:
    """``count`` sets of parameters; those of the second stage follow from what was tried until then."""
    first = [spec for spec in (known, CrfSpec(iterations=ITERATIONS)) if spec is not None][:count]
    yield from first
    coarse = max(0, count * 2 // 3 - len(first))
    for _ in range(coarse):
        drawn = {name: math.exp(rng.uniform(math.log(low), math.log(high))) for name, (low, high) in RANGES.items()}
        yield _spec({**drawn, "sigma_alpha": drawn["sigma_alpha"] * diagonal})
    fine = count - len(first) - coarse
    for step in range(fine):
        best = max(tried[1:], key=lambda trial: _value(trial, metric)).crf
        assert best is not None
        width = 0.5 * (1 - step / fine) + 0.05  # of the logarithm: a factor of 1.7 at first, 1.05 at last
        yield _spec({name: getattr(best, name) * math.exp(rng.normal(0, width)) for name in RANGES})


def _spec(values: dict[str, float]) -> CrfSpec:
    # Three digits say all that such a search can know.
    return CrfSpec(**{name: float(f"{value:.3g}") for name, value in values.items()}, iterations=ITERATIONS)
