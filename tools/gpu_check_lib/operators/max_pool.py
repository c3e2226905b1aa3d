"""MaxPoolArgmax, MaxUnpool and their int64-index forms: cases and oracle.

The oracle is written from max_pool.h alone, window place by window place, in numpy: values are only ever moved, so every
comparison is exact.
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
from gpu_check_lib.case import Arrays, Case, Verdict, values
from gpu_check_lib.device import Call

FORMATS = {"float32": ("linear",), "float16": ("linear", "hwc8"), "int8": ("linear", "chw4", "chw32")}

# title, input shape, kernel, strides, pads (top, left, bottom, right), data
Geometry = tuple[str, tuple[int, int, int, int], tuple[int, int], tuple[int, int], tuple[int, int, int, int], str]
GEOMETRIES: list[Geometry] = [
    ("2x2", (2, 19, 12, 20), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
    ("2x2 odd plane", (2, 3, 7, 9), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
    ("2x2 odd plane padded", (1, 9, 7, 9), (2, 2), (2, 2), (0, 0, 1, 1), "normal"),
    ("2x2 many equal", (1, 8, 32, 48), (2, 2), (2, 2), (0, 0, 0, 0), "ties"),
    ("2x2 wide", (1, 16, 8, 514), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
    ("3x3 stride 2", (1, 19, 13, 21), (3, 3), (2, 2), (1, 1, 1, 1), "normal"),
    ("3x3 stride 1", (1, 5, 8, 11), (3, 3), (1, 1), (1, 1, 1, 1), "ties"),
    ("3x3 stride 3", (2, 4, 9, 12), (3, 3), (3, 3), (0, 0, 0, 0), "normal"),
    ("2x3 stride 3x2", (1, 3, 11, 10), (2, 3), (3, 2), (1, 0, 0, 2), "ties"),
    ("16x16", (1, 2, 33, 40), (16, 16), (8, 8), (0, 0, 0, 0), "ties"),
    ("1x1", (1, 3, 4, 5), (1, 1), (1, 1), (0, 0, 0, 0), "normal"),
    ("C = 1", (1, 1, 6, 6), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
    ("C = 256", (1, 256, 4, 6), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
    ("NaN and infinities", (1, 8, 12, 12), (2, 2), (2, 2), (0, 0, 0, 0), "bad"),
    ("NaN and infinities 3x3", (1, 3, 11, 9), (3, 3), (2, 2), (1, 1, 1, 1), "bad"),
    ("empty batch", (0, 4, 6, 6), (2, 2), (2, 2), (0, 0, 0, 0), "normal"),
]
QUICK = {"2x2", "2x2 odd plane", "3x3 stride 2", "2x3 stride 3x2", "NaN and infinities", "empty batch"}
SANITIZE = {"2x2 odd plane", "2x2 odd plane padded", "3x3 stride 2", "2x3 stride 3x2", "16x16", "empty batch"}
LARGE = ("model size", (2, 64, 90, 120), (2, 2), (2, 2), (0, 0, 0, 0), "normal")


def cases() -> list[Case]:
    return [*_argmax_cases(), *_unpool_cases(), *_indices_cases(), *_refused_cases()]


def _argmax_cases() -> Iterator[Case]:
    for geometry in (*GEOMETRIES, LARGE):
        for dtype, formats in FORMATS.items():
            if dtype == "int8" and geometry[5] == "bad":
                continue
            for format in formats:
                for operator in ("max_pool_argmax", "max_unpool"):
                    yield _case(operator, geometry, dtype, format)

    for dtype, present in FORMATS.items():
        for format in sorted(set(launch.FORMATS) - set(present)):
            for operator in ("max_pool_argmax", "max_unpool"):
                yield _case(operator, GEOMETRIES[0], dtype, format)
                yield _case(operator, GEOMETRIES[5], dtype, format)


def _unpool_cases() -> Iterator[Case]:
    geometry = ("codes that name no place", (1, 9, 7, 9), (2, 2), (2, 2), (0, 0, 1, 1), "any codes")
    padded = ("codes that name padding", (2, 5, 9, 11), (3, 3), (2, 2), (1, 1, 1, 1), "any codes")
    for case in (_case("max_unpool", g, dtype, f) for g in (geometry, padded) for dtype in FORMATS for f in FORMATS[dtype]):
        yield replace(case, quick=True, sanitize=True)


def _indices_cases() -> Iterator[Case]:
    for geometry in (*GEOMETRIES, LARGE):
        for dtype in FORMATS:
            if dtype == "int8" and geometry[5] == "bad":
                continue
            for column_major in (0, 1):
                case = _case("max_pool_indices", geometry, dtype, "linear")
                title = case.title + (" column-major" if column_major else "")
                yield replace(case, title=title, options={**case.options, "column_major": column_major})
            yield _case("max_unpool_indices", geometry, dtype, "linear")
    base = ("", (2, 3, 8, 10), (2, 2), (2, 2), (0, 0, 0, 0), "normal")
    for title, kind in (("indices anywhere, many equal", "duplicates"), ("all indices equal", "one place")):
        for dtype in FORMATS:
            case = _case("max_unpool_indices", (title, *base[1:]), dtype, "linear")
            yield replace(case, options={**case.options, "indices": kind}, quick=True, sanitize=True)
    case = _case("max_unpool_indices", ("indices -1, N, 2^32+3, +-2^63", *base[1:]), "float32", "linear")
    yield replace(case, options={**case.options, "indices": "bad"}, quick=True, sanitize=True, refused="cpu")


def _refused_cases() -> Iterator[Case]:
    for operator in ("max_pool_argmax", "max_unpool", "max_pool_indices", "max_unpool_indices"):
        case = _case(operator, ("wrong type of the output", *GEOMETRIES[0][1:]), "float32", "linear")
        yield replace(case, options={**case.options, "wrong": "type"}, quick=True, refused=True)
        if operator in ("max_pool_argmax", "max_pool_indices"):
            case = _case(operator, ("output larger than the windows reach", *GEOMETRIES[0][1:]), "float32", "linear")
            yield replace(case, options={**case.options, "wrong": "size"}, quick=True, refused=True)


def _case(operator: str, geometry: Geometry, dtype: str, format: str) -> Case:
    title, shape, kernel, strides, pads, data = geometry
    options = {"shape": shape, "kernel": kernel, "strides": strides, "pads": pads, "data": data}
    return Case(operator, title, dtype, format, options, title in QUICK, title in SANITIZE)


def inputs(case: Case) -> Arrays:
    random, pooled = case.random(), _pooled_shape(case)
    x = _data(random, case)
    if case.operator in ("max_pool_argmax", "max_pool_indices"):
        return {"x": x}
    y = values(random, pooled, case.dtype)
    if case.operator == "max_unpool":
        any_code = random.integers(0, 256, pooled).astype(np.uint8)
        few = random.integers(0, case.options["kernel"][0] * case.options["kernel"][1] + 2, pooled).astype(np.uint8)
        mixed = np.where(random.random(pooled) < 0.2, any_code, few)
        return {"y": y, "codes": mixed if case.options["data"] == "any codes" else _pool(case, x)[1]}
    return {"y": y, "indices": _indices(random, case, x)}


def _data(random: np.random.Generator, case: Case) -> NDArray[Any]:
    shape, data = case.options["shape"], case.options["data"]
    if data == "ties":
        return random.integers(-1, 2, shape).astype(case.dtype)
    x = values(random, shape, case.dtype)
    if data == "bad":
        draw = random.random(shape)
        x[draw < 0.5] = -np.inf
        x[draw > 0.95], x[(draw > 0.90) & (draw <= 0.95)] = np.inf, np.nan
        x[:, :, :4, :4] = -np.inf
    return x


def _indices(random: np.random.Generator, case: Case, x: NDArray[Any]) -> NDArray[np.int64]:
    pooled, size = _pooled_shape(case), int(np.prod(case.options["shape"]))
    kind = case.options.get("indices")
    if kind == "duplicates":
        return random.integers(0, size // 4, pooled)
    if kind == "one place":
        return np.full(pooled, size - 1)
    found = _global(case, _pool(case, x)[2])
    if kind == "bad":
        found.reshape(-1)[:6] = (-1, size, 2**32 + 3, -(2**63), 2**63 - 1, -(2**32) + 1)
    return found


def bind(case: Case, arrays: Arrays, call: Call) -> ctypes.Structure:
    options, pooled = case.options, _pooled_shape(case)
    window = launch.Window(*options["kernel"], *options["strides"], *options["pads"][:2])
    wrong_type = "float16" if options.get("wrong") == "type" else case.dtype
    if options.get("wrong") == "size":
        pooled = (*pooled[:2], pooled[2] + 2, pooled[3])
    if case.operator == "max_pool_argmax":
        x, y = call.input(arrays["x"], case.format), call.output("y", wrong_type, pooled, case.format)
        return launch.MaxPoolArgmax(x, y, call.output("codes", "uint8", pooled, case.format), window)
    if case.operator == "max_pool_indices":
        x, y = call.input(arrays["x"], case.format), call.output("y", wrong_type, pooled, case.format)
        indices = call.plain_output("indices", "int64", pooled)
        return launch.MaxPoolIndices(x, y, indices, window, options.get("column_major", 0))
    y, x = call.input(arrays["y"], case.format), call.output("x", wrong_type, options["shape"], case.format)
    if case.operator == "max_unpool":
        return launch.MaxUnpool(y, call.input(arrays["codes"], case.format), x, window)
    workspace = call.workspace(call.device.library.unpool_workspace(x))
    return launch.MaxUnpoolIndices(y, call.pointer(arrays["indices"]), x, workspace)


def expected(case: Case, arrays: Arrays, device: torch.device) -> Arrays:
    if case.operator == "max_pool_argmax":
        y, codes, _ = _pool(case, arrays["x"])
        return {"y": y, "codes": codes}
    if case.operator == "max_pool_indices":
        y, _, places = _pool(case, arrays["x"])
        return {"y": y, "indices": _global(case, places)}
    if case.operator == "max_unpool":
        return {"x": _unpool(case, arrays["y"], _places_of_codes(case, arrays["codes"]))}
    return {"x": _unpool_anywhere(case, arrays["y"], arrays["indices"])}


def check(case: Case, arrays: Arrays, got: Arrays, wanted: Arrays) -> Verdict:
    """Every value is one that went in: nothing is compared with a tolerance."""
    for name, array in got.items():
        if array.shape != wanted[name].shape:
            return Verdict(np.inf, f"{name}: shape {array.shape}, expected {wanted[name].shape}")
        different = (array != wanted[name]) & ~((array != array) & (wanted[name] != wanted[name]))
        if different.any():
            place = tuple(map(int, np.argwhere(different)[0]))
            where = f"{different.sum()} of {different.size} elements, first at {place}"
            return Verdict(np.inf, f"{name}: {where}: {array[place]}, expected {wanted[name][place]}")
    return Verdict(0.0)


def rivals(case: Case, arrays: Arrays, device: torch.device) -> dict[str, Arrays]:
    """torch's own operators, where they mean the same: symmetric padding, no NaN, no code or index that names nothing."""
    options = case.options
    (top, left, bottom, right), kernel = options["pads"], options["kernel"]
    # torch pads both sides alike, by half a kernel at most, and adds no pooling of int8
    odd = (top, left) != (bottom, right) or 2 * top > kernel[0] or 2 * left > kernel[1] or case.dtype == "int8"
    if odd or options["data"] in ("bad", "any codes") or "indices" in options or 0 in options["shape"]:
        return {}
    if case.operator in ("max_pool_argmax", "max_pool_indices"):
        return {"torch": _torch_pool(case, arrays["x"], device)}
    places = _places_of_codes(case, arrays["codes"]) if case.operator == "max_unpool" else _local(case, arrays["indices"])
    if kernel != options["strides"]:
        return {}  # windows overlap: where two name one place, torch leaves open which stays
    y, named = torch.from_numpy(arrays["y"]).to(device), torch.from_numpy(places).to(device)
    x = F.max_unpool2d(y, named, kernel, options["strides"], (top, left), output_size=options["shape"][2:])
    return {"torch": {"x": x.cpu().numpy()}}


