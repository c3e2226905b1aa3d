"""The dense CRF against pydensecrf, which wraps the authors' code: ratios within one run, one thread unless said.

Run: ``python tests/benchmarks/bench_dense_crf.py [--size WxH] [--classes C] [--iterations N] [--repeats N] [--json FILE]``.
pydensecrf is no dependency: build it anywhere (its sources at github.com/lucasb-eyer/pydensecrf build with pip) and put it on
PYTHONPATH; without it our own times are printed alone. Each round times every contestant once, and the best round of each is
compared, because on a machine that is shared whatever is above it is somebody else's. Both get the same picture and the same
probabilities; pydensecrf sums the smoothness kernel on a lattice too, ours is exact, so that labels differ a little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np

from edgeseg.data import open_dataset
from edgeseg.native import _kernels, crf

try:
    from pydensecrf import densecrf
except ImportError:
    densecrf = None

GOAL = 3.0
SETTINGS = {
    "the manifest's defaults": crf.Kernels(4.0, 67.0, 3.0, 3.0, 1.0),
    "pydensecrf's example": crf.Kernels(10.0, 80.0, 13.0, 3.0, 3.0),
}


def probabilities(classes: int, height: int, width: int) -> np.ndarray:
    """Regions of some size, as a network gives them: (C, H, W) float32 that add up to one."""
    coarse = np.random.default_rng(0).standard_normal((classes, max(2, height // 15), max(2, width // 15)), dtype=np.float32)
    planes = np.exp(2 * np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse]))
    return np.ascontiguousarray(planes / planes.sum(axis=0))


def theirs(frame: np.ndarray, unary: np.ndarray, kernels: crf.Kernels, iterations: int) -> np.ndarray:
    classes, (height, width) = len(unary), frame.shape[:2]
    model = densecrf.DenseCRF2D(width, height, classes)
    model.setUnaryEnergy(unary)
    model.addPairwiseGaussian(sxy=kernels.sigma_gamma, compat=kernels.w2)
    model.addPairwiseBilateral(sxy=kernels.sigma_alpha, srgb=kernels.sigma_beta, rgbim=frame, compat=kernels.w1)
    return np.array(model.inference(iterations)).argmax(axis=0).reshape(height, width)


def measure(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least milliseconds of each, interleaved, the first round left out."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if round_:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values) for name, values in times.items()}


def report(
    title: str, frame: np.ndarray, scores: np.ndarray, kernels: crf.Kernels, iterations: int, repeats: int
) -> dict[str, object]:
    logits = np.log(np.maximum(scores, crf.LEAST_PROBABILITY))
    unary = np.ascontiguousarray(-logits.reshape(len(scores), -1))
    memory = crf.memory()

    def ours(threads: int = 1, steps: int = iterations) -> np.ndarray:
        return crf.dense_crf(frame, logits, kernels, steps, threads=threads, memory=memory)

    contestants: dict[str, Callable[[], object]] = {
        "native": ours,
        "native, 2 threads": lambda: ours(2),
        "native, 1 step": lambda: ours(1, 1),
    }
    agreement = float("nan")
    if densecrf is not None:
        contestants["pydensecrf"] = lambda: theirs(frame, unary, kernels, iterations)
        agreement = float((theirs(frame, unary, kernels, iterations) == ours()).mean())
    times = measure(contestants, repeats)
    print(f"\n{title}: {kernels}; labels like pydensecrf's: {agreement:.4f}", flush=True)
    print(f"{'':24}{'ms':>9}{'native x':>10}{'goal':>7}")
    for name, ms in times.items():
        print(f"{name:24}{ms:9.1f}{ms / times['native']:10.2f}{f'{GOAL:.0f}x' if name == 'pydensecrf' else '':>7}")
    return {"title": title, "ms": times, "agreement": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    width, height = (int(part) for part in arguments.size.split("x"))
    frame = np.ascontiguousarray(open_dataset(f"streets:{width}x{height}", "val")[0].image)
    soft = cv2.GaussianBlur(frame, (0, 0), 2)
    scores = probabilities(arguments.classes, height, width)
    print(f"{width}x{height}, {arguments.classes} classes, {arguments.iterations} steps; instruction set {_kernels.isa()}")
    if densecrf is None:
        print("pydensecrf is not installed: no ratio to it")
    results = [
        report(f"{picture}, {name}", image, scores, kernels, arguments.iterations, arguments.repeats)
        for name, kernels in SETTINGS.items()
        for picture, image in (("a synthetic street", frame), ("the same, soft", soft))
    ]
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump({"isa": _kernels.isa(), "results": results}, stream, indent=2)


if __name__ == "__main__":
    main()
