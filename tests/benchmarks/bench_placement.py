"""Latency of INT8 by where the Q/DQ pairs stand: ours, ONNX Runtime's quantize_static, NNCF's; ratios within one run.

    python tests/benchmarks/bench_placement.py [MODEL.onnx ...] [--threads 1] [--seconds 20]

Without a model: the residual U-Net of the calibration tests (64 wide, 256x320). NNCF is measured where it is installed.
Everything is interleaved, so that a slow moment of the machine hits all alike. With one thread the clock is the CPU time
of the process, which other work on the machine hardly touches; with more it is the wall's. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import ModelProto

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from calibration import collect, prepare, quantize  # noqa: E402
from tests.calibration import nets  # noqa: E402

Feeds = dict[str, np.ndarray]


def ort_quantiser(model: ModelProto, batches: list[Feeds]) -> ModelProto:
    """onnxruntime.quantization.quantize_static, U8S8, per channel, minmax."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Feeds] = iter(batches)

        def get_next(self) -> Feeds | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as directory:
        source, target = (str(Path(directory) / name) for name in ("float.onnx", "int8.onnx"))
        onnx.save(model, source)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
        return onnx.load(target)


def nncf_placement(model: ModelProto, batches: list[Feeds]) -> openvino.Model | None:
    """NNCF's default post-training quantisation on OpenVINO; None where NNCF is not installed."""
    try:
        import nncf
    except ImportError:
        return None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    read = openvino.Core().read_model(model.SerializeToString())
    return nncf.quantize(read, nncf.Dataset(batches), subset_size=len(batches))


def openvino_runner(model: ModelProto | openvino.Model, feeds: Feeds, threads: int) -> Callable[[], object]:
    core = openvino.Core()
    graph = core.read_model(model.SerializeToString()) if isinstance(model, ModelProto) else model
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO"}
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    for name, value in feeds.items():
        request.get_tensor(name).data[:] = value
    return request.infer


def ort_runner(model: ModelProto, feeds: Feeds, threads: int) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def interleaved_ms(
    runners: dict[str, Callable[[], object]], seconds: float, clock: Callable[[], float]
) -> dict[str, tuple[float, float]]:
    """Fastest and median milliseconds of each, all run in turn until ``seconds`` are over."""
    for run in runners.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in runners.items():
            start = clock()
            run()
            times[name].append(1e3 * (clock() - start))
    return {name: (min(values), statistics.median(values)) for name, values in times.items()}


def measure(model: ModelProto, threads: int, seconds: float) -> dict[str, dict[str, tuple[float, float]]]:
    """Fastest and median ms by runtime and placement."""
    prepared = prepare(model)
    batches = nets.batches(prepared, 3)
    ranges = collect(prepared, batches, "minmax")
    ours = {name: quantize(prepared, ranges, name) for name in ("x86", "openvino")}
    theirs, nncf = ort_quantiser(prepared, batches), nncf_placement(prepared, batches)
    graphs = {"float32": prepared, "quantize_static": theirs, **ours} | ({} if nncf is None else {"NNCF": nncf})
    on_openvino = {name: openvino_runner(graph, batches[0], threads) for name, graph in graphs.items()}
    on_ort = {name: ort_runner(graphs[name], batches[0], threads) for name in ("float32", "quantize_static", "x86")}
    clock = time.process_time if threads == 1 else time.perf_counter
    return {"OpenVINO": interleaved_ms(on_openvino, seconds, clock), "ONNX Runtime": interleaved_ms(on_ort, seconds, clock)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    models = {path.name: onnx.load(path) for path in options.models} or {"residual U-Net": nets.unet(64, (256, 320), 11)}
    for name, model in models.items():
        kinds = Counter(node.op_type for node in model.graph.node)
        print(f"{name}: {kinds['Conv']} convolutions, {options.threads} thread(s)")
        for runtime, times in measure(model, options.threads, options.seconds).items():
            for placement, (fastest, median) in times.items():
                ratio = times["float32"][1] / median
                print(f"  {runtime:13} {placement:16} {median:8.2f} ms (fastest {fastest:8.2f})  {ratio:5.2f}x float32")


if __name__ == "__main__":
    main()