def _torch_pool(case: Case, x: NDArray[Any], device: torch.device) -> Arrays:
    options = case.options
    y, found = F.max_pool2d(
        torch.from_numpy(x).to(device), options["kernel"], options["strides"], options["pads"][:2], return_indices=True
    )
    places = found.cpu().numpy()
    if case.operator == "max_pool_indices":
        return {"y": y.cpu().numpy(), "indices": _global(case, places)}
    rows, columns = _corners(case)
    width = options["shape"][3]
    codes = (places // width - rows) * options["kernel"][1] + places % width - columns
    return {"y": y.cpu().numpy(), "codes": codes.astype(np.uint8)}


# --- the oracle ------------------------------------------------------------------------------------------------------


def _pooled_shape(case: Case) -> tuple[int, int, int, int]:
    (n, c, h, w), (kh, kw) = case.options["shape"], case.options["kernel"]
    (sh, sw), (top, left, bottom, right) = case.options["strides"], case.options["pads"]
    return n, c, (h + top + bottom - kh) // sh + 1, (w + left + right - kw) // sw + 1


def _corners(case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row (h, 1) and first column (w,) of each window; they may lie in the padding."""
    *_, h, w = _pooled_shape(case)
    (sh, sw), (top, left, *_) = case.options["strides"], case.options["pads"]
    return (np.arange(h) * sh - top)[:, None], np.arange(w) * sw - left


def _pool(case: Case, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.int64]]:
    """Values, window-local codes and places in the plane."""
    h, w = case.options["shape"][2:]
    rows, columns = _corners(case)
    kernel_h, kernel_w = case.options["kernel"]
    shape = _pooled_shape(case)
    best, code = np.zeros(shape, x.dtype), np.full(shape, -1)
    for dy, dx in np.ndindex(kernel_h, kernel_w):
        row, column = np.broadcast_arrays(rows + dy, columns + dx)
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        value = x[:, :, np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
        better = inside & ((code < 0) | (value > best) | (np.isnan(value) & ~np.isnan(best)))
        best, code = np.where(better, value, best), np.where(better, dy * kernel_w + dx, code)
    places = (rows + code // kernel_w) * w + columns + code % kernel_w
    return best, code.astype(np.uint8), places


def _plane_starts(case: Case) -> NDArray[np.int64]:
    n, c, h, w = case.options["shape"]
    return np.arange(n * c, dtype=np.int64).reshape(n, c, 1, 1) * (h * w)


def _global(case: Case, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the plane to ONNX's indices in the whole tensor, counted columns first where the case says so."""
    h, w = case.options["shape"][2:]
    if case.options.get("column_major"):
        places = places % w * h + places // w
    return places + _plane_starts(case)


def _local(case: Case, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return indices - _plane_starts(case)


def _places_of_codes(case: Case, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places in the plane; -1 where a code names none."""
    h, w = case.options["shape"][2:]
    kernel_h, kernel_w = case.options["kernel"]
    rows, columns = _corners(case)
    wide = codes.astype(np.int64)
    row, column = rows + wide // kernel_w, columns + wide % kernel_w
    inside = (wide < kernel_h * kernel_w) & (row >= 0) & (row < h) & (column >= 0) & (column < w)
    return np.where(inside, row * w + column, -1)


def _unpool(case: Case, y: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    return _unpool_anywhere(case, y, np.where(places < 0, -1, places + _plane_starts(case)))


def _unpool_anywhere(case: Case, y: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    """The later of two that name one place stays: written in order, as a Python loop would."""
    out = np.zeros(case.options["shape"], y.dtype)
    size = out.size
    flat, targets, source = out.reshape(-1), indices.reshape(-1), y.reshape(-1)
    good = np.flatnonzero((targets >= 0) & (targets < size))
    last = np.full(size, -1)
    np.maximum.at(last, targets[good], good)
    named = last >= 0
    flat[named] = source[last[named]]
    return out
