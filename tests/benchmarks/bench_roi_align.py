"""RoIAlign: the CPU twin against ONNX Runtime's RoiAlign at the same work and threads; ratios within one run.

Run: ``python tests/benchmarks/bench_roi_align.py [--repeats N] [--threads N] [--json FILE]``. Needs onnxruntime.
A pyramid is one call for the twin and one RoiAlign a level for ONNX Runtime, each on the boxes of its level and sorted
out before the clock starts: less work than a network would have to do. Times as in bench_kernels.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from bench_kernels import Group, measure
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeseg.ops import launch
from edgeseg.ops.roi_align import RoiAlignOptions, level_of, roi_align

RNG = np.random.default_rng(0)
GOAL = 1.5
Maps = Sequence[NDArray[np.float32]]


def boxes(count: int, height: int, width: int) -> NDArray[np.float32]:
    """Boxes of all sizes inside the image, small ones more often, as proposals are."""
    sides = np.exp(RNG.uniform(np.log(16), np.log(min(height, width)), (count, 2)))
    corners = RNG.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def session(options: RoiAlignOptions, scale: float, threads: int) -> ort.InferenceSession:
    node = helper.make_node(
        "RoiAlign",
        ["x", "rois", "images"],
        ["y"],
        output_height=options.output_height,
        output_width=options.output_width,
        sampling_ratio=options.sampling_ratio,
        spatial_scale=scale,
        coordinate_transformation_mode="half_pixel",
    )
    inputs = [("x", TensorProto.FLOAT, [None] * 4), ("rois", TensorProto.FLOAT, [None, 4]), ("images", TensorProto.INT64, [None])]
    graph = helper.make_graph(
        [node],
        "roi_align",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def onnx_runtime(rois: NDArray[np.float32], maps: Maps, options: RoiAlignOptions, threads: int) -> Callable[[], list[np.ndarray]]:
    """One call a level."""
    levels = np.array([level_of(roi, options) for roi in rois])
    calls = []
    for level, (feature, scale) in enumerate(zip(maps, options.spatial_scales, strict=True)):
        own = rois[levels == level]
        feeds = {"x": feature, "rois": own, "images": np.zeros(len(own), np.int64)}
        calls.append((session(options, scale, threads), feeds))
    return lambda: [call.run(None, feeds)[0] for call, feeds in calls]


def prepared(
    rois: NDArray[np.float32], maps: Sequence[np.ndarray], options: RoiAlignOptions, threads: int, format: str = "linear"
) -> Callable[[], None]:
    """The twin on packed arrays, so that packing is outside the clock."""
    calls: list[tuple[str, launch.RoiAlign]] = []
    library = launch.cpu_library()

    class Recorder:
        def run(self, name: str, args: launch.RoiAlign, last: int) -> None:
            library.run(name, args, last)
            calls.append((name, args))

    kept = [launch.pack(feature, format) for feature in maps]
    indices, out = np.zeros(len(rois), np.int64), None
    shape = (len(rois), maps[0].shape[1], options.output_height, options.output_width)
    out = np.empty(launch.packed_shape(shape, format), maps[0].dtype)
    roi_align(rois, indices, maps, options, format=format, library=Recorder())  # type: ignore[arg-type]
    args = calls[0][1]
    args.rois, args.batch_indices = rois.ctypes.data, indices.ctypes.data
    for level, (array, feature) in enumerate(zip(kept, maps, strict=True)):
        args.features[level] = launch.tensor_of(array, feature.shape, format)
    args.output = launch.tensor_of(out, shape, format)
    return lambda _keep=(kept, rois, indices, out): library.run("roi_align", args, threads)


def group(title: str, count: int, strides: Sequence[int], size: tuple[int, int], threads: int) -> Group:
    height, width = size
    maps = [RNG.standard_normal((1, 256, height // stride, width // stride), dtype=np.float32) for stride in strides]
    options = RoiAlignOptions(7, 7, [1 / stride for stride in strides], 2, canonical_level=2)
    rois = boxes(count, height, width)
    rival = onnx_runtime(rois, maps, options, threads)
    levels = np.array([level_of(roi, options) for roi in rois])
    mine = roi_align(rois, np.zeros(count, np.int64), maps, options)
    for level, theirs in enumerate(rival()):
        assert np.abs(mine[levels == level] - theirs).max(initial=0) < 1e-4
    codes = [np.clip(np.rint(feature * 32), -128, 127).astype(np.int8) for feature in maps]
    contestants: dict[str, Callable[[], object]] = {
        "twin float32": prepared(rois, maps, options, threads),
        "ONNX Runtime float32": rival,
        "twin float32 hwc": prepared(rois, maps, options, threads, "hwc"),
        "twin float16": prepared(rois, [feature.astype(np.float16) for feature in maps], options, threads),
        "twin float16 hwc8": prepared(rois, [feature.astype(np.float16) for feature in maps], options, threads, "hwc8"),
        "twin int8": prepared(rois, codes, options, threads),
        "twin int8 chw32": prepared(rois, codes, options, threads, "chw32"),
    }
    moved = sum(feature.nbytes for feature in maps) + mine.nbytes
    return Group(title, moved, contestants, {"ONNX Runtime float32": GOAL})


def groups(threads: int) -> list[Group]:
    image = (640, 960)
    return [
        group("300 boxes, 1/16 map 40x60", 300, [16], image, threads),
        group("300 boxes, 1/8 map 80x120", 300, [8], image, threads),
        group("300 boxes, 1/4 map 160x240", 300, [4], image, threads),
        group("1,000 boxes, pyramid 1/4 .. 1/32", 1000, [4, 8, 16, 32], image, threads),
    ]


def report(found: Group, repeats: int) -> dict[str, object]:
    times = measure(found.contestants, repeats)
    ours = times["twin float32"]
    print(f"\n{found.title}; 256 channels, 7x7, sampling ratio 2; {found.moved / 1e6:.1f} MB moved", flush=True)
    print(f"{'':24}{'ms':>9}{'twin x':>9}{'goal':>7}")
    for name, ms in times.items():
        goal = f"{found.goals[name]:.1f}x" if name in found.goals else ""
        print(f"{name:24}{ms:9.2f}{ms / ours:9.2f}{goal:>7}")
    return {"title": found.title, "ms": times, "ratios": {name: ms / ours for name, ms in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    results = [report(found, arguments.repeats) for found in groups(arguments.threads)]
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump({"threads": arguments.threads, "results": results}, stream, indent=2)


if __name__ == "__main__":
    main()
