"""RoIAlign: cases, arguments, and torchvision beside them. The oracle is roi_align_oracle.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.ops import launch
from gpu_check_lib.case import Arrays, Case, values
from gpu_check_lib.device import Call
from gpu_check_lib.operators.roi_align_oracle import Settings, levels_of, roi_align

FORMATS = {
    "float32": ("linear", "hwc"),
    "float16": ("linear", "hwc8", "chw16"),
    "int8": ("linear", "chw4", "chw32", "hwc16"),
}
PYRAMID = ((48, 64), (24, 32), (12, 16), (6, 8))  # of an image of 192 x 256 px
BASE: dict[str, Any] = {
    "maps": PYRAMID,
    "images": 2,
    "channels": 19,
    "boxes": "normal",
    "count": 24,
    "size": (7, 7),
    "sampling_ratio": 2,
    "max_mode": 0,
    "aligned": 1,
    "canonical_size": 64.0,
    "canonical_level": 2,
    "index_type": "int64",
}

# title -> what differs from BASE
VARIANTS: dict[str, dict[str, Any]] = {
    "pyramid": {},
    "pyramid 14x14": {"size": (14, 14), "count": 9},
    "not aligned": {"aligned": 0},
    "maximum": {"max_mode": 1},
    "maximum not aligned": {"max_mode": 1, "aligned": 0},
    "sampling ratio 0": {"sampling_ratio": 0, "count": 12},
    "sampling ratio 0 not aligned": {"sampling_ratio": 0, "aligned": 0, "count": 12},
    "sampling ratio 0 maximum": {"sampling_ratio": 0, "max_mode": 1, "count": 12},
    "sampling ratio 3": {"sampling_ratio": 3, "size": (3, 5), "count": 12},
    "sampling ratio 1": {"sampling_ratio": 1},
    "one level": {"maps": PYRAMID[:1], "canonical_level": 0},
    "two levels": {"maps": PYRAMID[:2], "canonical_level": 0},
    "five levels": {"maps": ((96, 128), *PYRAMID), "canonical_level": 3},
    "canonical level below all": {"canonical_level": -3},
    "canonical level above all": {"canonical_level": 9},
    "int32 batch indices": {"index_type": "int32"},
    "1x1": {"size": (1, 1)},
    "C = 1": {"channels": 1},
    "C = 256": {"channels": 256, "count": 6},
    "map of one pixel": {"maps": ((1, 1),), "canonical_level": 0},
    "map of one row": {"maps": ((1, 40), (1, 20)), "canonical_level": 0},
    "boxes at and over the edge": {"boxes": "edge"},
    "boxes at and over the edge, sampling ratio 0": {"boxes": "edge", "sampling_ratio": 0},
    "reversed and empty boxes": {"boxes": "reversed"},
    "reversed and empty boxes, sampling ratio 0": {"boxes": "reversed", "sampling_ratio": 0},
    "reversed and empty boxes, not aligned": {"boxes": "reversed", "aligned": 0, "sampling_ratio": 0},
    "NaN, infinite and huge boxes": {"boxes": "bad", "channels": 5},
    "NaN, infinite and huge boxes, sampling ratio 0": {"boxes": "bad", "channels": 5, "sampling_ratio": 0},
    "NaN, infinite and huge boxes, not aligned": {"boxes": "bad", "channels": 5, "sampling_ratio": 0, "aligned": 0},
    "bad batch indices": {"indices": "bad"},
    "bad int32 batch indices": {"indices": "bad", "index_type": "int32"},
    "no boxes": {"count": 0},
    "no images": {"images": 0, "count": 3},
}
QUICK = {
    *("pyramid", "maximum", "sampling ratio 0", "not aligned", "int32 batch indices", "reversed and empty boxes", "no boxes"),
    *("NaN, infinite and huge boxes, sampling ratio 0", "bad batch indices", "boxes at and over the edge", "C = 1"),
}
SANITIZE = {
    *("pyramid", "maximum", "sampling ratio 0 not aligned", "map of one pixel", "boxes at and over the edge, sampling ratio 0"),
    *("NaN, infinite and huge boxes, sampling ratio 0", "NaN, infinite and huge boxes", "bad batch indices", "C = 1", "no boxes"),
    *("reversed and empty boxes", "bad int32 batch indices"),
}


def cases() -> list[Case]:
    return [*_good_cases(), *_feature_cases(), *_refused_cases()]


def _good_cases() -> Iterator[Case]:
    for title, changes in VARIANTS.items():
        options = {**BASE, **changes}
        for dtype, formats in FORMATS.items():
            for format in formats:
                yield _tolerant(Case("roi_align", title, dtype, format, options, title in QUICK, title in SANITIZE))
    for dtype, present in FORMATS.items():
        for format in sorted(set(launch.FORMATS) - set(present)):
            yield _tolerant(Case("roi_align", "pyramid", dtype, format, {**BASE, "count": 8}))


def _feature_cases() -> Iterator[Case]:
    for max_mode in (0, 1):
        title = "NaN and infinite features maximum" if max_mode else "NaN features"
        options = {**BASE, "max_mode": max_mode, "features": "bad", "channels": 3}
        for dtype in ("float32", "float16"):
            yield _tolerant(Case("roi_align", title, dtype, "linear", options, quick=True))


def _refused_cases() -> Iterator[Case]:
    case = Case("roi_align", "wrong type of the output", "float32", "linear", {**BASE, "wrong": "type"}, quick=True, refused=True)
    yield case
    for title, wrong in (("no levels", "levels"), ("six levels", "six"), ("output of other channels", "channels")):
        yield replace(case, title=title, options={**BASE, "wrong": wrong})


def _tolerant(case: Case) -> Case:
    """Coordinates are float32: on a map of 128 px a sample is known to 1e-5 px, and a feature changes by up to 8 a pixel."""
    sides = max(max(size) for size in case.options["maps"])
    extra = 0.0 if case.dtype == "int8" else sides * float(np.finfo(np.float32).eps) * 8
    return replace(case, tolerance=extra)


def inputs(case: Case) -> Arrays:
    random, options = case.random(), case.options
    shapes = [(options["images"], options["channels"], *size) for size in options["maps"]]
    arrays = {f"feature_{i}": values(random, shape, case.dtype) for i, shape in enumerate(shapes)}
    if options.get("features") == "bad":
        for array in arrays.values():
            draw = random.random(array.shape)
            array[draw < 0.01] = np.nan
            if options["max_mode"]:  # an average may or may not see a neighbour of weight 0: infinity or NaN, by the order of sums
                array[(draw > 0.5) & (draw < 0.51)], array[draw > 0.99] = np.inf, -np.inf
    rois = _boxes(random, options)
    arrays["rois"] = rois
    arrays["batch_indices"] = _batch_indices(random, options, len(rois))
    return arrays


def image_size(options: dict[str, Any]) -> tuple[int, int]:
    """(height, width) in px: the finest map has stride 4."""
    return 4 * options["maps"][0][0], 4 * options["maps"][0][1]


def _boxes(random: np.random.Generator, options: dict[str, Any]) -> NDArray[np.float32]:
    count, kind, (height, width) = options["count"], options["boxes"], image_size(options)
    centres = random.random((count, 2)) * (width, height)
    sides = np.exp(random.uniform(np.log(3), np.log(1.2 * max(height, width)), (count, 2)))
    rois = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    if kind == "edge":
        rois[: count // 2] = np.rint(rois[: count // 2] / 4) * 4
        rois[::3, :2] -= (width, height)
        rois[1::3, 2:] += (width, height)
        rois[:4] = [(0, 0, width, height), (-9, -9, -5, -5), (width + 3, height + 3, width + 20, height + 9), (-4, -4, 4, 4)]
    if kind == "reversed":
        rois[::2] = rois[::2][:, [2, 3, 0, 1]]
        rois[1::4, 2] = rois[1::4, 0]
        rois[3] = rois[3, [0, 1, 0, 1]]
    if kind == "bad":
        wild = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, -3e38, 1e9, -1e9, 65536.0, 0.0, 5.5]
        rois[2:] = random.choice(wild, (count - 2, 4))
        rois[:2] = [(-1e9, -1e9, 1e9, 1e9), (-3e38, 10, 3e38, 20)]
    return rois.astype(np.float32)


def _batch_indices(random: np.random.Generator, options: dict[str, Any], count: int) -> NDArray[Any]:
    images = options["images"]
    indices = random.integers(0, max(images, 1), count)
    if options.get("indices") == "bad":
        wide = [-1, images, -(2**31), 2**31 - 1]
        if options["index_type"] == "int64":
            wide += [2**32, 2**32 + 1, -(2**63), 2**63 - 1]
        indices[: 2 * len(wide)] = wide * 2
    return indices.astype(options["index_type"])


def bind(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    options, wrong = case.options, case.options.get("wrong")
    maps = [call.input(arrays[f"feature_{i}"], case.format) for i in range(len(options["maps"]))]
    maps += [maps[0]] * (launch.MAX_LEVELS - len(maps))
    levels = {"levels": 0, "six": 6}.get(str(wrong), len(options["maps"]))
    channels = options["channels"] + (1 if wrong == "channels" else 0)
    shape = (len(arrays["rois"]), channels, *options["size"])
    output = call.output("y", "float16" if wrong == "type" else case.dtype, shape, case.format)
    return launch.RoiAlign(
        (launch.Tensor * launch.MAX_LEVELS)(*maps),
        (ctypes.c_float * launch.MAX_LEVELS)(*scales(options)),
        levels,
        call.pointer(arrays["rois"]),
        call.pointer(arrays["batch_indices"]),
        launch.TYPES[options["index_type"]],
        output,
        *(options["sampling_ratio"], options["max_mode"], options["aligned"]),
        *(options["canonical_size"], options["canonical_level"]),
    )


def scales(options: dict[str, Any]) -> list[float]:
    return [0.25 / 2**level for level in range(len(options["maps"]))]


def settings(options: dict[str, Any]) -> Settings:
    return Settings(
        options["size"],
        options["sampling_ratio"],
        bool(options["max_mode"]),
        bool(options["aligned"]),
        scales(options),
        options["canonical_size"],
        options["canonical_level"],
    )


def expected(case: Case, arrays: Arrays, device: torch.device) -> Arrays:
    maps = [torch.from_numpy(arrays[f"feature_{i}"]).to(device) for i in range(len(case.options["maps"]))]
    found = roi_align(maps, arrays["rois"], arrays["batch_indices"], settings(case.options))
    return {"y": found.cpu().numpy()}


def rivals(case: Case, arrays: Arrays, device: torch.device) -> dict[str, Arrays]:
    """torch's grid_sample, and torchvision's roi_align where there is one, on boxes that mean the same to all."""
    options = case.options
    sane = options["boxes"] == "normal" and not {"features", "indices"} & options.keys() and options["count"] and options["images"]
    if not sane or options["max_mode"] or case.dtype == "int8":
        return {}
    makers = {"torchvision": _torchvision()} | ({"torch grid_sample": grid_sampled} if options["sampling_ratio"] else {})
    return {name: {"y": _by_level(case, arrays, device, make)} for name, make in makers.items() if make}


OneLevel = Callable[[Tensor, Tensor, tuple[int, int], float, int, bool], Tensor]


def _by_level(case: Case, arrays: Arrays, device: torch.device, one_level: OneLevel) -> NDArray[Any]:
    """Level by level in float32."""
    options, rois = case.options, arrays["rois"]
    levels = levels_of(rois, settings(options), len(options["maps"]))
    y = torch.zeros((len(rois), options["channels"], *options["size"]), device=device)
    for level, scale in enumerate(scales(options)):
        chosen = np.flatnonzero(levels == level)
        boxes = np.concatenate([arrays["batch_indices"][chosen, None].astype(np.float32), rois[chosen]], axis=1)
        features = torch.from_numpy(arrays[f"feature_{level}"]).to(device).float()
        rest = (options["size"], scale, options["sampling_ratio"], bool(options["aligned"]))
        if len(chosen):
            y[torch.from_numpy(chosen).to(device)] = one_level(features, torch.from_numpy(boxes).to(device), *rest)
    return y.cpu().numpy()


def _torchvision() -> OneLevel | None:
    try:
        theirs: OneLevel = import_module("torchvision.ops").roi_align
    except Exception:
        return None  # none, or one made for another torch: describe_gpu tells which
    return theirs


def grid_sampled(features: Tensor, boxes: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """torchvision's roi_align by grid_sample and avg_pool2d; ``boxes`` (K, 5) with the image first, ``ratio`` above 0."""
    grid, inside = sample_grid(boxes[:, 1:], size, scale, ratio, aligned, (features.shape[2], features.shape[3]))
    sampled = F.grid_sample(features[boxes[:, 0].long()], grid, padding_mode="border", align_corners=False)
    return F.avg_pool2d(sampled * inside[:, None], ratio)


def sample_grid(
    boxes: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool, pixels: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Sample positions for grid_sample, (K, oh * ratio, ow * ratio, 2), and which the map reaches; ``boxes`` (K, 4)."""
    low = boxes[:, :2] * scale - 0.5 * aligned
    extent = boxes[:, 2:] * scale - 0.5 * aligned - low
    extent = extent if aligned else extent.clamp(min=1)
    steps = [(torch.arange(bins * ratio, device=boxes.device) + 0.5) / (bins * ratio) for bins in size[::-1]]
    x, y = (low[:, axis, None] + extent[:, axis, None] * steps[axis] for axis in (0, 1))
    inside = ((y >= -1) & (y <= pixels[0]))[:, :, None] & ((x >= -1) & (x <= pixels[1]))[:, None, :]
    x, y = (2 * x + 1) / pixels[1] - 1, (2 * y + 1) / pixels[0] - 1
    return torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1), inside
