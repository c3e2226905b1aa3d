"""Speed of the street scenes and of decoding, one core: ``python tests/benchmarks/bench_data.py [--camvid PATH]``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np

from edgeseg.data import open_dataset
from edgeseg.data.streets import CLIP_SEED, StreetScenes
from edgeseg.data.transforms import Augment


def median_ms(call: Callable[[int], object], repeats: int) -> float:
    """Median time of ``call(i)`` in milliseconds after one call to warm up."""
    call(0)
    times = []
    for index in range(repeats):
        begin = time.perf_counter()
        call(index)
        times.append((time.perf_counter() - begin) * 1e3)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camvid", help="CamVid's folder, to compare decoding with rendering")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    report: dict[str, float] = {}
    for width, height in ((480, 360), (1280, 720)):
        # Seeds differ by what is in view, so each figure is a median over several streets.
        per_seed = []
        for seed in range(CLIP_SEED, CLIP_SEED + 6):
            street = StreetScenes(width, height, seed)
            per_seed.append(median_ms(lambda t, street=street: street.render(3 * t), options.repeats // 2))
        report[f"render_{width}x{height}_fps"] = 1000 / float(np.median(per_seed))
        report[f"render_{width}x{height}_slowest_street_fps"] = 1000 / max(per_seed)
        report[f"new_street_{width}x{height}_ms"] = median_ms(
            lambda n, w=width, h=height: StreetScenes(w, h, n), options.repeats // 2
        )
    streets = open_dataset("streets", "train")
    report["streets_frame_480x360_ms"] = median_ms(lambda n: streets[n], options.repeats)
    if options.camvid:
        camvid = open_dataset(f"camvid:{options.camvid}", "train")
        report["camvid_frame_480x360_ms"] = median_ms(lambda n: camvid[n], options.repeats)
    sample, augment, rng = streets[0], Augment(crop=(360, 480)), np.random.default_rng(0)
    report["augment_480x360_ms"] = median_ms(lambda n: augment(sample.image, sample.labels, rng), options.repeats)
    print(json.dumps({name: round(value, 2) for name, value in report.items()}, indent=2))


if __name__ == "__main__":
    main()
