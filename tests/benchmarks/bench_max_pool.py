"""The CPU twins of the pools against ONNX Runtime and torch: ratios within one run, the same number of threads for all.

Run: ``python tests/benchmarks/bench_max_pool.py [--threads N] [--repeats N] [--json FILE]``. Needs onnxruntime and torch.
Everybody writes into memory that it is given, so that no contestant pays for pages. ``x limit``: time over the time to
copy as many bytes as the operator reads and writes, at the bandwidth of one thread copying an array of the plane's size.
With one thread the process's own time is taken, so that a machine that is shared does not count; with more, the wall's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from ctypes import Structure

import bench_kernels
import numpy as np
import onnxruntime as ort
import torch
from bench_kernels import Group, measure, report
from onnx import TensorProto, helper

from edgeseg.ops import launch
from edgeseg.ops.max_pool import Window, c_window

TILES = Window((2, 2), (2, 2))
STEM = Window((3, 3), (2, 2), (1, 1, 1, 1))
LIBRARY = launch.cpu_library()


def session(
    op_type: str, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray], window: Window, threads: int
) -> Callable[[], None]:
    """A run of one ONNX node from and into given memory."""
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    infos = [
        [helper.make_tensor_value_info(k, kinds[v.dtype.name], v.shape) for k, v in side.items()] for side in (inputs, outputs)
    ]
    attributes = {"kernel_shape": window.kernel, "strides": window.strides, "pads": window.pads}
    graph = helper.make_graph([helper.make_node(op_type, list(inputs), list(outputs), **attributes)], op_type, *infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    opened = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = opened.io_binding()
    for bind, side in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, array in side.items():
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    held = (inputs, outputs)
    return lambda held=held: opened.run_with_iobinding(binding)


class Case:
    """One plane size and window, pooled: what both directions read and write."""

    def __init__(self, shape: tuple[int, int, int, int], window: Window, dtype: str = "float32") -> None:
        rng = np.random.default_rng(0)
        self.window, self.shape = window, shape
        noise = rng.standard_normal(shape, dtype=np.float32)
        self.x = (np.clip(noise * 40, -128, 127) if dtype == "int8" else noise).astype(dtype)
        pooled = (*shape[:2], *window.pooled(*shape[2:]))
        self.y, self.codes = np.empty(pooled, dtype), np.empty(pooled, np.uint8)
        self.indices, self.local = np.empty(pooled, np.int64), torch.empty(pooled, dtype=torch.int64)
        self.out = np.empty(shape, dtype)

    def _calls(self, name: str, args: Structure, threads: int) -> Callable[[], None]:
        def call(case: Case = self) -> None:  # holds the memory that args point to
            LIBRARY.run(name, args, threads)

        return call

    def pool(self, threads: int) -> Callable[[], None]:
        args = launch.MaxPoolArgmax(*map(launch.tensor_of, (self.x, self.y, self.codes)), c_window(self.window))
        return self._calls("max_pool_argmax", args, threads)

    def pool_indices(self, threads: int) -> Callable[[], None]:
        tensors = launch.tensor_of(self.x), launch.tensor_of(self.y)
        args = launch.MaxPoolIndices(*tensors, self.indices.ctypes.data, c_window(self.window), 0)
        return self._calls("max_pool_indices", args, threads)

    def unpool(self, threads: int) -> Callable[[], None]:
        args = launch.MaxUnpool(*map(launch.tensor_of, (self.y, self.codes, self.out)), c_window(self.window))
        return self._calls("max_unpool", args, threads)

    def unpool_indices(self, threads: int) -> Callable[[], None]:
        args = launch.MaxUnpoolIndices(launch.tensor_of(self.y), self.indices.ctypes.data, launch.tensor_of(self.out), None)
        return self._calls("max_unpool_indices", args, threads)

    @property
    def moved(self) -> int:
        return self.x.nbytes + self.y.nbytes + self.codes.nbytes


def pool_group(case: Case, threads: int) -> Group:
    x, out = torch.from_numpy(case.x), (torch.from_numpy(case.y.copy()), case.local)
    window = case.window
    contestants = {
        "native": case.pool(threads),
        "native, indices": case.pool_indices(threads),
        "torch max_pool2d with indices": lambda: torch.ops.aten.max_pool2d_with_indices.out(
            x, window.kernel, window.strides, window.pads[:2], out=out[0], indices=out[1]
        ),
        "ONNX Runtime MaxPool with Indices": session(
            "MaxPool", {"x": case.x}, {"y": case.y.copy(), "i": case.indices.copy()}, window, threads
        ),
    }
    title = f"pool {case.shape} {window.kernel}/{window.strides}"
    return Group(title, case.moved, contestants, dict.fromkeys(list(contestants)[2:], 1.0))


def unpool_group(case: Case, threads: int) -> Group:
    case.pool(threads)()
    case.pool_indices(threads)()
    window, size = case.window, list(case.shape[2:])
    planes = np.arange(case.shape[0] * case.shape[1]).reshape(*case.shape[:2], 1, 1) * size[0] * size[1]
    y, local, out = torch.from_numpy(case.y), torch.from_numpy(case.indices - planes), torch.from_numpy(case.out.copy())
    contestants = {
        "native": case.unpool(threads),
        "native, indices": case.unpool_indices(threads),
        "torch max_unpool2d": lambda: torch.ops.aten.max_unpool2d.out(y, local, size, out=out),
    }
    if window.unpooled(*case.y.shape[2:]) == case.shape[2:]:
        inputs = {"y": case.y, "i": case.indices}
        contestants["ONNX Runtime MaxUnpool"] = session("MaxUnpool", inputs, {"x": case.out.copy()}, window, threads)
    title = f"unpool {case.y.shape} -> {case.shape} {window.kernel}/{window.strides}"
    return Group(title, case.moved, contestants, dict.fromkeys(list(contestants)[2:], 2.0))


def narrow_group(shape: tuple[int, int, int, int], threads: int) -> Group:
    """Both directions in every type; torch's FP16 beside them."""
    half, byte = Case(shape, TILES, "float16"), Case(shape, TILES, "int8")
    x, y, local, out = (torch.from_numpy(a) for a in (half.x, half.y.copy(), half.indices.copy(), half.out.copy()))

    def theirs() -> None:
        torch.ops.aten.max_pool2d_with_indices.out(x, [2, 2], [2, 2], out=y, indices=local)
        torch.ops.aten.max_unpool2d.out(y, local, list(shape[2:]), out=out)

    def pair(case: Case) -> Callable[[], None]:
        pool, unpool = case.pool(threads), case.unpool(threads)
        return lambda: (pool(), unpool())[0]

    contestants = {"native": pair(half), "native, INT8": pair(byte), "torch": theirs}
    return Group(f"pool + unpool {shape} 2x2/2, FP16", 2 * half.moved, contestants, {"torch": 2.0})


