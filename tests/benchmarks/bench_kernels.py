"""Native kernels against what one writes without them: ratios within one run, one thread unless said.

Run: ``python tests/benchmarks/bench_kernels.py [--repeats N] [--json]``. Needs onnxruntime for one of the rivals.
Each round times every contestant once, so that a slow phase of the machine hits all; the best round of each is compared,
because on a machine that is shared whatever is above it is somebody else's.
``x limit``: time over the time to move the kernel's input and output bytes at the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from edgeseg import native

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
RNG = np.random.default_rng(0)
clock: Callable[[], float] = time.perf_counter


@dataclass
class Group:
    """Contestants for one job; the first is ours. ``moved`` is the bytes of its input and output."""

    title: str
    moved: int
    contestants: dict[str, Callable[[], object]]
    goals: dict[str, float]


def measure(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least milliseconds of each, interleaved."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(repeats + 2):
        for name, run in contestants.items():
            run()  # brings its own data into the caches, as in a loop of its own
            start = clock()
            run()
            if round_ >= 2:
                times[name].append(1e3 * (clock() - start))
    return {name: min(values) for name, values in times.items()}


def bytes_per_ms(repeats: int) -> float:
    """Copy bandwidth (read + write) of an array of a frame's size."""
    source = np.zeros(720 * 1280 * 3, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / measure({"copy": lambda: np.copyto(target, source)}, repeats)["copy"]


def preprocess_group() -> Group:
    frame = RNG.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    out = np.empty((1, 3, 512, 512), np.float32)
    arguments = {"scale": 1 / 255, "mean": MEAN.tolist(), "std": STD.tolist(), "swap_rb": True}

    def naive() -> np.ndarray:
        image = cv2.cvtColor(cv2.resize(frame, (512, 512)), cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        return np.ascontiguousarray(((image - MEAN) / STD).transpose(2, 0, 1))[None]

    def split() -> None:
        planes = cv2.split(cv2.resize(frame, (512, 512)))
        for channel, plane in enumerate(reversed(planes)):
            np.multiply(plane, np.float32(1 / 255 / STD[channel]), out=out[0, channel])
            out[0, channel] -= MEAN[channel] / STD[channel]

    contestants = {
        "native": lambda: native.preprocess(frame, out, **arguments),
        "native, 2 threads": lambda: native.preprocess(frame, out, threads=2, **arguments),
        "cv2.resize + numpy": naive,
        "cv2.resize + split": split,
    }
    goals = {"cv2.resize + numpy": 8.0, "cv2.resize + split": 2.0}
    return Group("preprocess 1280x720 -> 1x3x512x512", frame.nbytes + out.nbytes, contestants, goals)


def ort_session(classes: int, h: int, w: int, factor: int) -> ort.InferenceSession:
    """Resize (half-pixel, linear) + ArgMax, one thread."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, factor, factor])
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["big"], mode="linear", coordinate_transformation_mode="half_pixel"),
        helper.make_node("ArgMax", ["big"], ["y"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "upsample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, classes, h, w])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, h * factor, w * factor])],
        [scales],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def running_maximum(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """cv2.resize per class, the best so far kept: the usual way without full-resolution logits of all classes."""
    best, labels = cv2.resize(logits[0], size[::-1]), np.zeros(size, np.uint8)
    for index in range(1, len(logits)):
        plane = cv2.resize(logits[index], size[::-1])
        labels[cv2.compare(plane, best, cv2.CMP_GT) > 0] = index
        cv2.max(plane, best, dst=best)
    return labels


def upsample_group(name: str, logits: np.ndarray, factor: int) -> Group:
    classes, h, w = logits.shape
    size = (h * factor, w * factor)
    frame = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    labels, picture = np.empty(size, np.uint8), np.empty_like(frame)
    session, feed = ort_session(classes, h, w, factor), {"x": logits[None]}

    def blended(label_map: np.ndarray) -> np.ndarray:
        return cv2.addWeighted(frame, 0.5, palette[label_map], 0.5, 0)

    def fused(threads: int) -> None:
        native.upsample_argmax_overlay(logits, frame, palette, 0.5, labels, picture, threads=threads)

    fused(1)
    disagreement = float((session.run(None, feed)[0][0] != labels).mean())
    title = f"upsample + argmax + overlay {classes}x{h}x{w} -> {size[1]}x{size[0]}, {name}; labels unlike ORT's: {disagreement:.1e}"
    contestants: dict[str, Callable[[], object]] = {
        "native": lambda: fused(1),
        "native, 2 threads": lambda: fused(2),
        "native upsample_argmax alone": lambda: native.upsample_argmax(logits, size, labels),
        "native overlay alone": lambda: native.overlay(frame, labels, palette, 0.5, picture),
        "ONNX Runtime + overlay": lambda: blended(session.run(None, feed)[0][0].astype(np.uint8)),
        "cv2 running maximum + overlay": lambda: blended(running_maximum(logits, size)),
    }
    goals = {"ONNX Runtime + overlay": 10.0, "cv2 running maximum + overlay": 6.0, "native, 2 threads": 0.0}
    return Group(title, logits.nbytes + labels.nbytes + 2 * frame.nbytes, contestants, goals)


def regions(classes: int, h: int, w: int) -> np.ndarray:
    """Logits with regions of some size, as a network gives them."""
    coarse = RNG.standard_normal((classes, max(h // 15, 2), max(w // 15, 2)), dtype=np.float32)
    noise = 0.05 * RNG.standard_normal((classes, h, w), dtype=np.float32)
    return np.stack([cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC) for plane in coarse]) + noise


def groups() -> list[Group]:
    random = RNG.standard_normal((21, 180, 320), dtype=np.float32)
    return [
        preprocess_group(),
        upsample_group("noise (worst case)", random, 4),
        upsample_group("regions", regions(21, 180, 320), 4),
        upsample_group("regions", regions(21, 128, 128), 4),
    ]


def report(group: Group, repeats: int, bandwidth: float) -> dict[str, object]:
    times = measure(group.contestants, repeats)
    ours, limit = times["native"], group.moved / bandwidth
    print(f"\n{group.title}; {group.moved / 1e6:.1f} MB moved, limit {limit:.2f} ms", flush=True)
    print(f"{'':34}{'ms':>8}{'native x':>10}{'goal':>7}{'x limit':>9}")
    for name, ms in times.items():
        goal = f"{group.goals[name]:.0f}x" if group.goals.get(name) else ""
        print(f"{name:34}{ms:8.2f}{ms / ours:10.2f}{goal:>7}{ms / limit:9.1f}")
    return {"title": group.title, "ms": times, "limit_ms": limit, "ratios": {name: ms / ours for name, ms in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    bandwidth = bytes_per_ms(arguments.repeats)
    print(f"instruction set {native._kernels.isa()}; copy bandwidth {bandwidth / 1e6:.1f} GB/s (2.8 MB, read + write)")
    results = [report(group, arguments.repeats, bandwidth) for group in groups()]
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump({"isa": native._kernels.isa(), "results": results}, stream, indent=2)


if __name__ == "__main__":
    main()
