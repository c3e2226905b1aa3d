"""What an ONNX graph costs: operators, parameters and multiply-accumulates, from its shapes alone."""

from __future__ import annotations

from collections import Counter
from math import prod

from onnx import ModelProto, NodeProto, TensorProto

from edgeseg.onnx_structure import dimensions, infer_shapes

_INDEX_TYPES = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING}
_SAME_SHAPE = {"Cast", "DequantizeLinear", "Identity"}
Shapes = dict[str, list[int]]


def operators(model: ModelProto) -> dict[str, int]:
    """How often each operator occurs, most frequent first."""
    counts = Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def parameters(model: ModelProto) -> int:
    """Number of stored weights; shapes, axes and other integers do not count."""
    return sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type not in _INDEX_TYPES)


def macs(model: ModelProto) -> int | None:
    """Multiply-accumulates of one run: convolutions, transposed convolutions and matrix products.

    Returns:
        None if a shape that it needs is open.
    """
    shapes = known_shapes(model)
    try:
        return sum(_node_macs(node, shapes) for node in model.graph.node)
    except KeyError:
        return None


def known_shapes(model: ModelProto) -> Shapes:
    """Shapes of all tensors whose every dimension is a number."""
    graph = infer_shapes(model).graph
    shapes: Shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for item in [*graph.input, *graph.output, *graph.value_info]:
        dims = dimensions(item)
        numbers = [dim for dim in dims if isinstance(dim, int)] if dims is not None else []
        if dims is not None and len(numbers) == len(dims):
            shapes[item.name] = numbers
    for node in graph.node:  # ONNX leaves the shape of a converted initialiser open: FP16-stored weights
        if node.op_type in _SAME_SHAPE and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return shapes


def _node_macs(node: NodeProto, shapes: Shapes) -> int:
    kind = node.op_type
    if kind in ("Conv", "ConvInteger", "QLinearConv"):
        weight = shapes[node.input[3 if kind == "QLinearConv" else 1]]  # (M, C / group, k...)
        return prod(shapes[node.output[0]]) * prod(weight[1:])
    if kind == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])  # weight (C, M / group, k...)
    if kind in ("MatMul", "MatMulInteger"):
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if kind == "Gemm":
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]
    return 0
