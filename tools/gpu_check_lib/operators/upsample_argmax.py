"""UpsampleArgmax: cases and oracle.

Labels are compared by what they cost: where the class that was chosen lies below the best one by no more than float32 coordinates
may be off, either is right. Where every product is exact (small integers, powers of two), labels must be equal.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgeseg.ops import launch
from gpu_check_lib.case import TOLERANCES, Arrays, Case, Verdict, judge, values
from gpu_check_lib.device import Call

FORMATS = {"float32": ("linear",), "float16": ("linear", "hwc8"), "int8": ("linear", "chw4", "chw32")}
HUGE = 1e30  # logits are clamped to +-HUGE; NaN counts as -HUGE
EPSILON = float(np.finfo(np.float32).eps)
PROBABILITY = 1e-5

# title, logits shape, output size, data
GEOMETRIES: list[tuple[str, tuple[int, int, int, int], tuple[int, int], str]] = [
    ("x4", (2, 19, 16, 24), (64, 96), "normal"),
    ("x8", (1, 19, 16, 32), (128, 256), "normal"),
    ("x4 small integers", (1, 5, 17, 31), (68, 124), "ties"),
    ("odd ratio", (1, 21, 13, 17), (37, 71), "normal"),
    ("smaller", (1, 4, 20, 30), (7, 11), "normal"),
    ("same size", (1, 11, 9, 14), (9, 14), "ties"),
    ("one pixel", (2, 6, 1, 1), (5, 9), "normal"),
    ("to one pixel", (1, 6, 8, 8), (1, 1), "normal"),
    ("one row", (1, 3, 1, 40), (4, 160), "normal"),
    ("C = 1", (2, 1, 12, 18), (48, 72), "normal"),
    ("C = 2", (1, 2, 12, 18), (48, 72), "ties"),
    ("C = 256", (1, 256, 8, 10), (32, 40), "normal"),
    ("all equal", (1, 19, 8, 8), (32, 32), "equal"),
    ("NaN and infinities", (1, 7, 12, 16), (48, 64), "bad"),
    ("C = 1 NaN and infinities", (1, 1, 12, 16), (48, 64), "bad"),
    ("regions", (1, 19, 24, 40), (192, 320), "regions"),
    ("empty batch", (0, 5, 8, 8), (32, 32), "normal"),
]
QUICK = {"x4", "x4 small integers", "odd ratio", "C = 1", "C = 256", "all equal", "NaN and infinities", "empty batch"}
SANITIZE = {"odd ratio", "smaller", "one pixel", "one row", "C = 1", "C = 256", "NaN and infinities", "empty batch"}


def cases() -> list[Case]:
    return [*_good_cases(), *_refused_cases()]


def _good_cases() -> Iterator[Case]:
    for title, shape, size, data in GEOMETRIES:
        for dtype, formats in FORMATS.items():
            if dtype == "int8" and data == "bad":
                continue
            for format in formats:
                for aligned in (0, 1):
                    options = {"shape": shape, "size": size, "data": data, "align_corners": aligned, "probability": True}
                    name = title + (" align-corners" if aligned else "")
                    yield Case("upsample_argmax", name, dtype, format, options, title in QUICK, title in SANITIZE and not aligned)
        options = {"shape": shape, "size": size, "data": data, "align_corners": 0, "probability": False}
        yield Case("upsample_argmax", f"{title} labels alone", "float16", "linear", options, title in QUICK, title in SANITIZE)

    for dtype, present in FORMATS.items():
        for format in sorted(set(launch.FORMATS) - set(present)):
            options = {"shape": (1, 19, 13, 17), "size": (37, 71), "data": "normal", "align_corners": 0, "probability": True}
            yield Case("upsample_argmax", "odd ratio", dtype, format, options)


def _refused_cases() -> Iterator[Case]:
    options = {"shape": (1, 257, 4, 4), "size": (8, 8), "data": "normal", "align_corners": 0, "probability": False}
    case = Case("upsample_argmax", "C = 257", "float32", "linear", options, quick=True, refused=True)
    yield case
    few = {**options, "shape": (1, 5, 4, 4)}
    yield replace(case, title="wrong type of the labels", options={**few, "wrong": "type"})
    yield replace(case, title="labels of another batch", options={**few, "wrong": "batch"})


def inputs(case: Case) -> Arrays:
    random, shape, data = case.random(), case.options["shape"], case.options["data"]
    if data == "ties":
        return {"logits": random.integers(-3, 4, shape).astype(case.dtype)}
    if data == "equal":
        return {"logits": np.full(shape, 3, case.dtype)}
    if data == "regions":
        return {"logits": _regions(random, shape).astype(case.dtype)}
    logits = values(random, shape, case.dtype)
    if case.dtype != "int8":
        logits *= 4
    if data == "bad":
        draw = random.random(shape)
        logits[draw < 0.1], logits[(draw > 0.8) & (draw < 0.9)], logits[draw > 0.93] = np.nan, np.inf, -np.inf
        logits[:, :, :3, :3] = np.nan
    return {"logits": logits}


def _regions(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    """Logits as networks give them: blocks where one class leads."""
    n, c, h, w = shape
    winner = np.kron(random.integers(0, c, (n, h // 8, w // 8)), np.ones((8, 8), np.int64))
    return random.standard_normal(shape) + 12.0 * (winner[:, None] == np.arange(c)[:, None, None])


def bind(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    options = case.options
    n = case.options["shape"][0] + (1 if options.get("wrong") == "batch" else 0)
    plane = (n, 1, *options["size"])
    labels = call.output("labels", "float32" if options.get("wrong") == "type" else "uint8", plane)
    probability = call.plain_output("probability", "float32", plane) if options["probability"] else None
    logits = call.input(arrays["logits"], case.format)
    return launch.UpsampleArgmax(logits, labels, probability, options["align_corners"], _threshold(case), _scale(case))


def _threshold(case: Case) -> float:
    return 0.25


def _scale(case: Case) -> float:
    return 0.0625 if case.dtype == "int8" else 1.0


def expected(case: Case, arrays: Arrays, device: torch.device) -> Arrays:
    """Labels, the probability, and for ``check`` the upsampled logits and their magnitudes, all float64."""
    scaled = arrays["logits"].astype(np.float64) * _scale(case)
    clean = np.clip(np.where(np.isnan(scaled), -HUGE, scaled), -HUGE, HUGE)
    upsampled, magnitude = _upsample(case, clean), _upsample(case, np.abs(clean))
    if case.options["shape"][1] == 1:
        labels = upsampled > _threshold(case)
        probability = 1 / (1 + np.exp(-np.clip(upsampled, -700, 700)))
    else:
        labels = upsampled.argmax(axis=1, keepdims=True)
        best = upsampled.max(axis=1, keepdims=True)
        probability = 1 / np.exp(np.maximum(upsampled - best, -700)).sum(axis=1, keepdims=True)
    return {"labels": labels.astype(np.uint8), "probability": probability, "upsampled": upsampled, "magnitude": magnitude}


def _upsample(case: Case, clean: NDArray[np.float64]) -> NDArray[np.float64]:
    (height, width), aligned = case.options["size"], case.options["align_corners"]
    top, bottom, fy = _taps(clean.shape[2], height, aligned)
    left, right, fx = _taps(clean.shape[3], width, aligned)
    rows = clean[:, :, top] * (1 - fy)[:, None] + clean[:, :, bottom] * fy[:, None]
    return rows[..., left] * (1 - fx) + rows[..., right] * fx


def _taps(size_in: int, size_out: int, aligned: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    places = np.arange(size_out, dtype=np.float64)
    source = places * ((size_in - 1) / max(size_out - 1, 1)) if aligned else (places + 0.5) * (size_in / size_out) - 0.5
    source = np.clip(source, 0, size_in - 1)
    low = np.floor(source).astype(np.int64)
    return low, np.minimum(low + 1, size_in - 1), source - low


def check(case: Case, arrays: Arrays, got: Arrays, wanted: Arrays) -> Verdict:
    """Labels within the slack, then the probability of the class that was chosen."""
    if got["labels"].shape != wanted["labels"].shape:
        return Verdict(np.inf, f"labels {got['labels'].shape}, expected {wanted['labels'].shape}")
    if got["labels"].size == 0:
        return Verdict(0.0)
    verdict = _check_labels(case, got["labels"], wanted)
    if verdict.problem or "probability" not in got:
        return verdict
    known = wanted["magnitude"].max(axis=1, keepdims=True) < HUGE / 1e6  # beyond, differences drown in rounding
    probability = np.where(known, got["probability"], np.clip(got["probability"], 0, 1))
    wanted_there = np.where(known, wanted["probability"], probability)
    found = judge(got["probability"], wanted_there, PROBABILITY + 2 * float(_slack(case, wanted, 0)[known].max(initial=0)))
    return Verdict(max(verdict.error, found.error), found.problem and f"probability: {found.problem}")


def _check_labels(case: Case, labels: NDArray[np.uint8], wanted: Arrays) -> Verdict:
    upsampled, classes = wanted["upsampled"], wanted["upsampled"].shape[1]
    different = labels != wanted["labels"]
    chosen = np.minimum(labels, classes - 1).astype(np.int64)
    if classes == 1:
        cost = np.where(different, np.abs(upsampled - _threshold(case)), 0)
    else:
        cost = upsampled.max(axis=1, keepdims=True) - np.take_along_axis(upsampled, chosen, axis=1)
    cost = np.where(labels >= max(classes, 2), np.inf, cost)
    wrong = different & ((cost > _slack(case, wanted, chosen)) | _exact(case))
    if not wrong.any():
        return Verdict(float(cost.max()) if np.abs(upsampled).max() < HUGE / 1e6 else 0.0)
    place = tuple(map(int, np.argwhere(wrong)[0]))
    return Verdict(float(cost.max()), f"{wrong.sum()} labels, first at {place}, {float(cost[place]):.3g} below the best")


def _slack(case: Case, wanted: Arrays, chosen: Any) -> NDArray[np.float64]:
    """How far float32 may put the logits of the class chosen and of the best one, pixel by pixel."""
    magnitude = wanted["magnitude"]
    best = np.take_along_axis(magnitude, wanted["upsampled"].argmax(axis=1, keepdims=True), axis=1)
    there = np.take_along_axis(magnitude, np.broadcast_to(chosen, best.shape), axis=1)
    coordinates = 4 * EPSILON * max(case.options["shape"][2:])
    return (TOLERANCES["float32"] + coordinates) * np.maximum(1.0, np.maximum(best, there))


def _exact(case: Case) -> bool:
    """Whether float32 holds every product: small integers, weights that are powers of two."""
    if case.options["data"] not in ("ties", "equal"):
        return False
    pairs = zip(case.options["shape"][2:], case.options["size"], strict=True)
    return not case.options["align_corners"] and all(
        out % size == 0 and (out // size) & (out // size - 1) == 0 for size, out in pairs
    )


def rivals(case: Case, arrays: Arrays, device: torch.device) -> dict[str, Arrays]:
    """torch: interpolate in float32, then argmax."""
    options = case.options
    if options["data"] == "bad" or options["shape"][0] == 0 or options["shape"][1] == 1:
        return {}
    logits = torch.from_numpy(arrays["logits"]).to(device).float() * _scale(case)
    upsampled = F.interpolate(logits, options["size"], mode="bilinear", align_corners=bool(options["align_corners"]))
    result = {"labels": upsampled.argmax(1, keepdim=True).to(torch.uint8).cpu().numpy()}
    if options["probability"]:
        result["probability"] = upsampled.softmax(1).amax(1, keepdim=True).cpu().numpy()
    return {"torch": result}
