"""HHA of a 640x480 depth frame, normals and gravity included, on one core: milliseconds, and the ratio to the numpy version.

Run: ``python tests/benchmarks/bench_hha.py [--repeats N] [--json FILE]``. The least of N runs counts: other work on the machine
only ever adds time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from edgeseg.data.rooms import render, sense_depth
from edgeseg.native import _kernels, hha, hha_reference

GOAL_MS = 10.0


def least_ms(call: Callable[[], object], repeats: int) -> float:
    """The shortest of ``repeats`` runs, milliseconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    room = render(0, 640, 480)
    depth = sense_depth(room.depth, np.random.default_rng(0))
    figures = {"numpy_ms": least_ms(lambda: hha_reference.encode(depth, room.intrinsics), max(3, arguments.repeats // 10))}
    print(f"numpy (float64): {figures['numpy_ms']:.1f} ms")
    best = _kernels.isa()
    for isa in _kernels.isa_names():
        _kernels.select_isa(isa)
        figures[f"{isa}_ms"] = value = least_ms(lambda: hha.encode(depth, room.intrinsics), arguments.repeats)
        print(f"{isa}: {value:.2f} ms, {figures['numpy_ms'] / value:.0f} times numpy's speed")
    _kernels.select_isa(best)
    print(f"goal: {GOAL_MS} ms with {best}: {'met' if figures[f'{best}_ms'] < GOAL_MS else 'MISSED'}")
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump(figures, stream, indent=2)


if __name__ == "__main__":
    main()
