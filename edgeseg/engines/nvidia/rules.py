"""What TensorRT-RTX refuses, found in the graph before its builder sees it: a graph that resolves to a plugin may abort it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from calibration.graph import STANDARD_DOMAINS
from edgeseg.errors import BackendError
from edgeseg.ops import functions

# Asked of the parser itself in version 1.7 (supports_operator), but for those that it takes and resolves to plugins.
_PLUGINS = frozenset({"RoiAlign", "NonZero", "NonMaxSuppression", "DeformConv", "GroupNormalizationPlugin", "EfficientNMS"})
_ABSENT = frozenset({
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder",
    "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "Optional", "OptionalGetElement",
    "OptionalHasElement", "QLinearConv", "QLinearMatMul", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "StringNormalizer", "TfIdfVectorizer", "Unique",
})  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """A node that cannot be built: its name and operator, why, and what to do."""

    node: str
    operator: str
    reason: str
    fix: str


def refusals(model: onnx.ModelProto) -> Iterator[Refusal]:
    """Every node that TensorRT-RTX would refuse, in the graph's order."""
    constants = _constants(model)
    for node in functions.walk(model.graph):
        if found := _refused(node, constants, model):
            reason, fix = found
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            yield Refusal(node.name or (node.output[0] if node.output else "?"), operator, reason, fix)


def check_for_rtx(model: onnx.ModelProto) -> None:
    """Refuse a graph that TensorRT-RTX would refuse.

    Raises:
        BackendError: names the first node and the reason, and how many more there are.
    """
    found = list(refusals(model))
    if not found:
        return
    first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise BackendError(f"rtx: node {first.node!r} ({first.operator}): {first.reason}{more}", fix=first.fix)


def _refused(node: NodeProto, constants: dict[str, TensorProto], model: onnx.ModelProto) -> tuple[str, str] | None:
    elsewhere = "rewrite it in standard operators, or --backend ort"
    if node.domain not in STANDARD_DOMAINS and not _has_body(node, model):
        return "an operator that needs a plugin, and TensorRT-RTX takes none", elsewhere
    if node.op_type in _PLUGINS:
        return "TensorRT-RTX has it only as a plugin, which it does not take", elsewhere
    if node.op_type in _ABSENT:
        return "TensorRT-RTX has no such operator", elsewhere
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        return "TensorRT-RTX has no MaxPool with indices", elsewhere
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _refused_quantisation(node, constants)
    return None


def _refused_quantisation(node: NodeProto, constants: dict[str, TensorProto]) -> tuple[str, str] | None:
    again = "quantise it by the `tensorrt` profile (from ranges.json), not beforehand"
    stored = constants.get(node.input[0])
    if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type == TensorProto.INT32:
        return "an int32 bias behind a DequantizeLinear; TensorRT-RTX wants it in float", again
    point = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if point is None:
        return None
    if np.any(numpy_helper.to_array(point)):
        return "a zero point that is not 0; TensorRT-RTX quantises symmetrically", again
    if point.data_type == TensorProto.UINT8:
        return "uint8 codes, which TensorRT-RTX reads as int8 without a word", again
    return None


def _has_body(node: NodeProto, model: onnx.ModelProto) -> bool:
    return any((item.domain, item.name) == (node.domain, node.op_type) for item in model.functions)


def _constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in functions.walk(model.graph):
        if node.op_type == "Constant":
            found.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    return found
