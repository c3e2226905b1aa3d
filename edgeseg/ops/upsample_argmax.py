"""Bilinear upsampling fused with argmax: float64 reference, face of the CPU twin, ONNX bodies.

With two or more classes a pixel's label is the class of the highest interpolated logit, the lowest of equal ones, and its
probability the softmax of that class; with one class it is 1 where the interpolated logit exceeds a threshold, and the
probability is the logit's sigmoid. NaN counts as -1e30 and logits are clamped to +-1e30; the ONNX bodies promise nothing
for either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, TensorProto

from edgeseg.ops import launch
from edgeseg.ops.bilinear import resize
from edgeseg.ops.body import BodyWriter
from edgeseg.ops.functions import Bodies, Shape

Array = NDArray[Any]
Labels = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Size = tuple[int, int]

HUGE = 1e30


# --- reference --------------------------------------------------------------------------------------------------------


def upsampled_reference(logits: Array, size: Size, align_corners: bool = False) -> Doubles:
    """(N, C, h, w) of any type, cleaned and interpolated bilinearly to (N, C, *size)."""
    clean = np.clip(np.nan_to_num(logits.astype(np.float64), nan=-HUGE), -HUGE, HUGE)
    return resize(clean, size, align_corners)


def upsample_argmax_reference(
    logits: Array, size: Size, align_corners: bool = False, threshold: float = 0.0, logit_scale: float = 1.0
) -> tuple[Labels, Doubles]:
    """Labels uint8 and probabilities, both (N, *size), of logits (N, C, h, w); one logit is ``logit_scale`` times a code."""
    scores = upsampled_reference(logits, size, align_corners) * logit_scale
    with np.errstate(over="ignore"):
        if logits.shape[1] == 1:
            return (scores[:, 0] > threshold).astype(np.uint8), 1 / (1 + np.exp(-scores[:, 0]))
        best = scores.max(axis=1)
        return scores.argmax(axis=1).astype(np.uint8), 1 / np.exp(scores - best[:, None]).sum(axis=1)


# --- the CPU twin -----------------------------------------------------------------------------------------------------


def upsample_argmax(
    logits: Array,
    size: Size,
    *,
    align_corners: bool = False,
    threshold: float = 0.0,
    logit_scale: float = 1.0,
    format: str = "linear",
    threads: int = 1,
) -> tuple[Labels, NDArray[np.float32]]:
    """Labels uint8 and probabilities float32, both (N, *size).

    Args:
        logits: (N, C, h, w) float32, float16 or int8, C in 1..256.
        threshold: of C = 1, on the logit.
        logit_scale: of int8 logits.
        format: the memory format in which the twin is handed them.

    Raises:
        ValueError: a type, shape or scale that the operator does not have.
    """
    arguments, keep = c_arguments(logits, size, align_corners, threshold, logit_scale, format)
    launch.cpu_library().run("upsample_argmax", arguments, threads)
    return keep[1], keep[2]


def c_arguments(
    logits: Array, size: Size, align_corners: bool, threshold: float, logit_scale: float, format: str
) -> tuple[launch.UpsampleArgmax, tuple[Array, Labels, NDArray[np.float32]]]:
    """The C structure, and the arrays it points at: packed logits, labels and probabilities (N, *size)."""
    if logits.ndim != 4 or logits.dtype.name not in launch.TYPES:
        raise ValueError(f"logits {logits.shape} {logits.dtype}; expected (N, C, h, w) float32, float16 or int8")
    packed = launch.pack(logits, format)
    labels, probability = np.empty((len(logits), *size), np.uint8), np.empty((len(logits), *size), np.float32)
    arguments = launch.UpsampleArgmax(
        launch.tensor_of(packed, logits.shape, format),
        launch.tensor_of(labels, (len(logits), 1, *size)),
        probability.ctypes.data,
        align_corners,
        threshold,
        logit_scale,
    )
    return arguments, (packed, labels, probability)


# --- ONNX bodies ------------------------------------------------------------------------------------------------------


def standard_body(name: str, attributes: dict[str, Any], shapes: list[Shape]) -> FunctionProto:
    """Resize, ArgMax, Cast. Without a shape, ``threshold`` among the attributes tells that there is one class."""
    body = BodyWriter()
    batch = body.op("Shape", "logits", start=0, end=2)
    sizes = body.op("Concat", batch, list(attributes["size"]), axis=0)
    return _finish(body, name, attributes, shapes, sizes)


def primitive_body(name: str, attributes: dict[str, Any], shapes: list[Shape]) -> FunctionProto:
    """The same for the static shape of the logits, whose batch and classes are constants."""
    body = BodyWriter()
    shape = shapes[0]
    if shape is None:
        return standard_body(name, attributes, shapes)
    return _finish(body, name, attributes, shapes, body.constant([*shape[:2], *attributes["size"]]))


def _finish(body: BodyWriter, name: str, attributes: dict[str, Any], shapes: list[Shape], sizes: str) -> FunctionProto:
    mode = "align_corners" if attributes.get("align_corners") else "half_pixel"
    logits = body.op("Cast", "logits", to=TensorProto.FLOAT)
    scores = body.op("Resize", logits, "", "", sizes, mode="linear", coordinate_transformation_mode=mode)
    shape = shapes[0] if shapes else None
    single = shape[1] == 1 if shape else "threshold" in attributes
    results = _threshold(body, scores, attributes.get("threshold", 0.0)) if single else _argmax(body, scores)
    return body.finish(name, ["logits"], results)


def _argmax(body: BodyWriter, scores: str) -> dict[str, str]:
    labels = body.op("Cast", body.op("ArgMax", scores, axis=1, keepdims=0), to=TensorProto.UINT8)
    above = body.op("Sub", scores, body.op("ReduceMax", scores, [1]))
    return {"labels": labels, "probability": body.op("Reciprocal", body.op("ReduceSum", body.op("Exp", above), [1], keepdims=0))}


def _threshold(body: BodyWriter, scores: str, threshold: float) -> dict[str, str]:
    plane = body.op("Squeeze", scores, [1])
    labels = body.op("Cast", body.op("Greater", plane, float(threshold)), to=TensorProto.UINT8)
    return {"labels": labels, "probability": body.op("Sigmoid", plane)}


BODIES = {"UpsampleArgmax": Bodies(standard_body, primitive_body)}
