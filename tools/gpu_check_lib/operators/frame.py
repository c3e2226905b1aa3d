"""Preprocess and Overlay: cases and oracle (frame.h; BT.601 limited range for NV12, half-pixel bilinear, integer blending)."""

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
from gpu_check_lib.case import Arrays, Case
from gpu_check_lib.device import Call

KINDS = {"BGR": 0, "NV12": 1, "depth": 2}
FORMATS = {
    "float32": ("linear", "hwc"),
    "float16": ("linear", "hwc8", "chw16"),
    "int8": ("linear", "chw4", "chw32", "hwc16"),
}
MUL, ADD = (1 / 58.395, 1 / 57.12, 1 / 57.375), (-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375)
INT8_MUL, INT8_ADD = (0.9, 1.0, 1.1), (-120.0, -128.0, -140.0)
LUMA = (0.114, 0.587, 0.299)  # of B, G, R

# title -> kind, frame (h, w), output (h, w), channels, bytes behind each row, red first
GEOMETRIES: dict[str, tuple[str, tuple[int, int], tuple[int, int], int, int, int]] = {
    "BGR": ("BGR", (36, 64), (24, 24), 3, 0, 1),
    "BGR larger": ("BGR", (17, 23), (40, 61), 3, 5, 0),
    "BGR same size": ("BGR", (12, 20), (12, 20), 3, 0, 0),
    "BGR to luma": ("BGR", (30, 41), (16, 20), 1, 1, 1),
    "BGR one pixel": ("BGR", (1, 1), (3, 5), 3, 0, 1),
    "NV12": ("NV12", (36, 64), (24, 25), 3, 0, 1),
    "NV12 larger": ("NV12", (18, 22), (40, 61), 3, 10, 0),
    "NV12 to luma": ("NV12", (18, 22), (9, 11), 1, 0, 0),
    "NV12 chroma apart": ("NV12", (16, 24), (20, 20), 3, 8, 1),
    "depth": ("depth", (48, 64), (24, 31), 1, 0, 0),
    "depth larger": ("depth", (15, 20), (44, 50), 1, 6, 0),
    "wide frame": ("BGR", (2, 1922), (2, 961), 3, 2, 1),
}
QUICK = {"BGR", "BGR to luma", "NV12", "depth"}
SANITIZE = {"BGR larger", "BGR one pixel", "NV12 larger", "NV12 chroma apart", "depth larger"}

OVERLAYS: dict[str, dict[str, Any]] = {
    "picture": {"size": (33, 50), "alpha": 128},
    "strides": {"size": (20, 31), "alpha": 77, "padding": (5, 9)},
    "in place": {"size": (20, 31), "alpha": 200, "in_place": True},
    "alpha 0": {"size": (9, 16), "alpha": 0},
    "alpha 256": {"size": (9, 16), "alpha": 256},
    "all ignored": {"size": (9, 40), "alpha": 100, "label": 255},
    "one pixel": {"size": (1, 1), "alpha": 100},
    "nothing": {"size": (0, 8), "alpha": 100},
}


def cases() -> list[Case]:
    return [*_preprocess_cases(), *_overlay_cases(), *_refused_cases()]


def _preprocess_cases() -> Iterator[Case]:
    for title, (kind, frame, size, channels, padding, swap) in GEOMETRIES.items():
        options = {"kind": kind, "frame": frame, "size": size, "channels": channels, "padding": padding, "swap": swap}
        for dtype, formats in FORMATS.items():
            for format in formats:
                yield Case("preprocess", title, dtype, format, options, title in QUICK, title in SANITIZE)


def _overlay_cases() -> Iterator[Case]:
    for title, options in OVERLAYS.items():
        yield Case(
            "overlay", title, "uint8", "linear", {"padding": (0, 0), **options}, True, title in ("strides", "in place", "one pixel")
        )


def _refused_cases() -> Iterator[Case]:
    kind, frame, size, _, padding, swap = GEOMETRIES["depth"]
    options = {"kind": kind, "frame": frame, "size": size, "channels": 3, "padding": padding, "swap": swap}
    yield Case("preprocess", "three channels of depth", "float32", "linear", options, quick=True, refused=True)
    yield Case("preprocess", "five channels", "float32", "linear", {**options, "kind": "BGR", "channels": 5}, refused=True)
    odd = {**options, "kind": "NV12", "frame": (15, 21)}
    yield Case("preprocess", "NV12 of odd size", "float32", "linear", odd, quick=True, refused=True)
    case = Case("overlay", "alpha 257", "uint8", "linear", {"padding": (0, 0), "size": (4, 4), "alpha": 257}, True, refused=True)
    yield case
    yield replace(case, title="alpha -1", options={**case.options, "alpha": -1})


