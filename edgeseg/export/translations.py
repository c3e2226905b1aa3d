"""How our PyTorch operators become ONNX nodes: of domain ``edgeseg``, or standard ``MaxPool`` with Indices and ``MaxUnpool``.

torch's own exporter decomposes the pools to scatters, which no deployment runtime runs fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript import opset18 as op
from onnxscript import values

import edgeseg.ops.pytorch.max_pool
import edgeseg.ops.pytorch.roi_align
import edgeseg.ops.pytorch.upsample_argmax  # noqa: F401  all three register the operators
from edgeseg.ops.functions import DOMAIN, VERSION

OPERATORS = ("edgeseg", "standard")
Table = dict[Callable[..., Any], Callable[..., Any]]


def translations(operators: str) -> Table:
    """The exporter's table of our PyTorch operators.

    Args:
        operators: "edgeseg" for nodes of ours, which need ``edgeseg.ops.functions.attach``; "standard" for ONNX's own
            pools, which only our networks' max_pool_indices and max_unpool can be.
    """
    return {**_ANY, **(_STANDARD if operators == "standard" else _OURS)}


# --- nodes of ours -------------------------------------------------------------------------------------------------------


def _operator(name: str, inputs: str, outputs: str, **attributes: str) -> values.Op:
    """A node of ours for the exporter, which wants a schema: values by name, ``*`` for any number, attributes by type."""
    kinds = {"codes": "C", "labels": "C", "tensors": "A"}

    def formal(item: str) -> OpSchema.FormalParameter:
        option = OpSchema.FormalParameterOption.Variadic if item.endswith("*") else OpSchema.FormalParameterOption.Single
        name = item.rstrip("*")
        return OpSchema.FormalParameter(name, kinds.get(name, "T"), param_option=option, is_homogeneous=name != "tensors")

    schema = OpSchema(
        name,
        DOMAIN,
        VERSION,
        inputs=[formal(item) for item in inputs.split()],
        outputs=[formal(item) for item in outputs.split()],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)"], ""),
            ("C", ["tensor(uint8)"], ""),
            ("A", ["tensor(float)", "tensor(float16)", "tensor(int64)"], ""),
        ],
        attributes=[OpSchema.Attribute(item, getattr(OpSchema.AttrType, kind), "") for item, kind in attributes.items()],
    )
    return values.Op(values.Opset(DOMAIN, VERSION), name, schema)


_WINDOW = {"kernel_shape": "INTS", "strides": "INTS", "pads": "INTS"}
_max_pool_argmax_node = _operator("MaxPoolArgmax", "x", "y codes", **_WINDOW)
_max_unpool_node = _operator("MaxUnpool", "y codes", "x", **_WINDOW, output_size="INTS")
_ROI_ALIGN = {"output_height": "INT", "output_width": "INT", "sampling_ratio": "INT", "mode": "STRING", "aligned": "INT"}
_PYRAMID = {"spatial_scales": "FLOATS", "canonical_size": "FLOAT", "canonical_level": "INT"}
# onnxscript gives a variadic input all arguments, those before it too: so it is the only one.
_roi_align_node = _operator("RoIAlign", "tensors*", "pooled", **_ROI_ALIGN, **_PYRAMID)
_upsample_argmax_node = _operator("UpsampleArgmax", "logits", "labels", size="INTS", align_corners="INT", threshold="FLOAT")


def _fixed(sizes: Sequence[Any], what: str) -> list[int]:
    """Attributes hold numbers; a size that follows from the input's cannot be one."""
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"{what} {list(sizes)}: a size that depends on the input; export without --dynamic, or leave it empty")
    return [int(size) for size in sizes]


def _max_pool_argmax(x: Any, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int]) -> Any:
    return _max_pool_argmax_node(x, kernel_shape=list(kernel), strides=list(stride), pads=list(pads))


def _max_unpool_codes(
    y: Any, codes: Any, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], output_size: Sequence[Any]
) -> Any:
    size = {"output_size": _fixed(output_size, "output_size")} if len(output_size) else {}
    return _max_unpool_node(y, codes, kernel_shape=list(kernel), strides=list(stride), pads=list(pads), **size)


def _roi_align(rois: Any, batch_indices: Any, features: Sequence[Any], *settings: Any) -> Any:
    given = dict(zip([*_ROI_ALIGN, *_PYRAMID], settings, strict=True))
    given.update(aligned=int(given["aligned"]), spatial_scales=[float(scale) for scale in given["spatial_scales"]])
    return _roi_align_node(rois, batch_indices, *features, **given)


def _upsample_argmax(logits: Any, size: Sequence[Any], align_corners: bool, threshold: float) -> Any:
    # The attribute is there for one class only: it tells a body that knows no shapes which of two rules it is.
    cut = {"threshold": float(threshold)} if logits.shape is not None and logits.shape[1] == 1 else {}
    return _upsample_argmax_node(logits, size=_fixed(size, "size"), align_corners=int(align_corners), **cut)


def _max_pool_indices(x: Any, kernel: int, stride: int) -> Any:
    return _max_pool_argmax(x, [kernel] * 2, [stride] * 2, [0] * 4)


def _max_unpool(x: Any, indices: Any, height: int, width: int) -> Any:
    # Our networks unpool planes that pooled evenly, so kernel and stride alone give the size.
    return _max_unpool_codes(x, indices, [2, 2], [2, 2], [0] * 4, [])


_OURS: Table = {
    torch.ops.edgeseg.max_pool_indices.default: _max_pool_indices,
    torch.ops.edgeseg.max_unpool.default: _max_unpool,
}


# --- standard nodes, and what needs no choice ----------------------------------------------------------------------------


def _standard_max_pool_indices(x: Any, kernel: int, stride: int) -> Any:
    return op.MaxPool(x, kernel_shape=[kernel, kernel], strides=[stride, stride])


def _standard_max_unpool(x: Any, indices: Any, height: int, width: int) -> Any:
    return op.MaxUnpool(x, indices, kernel_shape=[2, 2], strides=[2, 2])


_STANDARD: Table = {
    torch.ops.edgeseg.max_pool_indices.default: _standard_max_pool_indices,
    torch.ops.edgeseg.max_unpool.default: _standard_max_unpool,
}


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Any:
    # The exporter's own translation wraps each parameter in Expand and CastLike, which hides it from later passes.
    y = op.BatchNormalization(x, weight, bias, mean, variance, epsilon=eps)
    return y, op.Identity(mean), op.Identity(variance)


_ANY: Table = {
    torch.ops.edgeseg.max_pool_argmax.default: _max_pool_argmax,
    torch.ops.edgeseg.max_unpool_codes.default: _max_unpool_codes,
    torch.ops.edgeseg.roi_align.default: _roi_align,
    torch.ops.edgeseg.upsample_argmax.default: _upsample_argmax,
    torch.ops.aten._native_batch_norm_legit_no_training.default: _batch_norm,
}
