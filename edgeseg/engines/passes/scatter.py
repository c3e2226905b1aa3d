"""MaxUnpool as ScatterElements, for readers that know neither it nor our operator."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import OnnxError
from edgeseg.ops.functions import Shape, known_shapes


def scatter_unpools(model: onnx.ModelProto) -> None:
    """Write each standard MaxUnpool of ``model`` as one flat ScatterElements, in place.

    Raises:
        OnnxError: a MaxUnpool whose size is unknown.
    """
    if any(node.op_type == "MaxUnpool" for node in model.graph.node):
        _scatter_unpools(known_shapes(model), model)


def _scatter_unpools(shapes: dict[str, Shape], target: onnx.ModelProto) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in target.graph.node:
        if node.op_type != "MaxUnpool":
            nodes.append(node)
            continue
        shape = shapes.get(node.output[0])
        if shape is None:
            shape = _unpooled_shape(node, shapes.get(node.input[0]), target)
        nodes.extend(_scatter(node, shape, target.graph))
    del target.graph.node[:]
    target.graph.node.extend(nodes)


def _scatter(node: onnx.NodeProto, shape: tuple[int, ...], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    # ONNX counts the indices over the whole (N, C, H, W) tensor, so one flat scatter is MaxUnpool.
    base = node.output[0]

    def constant(suffix: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{base}_{suffix}"))
        return f"{base}_{suffix}"

    flat, full = constant("flat", np.array([-1], np.int64)), constant("shape", np.array(shape, np.int64))
    zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    count = constant("count", np.array([int(np.prod(shape))], np.int64))
    return [
        helper.make_node("ConstantOfShape", [count], [f"{base}_zeros"], value=zero),
        helper.make_node("Reshape", [node.input[0], flat], [f"{base}_values"]),
        helper.make_node("Reshape", [node.input[1], flat], [f"{base}_indices"]),
        helper.make_node("ScatterElements", [f"{base}_zeros", f"{base}_indices", f"{base}_values"], [f"{base}_scattered"], axis=0),
        helper.make_node("Reshape", [f"{base}_scattered", full], [base], name=node.name),
    ]


def _unpooled_shape(node: onnx.NodeProto, pooled: tuple[int, ...] | None, model: onnx.ModelProto) -> tuple[int, ...]:
    # Shape inference leaves MaxUnpool open when output_shape is given: read it, else apply the operator's formula.
    if len(node.input) > 2 and node.input[2]:
        for tensor in model.graph.initializer:
            if tensor.name == node.input[2]:
                return tuple(int(size) for size in numpy_helper.to_array(tensor))
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if pooled is None or len(node.input) > 2:
        name = node.name or node.output[0]
        raise OnnxError(f"node {name!r}: MaxUnpool of unknown size", "fixed shapes", "export with static shapes")
    kernel = attributes["kernel_shape"]
    strides, pads = attributes.get("strides", [1] * len(kernel)), attributes.get("pads", [0] * 2 * len(kernel))
    # Of any number of axes, unlike the windows of our operators.
    spatial = [
        (size - 1) * stride + width - before - after
        for size, stride, width, before, after in zip(
            pooled[2:], strides, kernel, pads[: len(kernel)], pads[len(kernel) :], strict=True
        )
    ]
    return (*pooled[:2], *spatial)
