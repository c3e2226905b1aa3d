"""The graph passes between prepared graphs and backends."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.engines.lowering import freeze_shape, lower_for_openvino
from edgeseg.errors import OnnxError
from tests.tiny_model import tiny_graph


def run(model: onnx.ModelProto, tensor: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})[0]


def unpool_graph(height: int, width: int, batch: int = 2, with_shape: bool = False) -> onnx.ModelProto:
    pool = helper.make_node("MaxPool", ["x"], ["pooled", "indices"], kernel_shape=[2, 2], strides=[2, 2])
    inputs, stored = ["pooled", "indices"], []
    if with_shape:
        inputs.append("size")
        stored.append(numpy_helper.from_array(np.array([batch, 3, height, width], np.int64), "size"))
    unpool = helper.make_node("MaxUnpool", inputs, ["y"], "unpool", kernel_shape=[2, 2], strides=[2, 2])
    shape = [batch, 3, height, width]
    graph = helper.make_graph(
        [pool, unpool],
        "unpool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


@pytest.mark.parametrize(("height", "width", "with_shape"), [(8, 12, False), (2, 2, False), (9, 13, True), (8, 6, True)])
def test_max_unpool_becomes_a_scatter(height: int, width: int, with_shape: bool) -> None:
    model = unpool_graph(height, width, with_shape=with_shape)
    lowered = lower_for_openvino(model)
    assert "MaxUnpool" not in {node.op_type for node in lowered.graph.node}
    assert "MaxUnpool" in {node.op_type for node in model.graph.node}, "the given graph is left alone"
    x = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    assert np.array_equal(run(model, x), run(lowered, x))


def test_openvino_runs_max_unpool() -> None:
    pytest.importorskip("openvino")
    from edgeseg.engines.openvino import open_graph

    model = unpool_graph(8, 12)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 12)).astype(np.float32)
    assert np.array_equal(open_graph(model).run({"x": x})["y"], run(model, x))


def test_freeze_shape_infers_what_follows() -> None:
    model = tiny_graph(dynamic=True)
    frozen = freeze_shape(model, "image", (2, 3, 64, 32))
    dims = [dim.dim_value for dim in frozen.graph.output[0].type.tensor_type.shape.dim]
    assert dims == [2, 5, 16, 8]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert run(frozen, np.zeros((2, 3, 64, 32), np.float32)).shape == (2, 5, 16, 8)


@pytest.mark.parametrize(("name", "shape"), [("frame", (1, 3, 32, 48)), ("image", (1, 3, 32, 47)), ("image", (3, 32, 48))])
def test_freeze_shape_refuses_what_does_not_fit(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(OnnxError):
        freeze_shape(tiny_graph(), name, shape)
