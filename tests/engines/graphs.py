"""Small graphs for the tests of lowering, and what they compute in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.ops import functions
from tests.calibration import nets

FLOAT, HALF, INT64, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
OURS = {"domain": "edgeseg"}


def build(
    nodes: list[NodeProto],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> ModelProto:
    """``inputs`` and ``outputs``: name -> shape, or (element type, shape)."""

    def values(items: dict[str, Any]) -> list[onnx.ValueInfoProto]:
        typed = {name: item if isinstance(item, tuple) else (FLOAT, item) for name, item in items.items()}
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in typed.items()]

    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "net", values(inputs), values(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    functions.declare(model)
    return model


def run(model: ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def kinds(model: ModelProto) -> list[str]:
    return [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node]


def options(model: ModelProto, op_type: str) -> dict[str, Any]:
    return functions.attributes(next(node for node in model.graph.node if node.op_type == op_type))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def segnet(labels: bool = False, ours: bool = True) -> ModelProto:
    """Two levels of SegNet, (1, 3, 32, 48) to logits of 5 classes or labels (1, 64, 96); our operators or standard pools."""
    b = nets.Builder()
    domain = "edgeseg" if ours else ""
    pool = "MaxPoolArgmax" if ours else "MaxPool"

    def down(x: str, level: int) -> str:
        b.nodes.append(helper.make_node(pool, [x], [f"pooled{level}", f"places{level}"], domain=domain, **POOL))
        return f"pooled{level}"

    def up(x: str, level: int) -> str:
        b.nodes.append(helper.make_node("MaxUnpool", [x, f"places{level}"], [f"up{level}"], domain=domain, **POOL))
        return f"up{level}"

    x = down(b.conv_norm_relu("input", 3, 8), 1)
    x = down(b.conv_norm_relu(x, 8, 8), 2)
    x = up(b.conv_norm_relu(x, 8, 8), 2)
    x = up(b.conv_norm_relu(x, 8, 8), 1)
    x = b.conv(x, 8, 5, 1, bias=True)
    if labels:
        b.nodes.append(helper.make_node("UpsampleArgmax", [x], ["labels"], size=[64, 96], **OURS))
    outputs = {"labels": (UINT8, [1, 64, 96])} if labels else {x: [1, 5, 32, 48]}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in b.constants}
    return functions.attach(build(b.nodes, {"input": [1, 3, 32, 48]}, outputs, stored))