def inputs(case: Case) -> Arrays:
    return _overlay_inputs(case) if case.operator == "overlay" else _preprocess_inputs(case)


def _preprocess_inputs(case: Case) -> Arrays:
    """Rows with their padding: (h, stride) uint8, for depth uint16."""
    random, options = case.random(), case.options
    (h, w), padding = options["frame"], options["padding"]
    if options["kind"] == "depth":
        frame = random.integers(400, 9000, (h, w + padding // 2)).astype(np.uint16)
        frame[random.random(frame.shape) < 0.3] = 0
        frame[random.random(frame.shape) < 0.05] = 65535
        return {"frame": frame}
    width = 3 * w if options["kind"] == "BGR" else w
    arrays = {"frame": random.integers(0, 256, (h, width + padding)).astype(np.uint8)}
    if options["kind"] == "NV12":
        arrays["chroma"] = random.integers(0, 256, (-(-h // 2), width + padding)).astype(np.uint8)
    return arrays


def _overlay_inputs(case: Case) -> Arrays:
    random, (h, w) = case.random(), case.options["size"]
    labels = random.integers(0, 256, (h, w)).astype(np.uint8)
    labels[random.random((h, w)) < 0.2] = 255
    if "label" in case.options:
        labels[:] = case.options["label"]
    frame = random.integers(0, 256, (h, 3 * w + case.options["padding"][0])).astype(np.uint8)
    return {"frame": frame, "labels": labels, "palette": random.integers(0, 256, (256, 3)).astype(np.uint8)}


def bind(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    return _bind_overlay(case, arrays, call) if case.operator == "overlay" else _bind_preprocess(case, arrays, call)


def _bind_preprocess(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    options, frame, chroma = case.options, arrays["frame"], None
    if options["kind"] == "NV12" and "apart" in case.title:
        chroma = call.pointer(arrays["chroma"])
    elif options["kind"] == "NV12":
        frame = np.concatenate([frame, arrays["chroma"]])
    y = call.output("y", case.dtype, (1, options["channels"], *options["size"]), case.format)
    stride = frame.shape[1] * frame.itemsize
    triple, (mul, add) = ctypes.c_float * 3, _scaling(case)
    return launch.Preprocess(
        *(call.pointer(frame), chroma, stride, KINDS[options["kind"]], *options["frame"], y),
        *(triple(*mul), triple(*add), options["swap"]),
    )


def _scaling(case: Case) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if case.options["kind"] == "depth":
        return ((0.01, 0, 0), (-60.0, 0, 0)) if case.dtype == "int8" else ((0.001, 0, 0), (-0.5, 0, 0))
    return (INT8_MUL, INT8_ADD) if case.dtype == "int8" else (MUL, ADD)


def _bind_overlay(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    (h, w), (_, behind), frame = case.options["size"], case.options["padding"], arrays["frame"]
    if case.options.get("in_place"):
        source = out = call.in_place("out", frame)
        behind = frame.shape[1] - 3 * w
    else:
        source, out = call.pointer(frame), call.plain_output("out", "uint8", (h, 3 * w + behind))
    labels, palette = call.pointer(arrays["labels"]), call.pointer(arrays["palette"])
    return launch.Overlay(source, frame.shape[1], out, 3 * w + behind, labels, palette, h, w, case.options["alpha"])


def expected(case: Case, arrays: Arrays, device: torch.device) -> Arrays:
    if case.operator == "overlay":
        return {"out": _overlay(case, arrays)}
    mul, add = (
        np.array(values, np.float32).astype(np.float64)[: case.options["channels"], None, None] for values in _scaling(case)
    )
    return {"y": (_planes(case, arrays) * mul + add)[None]}


def selected(case: Case, got: Arrays) -> Arrays:
    """Without the bytes behind each row, which are nobody's."""
    return {"out": got["out"][:, : 3 * case.options["size"][1]]} if case.operator == "overlay" else got


def unselected(case: Case, got: Arrays) -> Arrays:
    """The bytes behind each row, which nobody may write to."""
    if case.operator != "overlay" or case.options.get("in_place"):
        return {}
    return {"out": got["out"][:, 3 * case.options["size"][1] :]}


def _overlay(case: Case, arrays: Arrays) -> NDArray[np.uint8]:
    (h, w), alpha = case.options["size"], case.options["alpha"]
    frame, labels = arrays["frame"][:, : 3 * w].reshape(h, w, 3), arrays["labels"]
    blended = (frame.astype(np.int64) * (256 - alpha) + arrays["palette"].astype(np.int64)[labels] * alpha + 128) >> 8
    return np.where((labels == 255)[..., None], frame, blended).astype(np.uint8).reshape(h, 3 * w)


def _planes(case: Case, arrays: Arrays) -> NDArray[np.float64]:
    """(C, H, W) in the output's order of channels, before scaling."""
    options = case.options
    (h, w), size = options["frame"], options["size"]
    if options["kind"] == "depth":
        depth = arrays["frame"][:, :w].astype(np.float64)
        known = _resized((depth > 0).astype(np.float64)[None], size)
        return np.where(known > 0, _resized(depth[None], size) / np.where(known > 0, known, 1), 0.0)
    bgr = arrays["frame"][:, : 3 * w].reshape(h, w, 3).astype(np.float64) if options["kind"] == "BGR" else _nv12(arrays, h, w)
    planes = _resized(bgr.transpose(2, 0, 1), size)
    if options["channels"] == 1:
        return np.tensordot(LUMA, planes, 1)[None]
    return planes[::-1] if options["swap"] else planes


def _nv12(arrays: Arrays, h: int, w: int) -> NDArray[np.float64]:
    """(h, w, 3) BGR, 0..255: ITU-R BT.601, limited range, every 2x2 block with the chroma it shares."""
    luma = np.maximum(arrays["frame"][:, :w].astype(np.float64) - 16, 0) * 255 / 219
    chroma = arrays["chroma"][:, :w].reshape(h // 2, w // 2, 2).astype(np.float64).repeat(2, 0).repeat(2, 1) - 128
    kr, kb, (u, v) = 0.299, 0.114, np.moveaxis(chroma * 255 / 224, -1, 0)
    red, blue = luma + 2 * (1 - kr) * v, luma + 2 * (1 - kb) * u
    green = luma - 2 * (1 - kb) * kb / (1 - kr - kb) * u - 2 * (1 - kr) * kr / (1 - kr - kb) * v
    return np.clip(np.stack([blue, green, red], axis=-1), 0, 255)


def _resized(planes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    top, bottom, fy = _taps(planes.shape[1], size[0])
    left, right, fx = _taps(planes.shape[2], size[1])
    rows = planes[:, top] * (1 - fy)[:, None] + planes[:, bottom] * fy[:, None]
    return rows[..., left] * (1 - fx) + rows[..., right] * fx


def _taps(size_in: int, size_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """In integers: a tap of weight 0 is 0 exactly, which decides what depth is known."""
    numerator = np.clip((2 * np.arange(size_out) + 1) * size_in - size_out, 0, 2 * size_out * (size_in - 1))
    low, rest = np.divmod(numerator, 2 * size_out)
    return low, np.minimum(low + 1, size_in - 1), rest / (2 * size_out)


def rivals(case: Case, arrays: Arrays, device: torch.device) -> dict[str, Arrays]:
    """torch's interpolate of a BGR frame."""
    options = case.options
    if (
        case.operator == "overlay"
        or options["kind"] != "BGR"
        or options["channels"] == 1
        or case.dtype == "int8"
        or max(options["frame"]) > 512
    ):
        return {}  # torch computes coordinates in float32: off by more than the tolerance in a wide frame
    (h, w), (mul, add) = options["frame"], _scaling(case)
    frame = torch.from_numpy(arrays["frame"][:, : 3 * w].copy()).to(device).view(h, w, 3).permute(2, 0, 1)[None].float()
    planes = F.interpolate(frame, options["size"], mode="bilinear")
    planes = planes.flip(1) if options["swap"] else planes
    scale, shift = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mul, add))
    return {"torch": {"y": (planes * scale + shift).cpu().numpy()}}
