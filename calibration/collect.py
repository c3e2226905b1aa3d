"""Observing activations: one pass over the images, memory that does not grow with their number."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from calibration import methods
from calibration.errors import CalibrationError
from calibration.graph import graph_sha256, index
from calibration.histogram import Histogram, extremes
from calibration.placement import observed
from calibration.ranges import Ranges

FEW_IMAGES = 100
Batch = dict[str, np.ndarray]


@dataclass
class Observations:
    """What was seen of every tensor that some profile could quantise; any range method can be applied to it afterwards.

    Attributes:
        tensors: tensor name -> histogram (its counts are empty when only extremes were asked for).
        images: number of images seen.
        sha256: digest of the arrays fed.
    """

    graph_sha256: str
    tensors: dict[str, Histogram] = field(default_factory=dict)
    images: int = 0
    batches: int = 0
    sha256: str = ""

    def ranges(self, method: str = "entropy", percentile: float = 99.99) -> Ranges:
        """Apply a range method to every histogram."""
        find = methods.resolve(method, percentile)
        data = {"sha256": self.sha256, "batches": self.batches}
        if method == "percentile":
            data["percentile"] = percentile
        found = Ranges(self.graph_sha256, method, self.images, data)
        found.tensors = {name: _rounded(find(histogram)) for name, histogram in self.tensors.items()}
        if self.images < FEW_IMAGES:
            found.warnings.append(f"only {self.images} images: ranges settle with {FEW_IMAGES} or more")
        return found


def collect(
    model: ModelProto,
    batches: Iterable[Batch],
    method: str = "entropy",
    percentile: float = 99.99,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """Ranges of the activations of ``model``, which :func:`calibration.prepare` has made.

    Args:
        batches: graph input name -> array, as the graph takes them; the first axis counts images. Read once.
        method: minmax, percentile, entropy or mse.
        percentile: percent of the values kept, for that method.
        progress: called after each batch with the number of images seen so far.

    Raises:
        CalibrationError: no batch, a batch that does not fit, NaN or infinity in an activation, unknown method.
    """
    methods.resolve(method, percentile)
    return observe(model, batches, progress, method in methods.NEEDS_HISTOGRAM).ranges(method, percentile)


def observe(
    model: ModelProto, batches: Iterable[Batch], progress: Callable[[int], None] | None = None, histograms: bool = True
) -> Observations:
    """Run ``batches`` through ``model`` and keep extremes and, unless told otherwise, a histogram of every tensor."""
    watched = observed(model)
    session, computed = _session(model, watched)
    seen = Observations(graph_sha256(model), {name: Histogram() for name in watched})
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for batch in batches:
            values = dict(zip(computed, _run(session, computed, batch), strict=True))
            values.update((name, batch[name]) for name in watched if name in batch)
            list(pool.map(lambda name, v=values: _look(model, seen.tensors[name], name, v[name], histograms), watched))
            for name in sorted(batch):
                digest.update(np.ascontiguousarray(batch[name]).data)
            seen.images += _images(batch)
            seen.batches += 1
            if progress is not None:
                progress(seen.images)
    if seen.images == 0:
        raise CalibrationError("no images to calibrate on", "at least one, better 100 or more", "check the data set or folder")
    seen.sha256 = digest.hexdigest()
    return seen


def _look(model: ModelProto, histogram: Histogram, name: str, value: np.ndarray, counts: bool) -> None:
    flat = np.ascontiguousarray(value, np.float32).reshape(-1)
    if flat.size == 0:
        return
    try:
        low, high = extremes(flat)
    except ValueError as error:
        producer = index(model.graph).producer.get(name)
        where = f"node {producer.name!r} ({producer.op_type})" if producer is not None else "the graph's input"
        raise CalibrationError(
            f"tensor {name!r} of {where} holds a value that is {error}",
            "finite activations",
            "check the weights and the preprocessing (mean, std) of the images",
        ) from error
    if counts:
        histogram.fit(low, high)
        histogram.count(flat)
    else:
        histogram.minimum, histogram.maximum = min(histogram.minimum, low), max(histogram.maximum, high)


def _session(model: ModelProto, watched: list[str]) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session of ``model`` with the watched tensors as its outputs; an output stops the fusions that would hide it."""
    inputs = {value.name for value in model.graph.input}
    computed = [name for name in watched if name not in inputs]
    if not watched:
        raise CalibrationError("the model has no convolution, Gemm or MatMul to quantise", "a network", "build it in float")
    watching = ModelProto()
    watching.CopyFrom(model)
    types = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    del watching.graph.output[:]
    watching.graph.output.extend(types.get(name, onnx.ValueInfoProto(name=name)) for name in computed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        payload = watching.SerializeToString()
        return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"]), computed
    except Exception as error:  # onnxruntime's exceptions share no public base but Exception
        raise CalibrationError(f"onnxruntime does not take the graph: {error}", "a graph that runs in onnxruntime") from error


def _run(session: onnxruntime.InferenceSession, computed: list[str], batch: Batch) -> list[np.ndarray]:
    expected = {value.name: value.shape for value in session.get_inputs()}
    if set(batch) != set(expected):
        raise CalibrationError(f"a batch with inputs {sorted(batch)}", f"inputs {sorted(expected)}", "name the arrays so")
    try:
        return session.run(computed, batch)
    except Exception as error:
        shapes = {name: list(value.shape) for name, value in batch.items()}
        raise CalibrationError(f"a batch of shapes {shapes} does not run: {error}", f"shapes {expected}") from error


def _images(batch: Batch) -> int:
    first = next(iter(batch.values()))
    return int(first.shape[0]) if first.ndim else 1


def _rounded(pair: tuple[float, float]) -> tuple[float, float]:
    """To float32, as scales are, so that ranges.json is short and the same after a round trip."""
    low, high = (float(np.float32(value)) for value in pair)
    return (low, high) if low <= high else (0.0, 0.0)
