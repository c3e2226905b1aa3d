"""Graph passes between the prepared ONNX graph and what one backend reads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import OnnxError


def freeze_shape(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A copy whose input ``name`` has exactly ``shape``, with every shape that follows from it inferred again.

    Raises:
        OnnxError: there is no such input, or a size that the graph fixes differs.
    """
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    value = next((item for item in frozen.graph.input if item.name == name), None)
    if value is None:
        raise OnnxError(f"no input {name!r} in the graph", "the input that model.json names", "correct $.input.name")
    dims = value.type.tensor_type.shape.dim
    found = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    if len(found) != len(shape) or any(size not in (None, want) for size, want in zip(found, shape, strict=True)):
        raise OnnxError(f"the graph's input {name!r} is {found}", f"{shape} as model.json says", "import or export the model again")
    if None not in found:
        return frozen
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    del frozen.graph.value_info[:]
    for output in frozen.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(frozen, data_prop=True)


def lower_for_openvino(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that OpenVINO's ONNX reader takes: model-local functions inlined, MaxUnpool written as ScatterElements."""
    lowered = onnx.inliner.inline_local_functions(model) if model.functions else onnx.ModelProto()
    if not model.functions:
        lowered.CopyFrom(model)
    if any(node.op_type == "MaxUnpool" for node in lowered.graph.node):
        _scatter_unpools(onnx.shape_inference.infer_shapes(lowered), lowered)
    return lowered


def _scatter_unpools(inferred: onnx.ModelProto, target: onnx.ModelProto) -> None:
    values = [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    shapes = {value.name: _fixed_shape(value) for value in values}
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


def _fixed_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)


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
    spatial = [
        (size - 1) * stride + width - before - after
        for size, stride, width, before, after in zip(
            pooled[2:], strides, kernel, pads[: len(kernel)], pads[len(kernel) :], strict=True
        )
    ]
    return (*pooled[:2], *spatial)
