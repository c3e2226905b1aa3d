"""Pasting 100 masks of 28x28 at 640x480 against what one writes with PyTorch and with numpy: ratios within one run, one thread.

Run: ``python tests/benchmarks/bench_paste_masks.py [--repeats N] [--json]``. Needs torch. The loops sample each mask at every
pixel of the picture with ``grid_sample`` (or the same by numpy), or, as Detectron2 does on a CPU, at the pixels of its box only.
The goal is 5 over the loops over the whole picture. Also timed: the merging of a panoptic picture, and the choice among queries.
Each round times every contestant once, so that a slow phase of the machine hits all; the best round of each is compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from edgeseg import native
from edgeseg.native import scene

SIZE, COUNT, GOAL = (480, 640), 100, 5.0


def contents(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Round masks with soft rims, and boxes of COCO's spread of sizes: sides of 16 to 300 px, the middle at 70."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    wobble = rng.uniform(0.6, 1.0, (COUNT, 1, 1))
    masks = 1 / (1 + np.exp((np.hypot(y, x)[None] - wobble) * 12 + rng.standard_normal((COUNT, 28, 28)) * 0.5))
    sides = np.exp(rng.normal(np.log(70), 0.7, (COUNT, 2))).clip(16, 300)
    corner = rng.uniform(0, 1, (COUNT, 2)) * (np.array(SIZE[::-1]) - sides)
    return masks.astype(np.float32), np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def torch_paste(masks: np.ndarray, boxes: np.ndarray, crop: bool) -> np.ndarray:
    """A loop of ``grid_sample``, over the whole picture or over the box only."""
    out = torch.zeros((len(masks), *SIZE), dtype=torch.bool)
    for found, mask, box in zip(out, torch.from_numpy(masks), boxes.tolist(), strict=True):
        (x0, y0, x1, y1), (left, top, right, bottom) = box, window(box, crop)
        x = (torch.arange(left, right) + 0.5 - x0) / (x1 - x0) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * 2 - 1
        grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
        found[top:bottom, left:right] = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] > 0.5
    return out.numpy()


def numpy_paste(masks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The same without torch: four gathers and a weighted sum for each mask."""
    out = np.zeros((len(masks), *SIZE), bool)
    for found, mask, (x0, y0, x1, y1) in zip(out, np.pad(masks, ((0, 0), (1, 1), (1, 1))), boxes, strict=True):
        x = ((np.arange(SIZE[1], dtype=np.float32) + 0.5 - x0) / (x1 - x0) * 28 + 0.5).clip(0, 28.999)
        y = ((np.arange(SIZE[0], dtype=np.float32) + 0.5 - y0) / (y1 - y0) * 28 + 0.5).clip(0, 28.999)
        i, j = x.astype(int), y.astype(int)
        a, b = x - i, (y - j)[:, None]
        rows = mask[j] * (1 - b) + mask[j + 1] * b
        found[:] = rows[:, i] * (1 - a) + rows[:, i + 1] * a > 0.5
    return out


def window(box: list[float], crop: bool) -> tuple[int, int, int, int]:
    if not crop:
        return 0, 0, SIZE[1], SIZE[0]
    left, top = (max(0, int(np.floor(v)) - 1) for v in box[:2])
    return left, top, min(SIZE[1], int(np.ceil(box[2])) + 1), min(SIZE[0], int(np.ceil(box[3])) + 1)


def least(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least milliseconds of each, interleaved; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if round_:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values) for name, values in times.items()}


def others() -> dict[str, Callable[[], object]]:
    """What else the decoders run: 20 of 100 queries at a quarter of the size, and 53 stuff classes under the instances."""
    rng = np.random.default_rng(1)
    masks, boxes = contents()
    coarse = rng.standard_normal((COUNT, 8, 10)).astype(np.float32) * 4
    logits = np.stack([np.kron(plane, np.ones((15, 16), np.float32)) for plane in coarse])
    scores, steps = rng.uniform(0.5, 1, COUNT).astype(np.float32), (0.25, 0.25)
    semantic = rng.standard_normal((54, 120, 160)).astype(np.float32)
    labels = native.upsample_argmax(semantic, SIZE)
    options = {"threshold": 0.5, "overlap": 0.5, "stuff_area": 4096}
    return {
        "panoptic merging, 100 instances": lambda: scene.merge_panoptic(masks, boxes, labels, 53, **options),
        "best of 20 queries": lambda: scene.query_argmax(logits[:20], scores[:20], SIZE, steps),
        "masks of 100 queries": lambda: scene.query_masks(logits, SIZE, steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    masks, boxes = contents()
    ours = scene.paste_masks(masks, boxes, SIZE)
    rivals: dict[str, Callable[[], np.ndarray]] = {
        "torch grid_sample, picture": lambda: torch_paste(masks, boxes, crop=False),
        "numpy, picture": lambda: numpy_paste(masks, boxes),
        "torch grid_sample, box": lambda: torch_paste(masks, boxes, crop=True),
    }
    different = {name: int((run() != ours).sum()) for name, run in rivals.items()}
    times = least({"edgeseg": lambda: scene.paste_masks(masks, boxes, SIZE), **rivals, **others()}, options.repeats)
    base = times["edgeseg"]
    rows = [{"name": name, "ms": ms, "ratio": ms / base, "different": different.get(name)} for name, ms in times.items()]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        more = "" if row["different"] is None else f"  {row['ratio']:6.1f} x  {row['different']} of {ours.size} pixels differ"
        print(f"{row['name']:34s} {row['ms']:9.2f} ms{more}")
    slowest_ratio = min(times[name] / base for name in ("torch grid_sample, picture", "numpy, picture"))
    print(f"goal {GOAL:g} x over the loops: {'held' if slowest_ratio >= GOAL else 'MISSED'} ({slowest_ratio:.1f} x)")


if __name__ == "__main__":
    main()
