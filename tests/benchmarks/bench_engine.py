"""Engines against their backends' own bare loops, and INT8 against ONNX Runtime in float32; ratios of one run.

``python tests/benchmarks/bench_engine.py [DIR ...] [--threads N] [--rounds N]``: DIR is a model folder or a shipped model's name.
All shipped models by default. The loops take turns, so that a busy moment hits all alike; "bare" is what a user would write against
onnxruntime or openvino with the same settings, from the same graph.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import openvino

from edgeseg.engines import ort as ort_engine
from edgeseg.engines.build import load_named, prepared_graph
from edgeseg.engines.lowering import lower_for_openvino
from edgeseg.engines.openvino import properties
from edgeseg.engines.segmenter import Segmenter
from edgeseg.engines.session import get_backend
from edgeseg.folder import ModelFolder, open_folder, shipped_models
from edgeseg.measure.machine import machine_line

KINDS = [("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
Call = Callable[[], object]


def bare_loop(folder: ModelFolder, backend: str, precision: str, threads: int, tensor: np.ndarray) -> Call:
    """One inference, written directly against the backend."""
    graph = prepared_graph(folder, precision, backend)
    if backend == "ort":
        options = ort_engine.session_options(threads)
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {folder.manifest.input.name: tensor})
    core = openvino.Core()
    model = core.read_model(io.BytesIO(lower_for_openvino(graph).SerializeToString()))
    request = core.compile_model(model, "CPU", properties(precision, threads)).create_infer_request()
    return lambda: request.infer({0: tensor}, share_inputs=True)


def loops(folder: ModelFolder, threads: int) -> dict[str, Call]:
    """Our loop and the bare loop of every backend and precision that this machine has."""
    found: dict[str, Call] = {}
    tensor = np.random.default_rng(0).normal(0, 1, folder.manifest.input.shape).astype(np.float32)
    for backend, precision in KINDS:
        if get_backend(backend).supports(precision) or (precision == "int8" and "ranges.json" not in folder.manifest.files):
            continue
        segmenter = Segmenter(load_named(folder, backend, precision, threads), folder.manifest, threads)
        out = segmenter.allocate_output()
        found[f"{backend} {precision}"] = lambda s=segmenter, o=out: s.infer(tensor, o)  # type: ignore[misc]
        found[f"{backend} {precision} bare"] = bare_loop(folder, backend, precision, threads, tensor)
    return found


def medians_ms(calls: dict[str, Call], rounds: int, runs: int = 3) -> dict[str, float]:
    """Median milliseconds of each call over ``rounds`` turns of ``runs``, the first of each turn left out."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            for _ in range(runs):
                started = time.perf_counter_ns()
                call()
                times[name].append((time.perf_counter_ns() - started) / 1e6)
    return {name: float(np.median(values)) for name, values in times.items()}


def report(folder: ModelFolder, threads: int, rounds: int) -> dict[str, object]:
    """Milliseconds, ours over bare (1.05 is the bound), and ONNX Runtime FP32 over each INT8."""
    found = medians_ms(loops(folder, threads), rounds)
    ours = {name: value for name, value in found.items() if not name.endswith(" bare")}
    return {
        "model": folder.manifest.name,
        "ms": {name: round(value, 3) for name, value in found.items()},
        "ours_over_bare": {name: round(value / found[f"{name} bare"], 3) for name, value in ours.items()},
        "ort_fp32_over": {name: round(found["ort fp32"] / value, 2) for name, value in ours.items() if name != "ort fp32"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="DIR")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    models = [report(open_folder(name), options.threads, options.rounds) for name in options.models or shipped_models()]
    print(json.dumps({"machine": machine_line(), "threads": options.threads, "models": models}, indent=2))


if __name__ == "__main__":
    main()