def groups(threads: int) -> list[Group]:
    cases = [Case(shape, TILES) for shape in ((1, 64, 360, 480), (1, 128, 180, 240), (1, 256, 90, 120), (1, 512, 46, 60))]
    cases.append(Case((1, 64, 256, 512), STEM))
    made = [make(case, threads) for case in cases for make in (pool_group, unpool_group)]
    return [*made, narrow_group((1, 64, 360, 480), threads)]


def bytes_per_ms(nbytes: int, repeats: int) -> float:
    """Copy bandwidth (read + write) of an array of this size."""
    source, target = np.ones(nbytes, np.uint8), np.empty(nbytes, np.uint8)
    return 2 * nbytes / measure({"copy": lambda: np.copyto(target, source)}, repeats)["copy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.threads == 1:
        bench_kernels.clock = time.process_time
    results = []
    for group in groups(arguments.threads):
        bandwidth = bytes_per_ms(group.moved // 2, arguments.repeats)
        print(f"\ncopy bandwidth {bandwidth / 1e6:.1f} GB/s ({group.moved / 2e6:.1f} MB, read + write)", end="")
        results.append(report(group, arguments.repeats, bandwidth))
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump({"threads": arguments.threads, "results": results}, stream, indent=2)


if __name__ == "__main__":
    main()
