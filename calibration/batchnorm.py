"""Folding BatchNormalization into the convolution, transposed convolution or Gemm before it."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

from calibration.graph import Index, attributes, index, rename_reads, set_attribute, unique_name

_FOLDS_INTO = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(graph: GraphProto) -> int:
    """Fold in place every BatchNormalization whose only source is a foldable node; returns how many.

    With gamma, beta, mean, var of shape (C,): scale = gamma / sqrt(var + eps), shift = beta - mean * scale, and
    y = scale * (W x + b) + shift is (scale * W) x + (scale * b + shift). Computed in float64, stored in float32.
    """
    taken = {tensor.name for tensor in graph.initializer}
    folded = 0
    while pair := _next_pair(graph):
        known, node, norm = pair
        scale, shift = _scale_shift(known, norm)
        _scale_weights(graph, known, node, scale, shift, taken)
        rename_reads(graph, {norm.output[0]: node.output[0]})
        if norm.output[0] in known.pinned:
            node.output[0] = norm.output[0]
        graph.node.remove(norm)
        folded += 1
    return folded


def _next_pair(graph: GraphProto) -> tuple[Index, NodeProto, NodeProto] | None:
    known = index(graph)
    for norm in graph.node:
        if norm.op_type != "BatchNormalization" or attributes(norm).get("training_mode", 0):
            continue
        node = known.producer.get(norm.input[0])
        if node is None or node.op_type not in _FOLDS_INTO or not known.is_only_user(norm.input[0], norm):
            continue
        constants = [*norm.input[1:], *[name for name in node.input[1:] if name]]
        if all(known.is_constant(name) for name in constants) and _bias_is_per_channel(known, node):
            return known, node, norm
    return None


def _array(known: Index, name: str) -> np.ndarray:
    return numpy_helper.to_array(known.initializers[name])


def _bias_is_per_channel(known: Index, node: NodeProto) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    shape = _array(known, node.input[2]).shape
    return len(shape) <= 1 or int(np.prod(shape)) == shape[-1]


def _scale_shift(known: Index, norm: NodeProto) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, var = (_array(known, name).astype(np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(var + attributes(norm).get("epsilon", 1e-5))
    return scale, beta - mean * scale


def _scale_weights(graph: GraphProto, known: Index, node: NodeProto, scale: np.ndarray, shift: np.ndarray, taken: set[str]) -> None:
    options = attributes(node)
    weight = _array(known, node.input[1]).astype(np.float64)
    bias = _array(known, node.input[2]).astype(np.float64) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if node.op_type == "Conv":
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif node.op_type == "ConvTranspose":
        # (C_in, C_out / groups, ...): input channel i belongs to group i // (C_in / groups).
        groups = options.get("group", 1)
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight = (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    else:
        weight = weight * (scale.reshape(-1, 1) if options.get("transB", 0) else scale)
        bias = bias * options.get("beta", 1.0)
        set_attribute(node, "beta", 1.0)
    bias = bias.reshape(-1) * scale + shift
    _replace(graph, known, node, 1, weight, taken, node.input[1])
    _replace(graph, known, node, 2, bias, taken, f"{node.input[1]}.bias")


def _replace(graph: GraphProto, known: Index, node: NodeProto, place: int, value: np.ndarray, taken: set[str], name: str) -> None:
    """Give ``node`` its own initialiser at ``place``; one that others read too is left as it is."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32))
    if len(node.input) > place and node.input[place]:
        old = node.input[place]
        if known.is_only_user(old, node):
            tensor.name = old
            known.initializers[old].CopyFrom(tensor)
            return
        name = old
    tensor.name = unique_name(name, taken)
    graph.initializer.append(tensor)
    while len(node.input) <= place:
        node.input.append("")
    node.input[place] = tensor.name
