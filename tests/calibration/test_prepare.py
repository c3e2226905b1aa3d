"""The canonical float graph: same function as the model, one form, deterministic."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration import CalibrationError, graph_sha256, prepare
from tests.calibration import nets


def run(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)


def assert_same(model: ModelProto, prepared: ModelProto, feeds: dict[str, np.ndarray], tolerance: float = 2e-5) -> None:
    onnx.checker.check_model(prepared, full_check=True)
    for want, got in zip(run(model, feeds), run(prepared, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(want).max())))


def kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def store_half(model: ModelProto) -> ModelProto:
    """Weights as FP16 initialisers, each behind a Cast to float."""
    stored = ModelProto()
    stored.CopyFrom(model)
    casts = []
    for tensor in stored.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [tensor.name], [f"{tensor.name}_f32"], to=TensorProto.FLOAT))
        for node in stored.graph.node:
            for place, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[place] = f"{tensor.name}_f32"
    nodes = casts + list(stored.graph.node)
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    return stored


def test_unet_is_folded_and_the_same() -> None:
    model = nets.unet(8, (32, 32))
    prepared = prepare(model)
    assert "BatchNormalization" not in kinds(prepared)
    assert_same(model, prepared, nets.batches(model, 1)[0])


def test_it_is_deterministic_and_idempotent() -> None:
    model = nets.unet(8, (32, 32))
    first = prepare(model)
    assert graph_sha256(first) == graph_sha256(prepare(ModelProto.FromString(model.SerializeToString())))
    assert graph_sha256(first) == graph_sha256(prepare(first))
    names = [node.name for node in first.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_hash_sees_weights_and_not_notes() -> None:
    model = prepare(nets.unet(8, (32, 32)))
    before = graph_sha256(model)
    model.producer_name, model.doc_string = "other", "notes"
    assert graph_sha256(model) == before
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert graph_sha256(model) != before


def test_half_weights_keep_their_names() -> None:
    model = store_half(nets.unet(8, (32, 32)))
    weights = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    prepared = prepare(model)
    assert "Cast" not in kinds(prepared)
    kept = {t.name: t.data_type for t in prepared.graph.initializer}
    assert weights <= set(kept)
    assert {kept[name] for name in weights} == {TensorProto.FLOAT}
    assert_same(model, prepared, nets.batches(model, 1)[0], 2e-4)


@settings(max_examples=15)
@given(
    st.integers(0, 2**16), st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from(["Conv", "ConvTranspose", "Gemm", "GemmB"])
)
def test_batchnorm_folds_into(seed: int, group: int, bias: bool, kind: str) -> None:
    b = nets.Builder(seed)
    if kind == "Conv":
        made, shape = b.conv("input", 4, 8, 3, 1, group, bias), [2, 4, 5, 7]
    elif kind == "ConvTranspose":
        made, shape = b.deconv("input", 4, 8, group, bias), [2, 4, 5, 7]
    else:
        weight = b.weight(8, 4) if kind == "Gemm" else b.weight(4, 8)
        inputs = ["input", weight] + ([b.vector(8)] if bias else [])
        made = b.op("Gemm", inputs, transB=int(kind == "Gemm"), alpha=0.5, beta=2.0)
        shape = [3, 4]
    model = b.model({"input": shape}, {b.norm(made, 8): len(shape)})
    prepared = prepare(model)
    assert len(prepared.graph.node) == 1
    assert_same(model, prepared, {"input": b.random.standard_normal(shape).astype(np.float32)}, 1e-4)


def test_shared_weights_and_second_readers_are_respected() -> None:
    b = nets.Builder()
    weight = b.weight(4, 4, 3, 3)
    conv = [b.op("Conv", ["input", weight], pads=[1, 1, 1, 1]) for _ in range(3)]
    folded = [b.norm(conv[0], 4), b.norm(conv[1], 4)]
    kept = b.op("Add", [b.norm(conv[2], 4), conv[2]])  # conv[2] has a second reader
    out = b.op("Add", [b.op("Add", folded), kept])
    model = b.model({"input": [1, 4, 6, 6]}, {out: 4})
    prepared = prepare(model)
    assert kinds(prepared).count("BatchNormalization") == 1
    assert_same(model, prepared, nets.batches(model, 1)[0])


def test_constants_identities_and_functions_go() -> None:
    b = nets.Builder()
    x = b.conv_norm_relu(b.op("Identity", ["input"]), 3, 4)
    x = b.op("Dropout", [x])
    shape = b.op("Shape", [x])
    size = b.op("Mul", [b.op("Slice", [shape, b.constant(np.array([2])), b.constant(np.array([4]))]), b.constant(np.array([2, 2]))])
    head = b.op("Slice", [shape, b.constant(np.array([0])), b.constant(np.array([2]))])
    x = b.op("Resize", [x, "", "", b.op("Concat", [head, size], axis=0)], mode="nearest")
    x = b.op("Identity", [x])
    model = b.model({"input": [1, 3, 8, 8]}, {x: 4})
    prepared = prepare(model)
    assert kinds(prepared) == ["Conv", "Relu", "Resize"]
    assert prepared.graph.output[0].name == model.graph.output[0].name
    assert_same(model, prepared, nets.batches(model, 1)[0])

    node = helper.make_node("Twice", ["input"], ["y"], domain="local")
    add = helper.make_node("Add", ["a", "a"], ["b"])
    body = helper.make_function("local", "Twice", ["a"], ["b"], [add], [helper.make_opsetid("", 17)])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in ("input", "y")]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    assert kinds(prepare(helper.make_model(graph, functions=[body], opset_imports=imports, ir_version=8))) == ["Add"]


def shuffled(factor: int = 2, version: int = 17) -> ModelProto:
    """Conv -> net::Double (a function) -> Conv, where theirs::Halve is another."""

    def function(domain: str, name: str, op_type: str) -> onnx.FunctionProto:
        two = helper.make_node("Constant", [], ["two"], value_float=float(factor))
        body = [two, helper.make_node(op_type, ["a", "two"], ["b"], doc_string="as the paper says")]
        return helper.make_function(domain, name, ["a"], ["b"], body, [helper.make_opsetid("", version)], ["note"])

    b = nets.Builder()
    x = b.op("Double", [b.conv("input", 3, 4)], domain="net", note=1)
    model = b.model({"input": [1, 3, 8, 8]}, {b.conv(b.op("Halve", [x], domain="theirs"), 4, 4): 4}, version, check=False)
    model.opset_import.extend([helper.make_opsetid("net", 1), helper.make_opsetid("theirs", 1)])
    model.functions.extend([function("net", "Double", "Mul"), function("theirs", "Halve", "Div")])
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("version", [17, 22])
def test_functions_of_a_kept_domain_stay_whole(version: int) -> None:
    model = shuffled(version=version)
    prepared = prepare(model, ("net",))
    assert kinds(prepared) == ["Conv", "Double", "Div", "Conv"]
    assert [function.name for function in prepared.functions] == ["Double"]
    known = {value.name: value.type.tensor_type for value in prepared.graph.value_info}
    result = prepared.graph.node[1].output[0]
    assert known[result].elem_type == TensorProto.FLOAT
    assert [dim.dim_value for dim in known[result].shape.dim] == [1, 4, 8, 8]
    if version <= 21:
        assert_same(model, prepared, nets.batches(model, 1)[0])
    assert graph_sha256(prepare(prepared, ("net",))) == graph_sha256(prepared)
    assert kinds(prepare(model)) == ["Conv", "Mul", "Div", "Conv"]


def test_hash_sees_what_functions_compute() -> None:
    one, other = prepare(shuffled(), ("net",)), prepare(shuffled(3), ("net",))
    other.graph.CopyFrom(one.graph)
    assert graph_sha256(one) != graph_sha256(other)
    noted = shuffled()
    noted.functions[0].doc_string = "another"
    noted.functions[0].node[1].doc_string = "sentence"
    assert graph_sha256(prepare(noted, ("net",))) == graph_sha256(one)


@pytest.mark.parametrize("version", [9, 11, 22])
def test_opset_is_brought_into_reach(version: int) -> None:
    b = nets.Builder()
    out = b.op("MaxPool", [b.op("Relu", [b.norm(b.conv("input", 3, 4), 4)])], kernel_shape=[2, 2], strides=[2, 2])
    model = b.model({"input": [1, 3, 8, 8]}, {out: 4}, version)
    if version < 10:
        for tensor in model.graph.initializer:  # as old exporters did: initialisers listed as inputs
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    prepared = prepare(model)
    assert 13 <= prepared.opset_import[0].version <= 21
    assert [value.name for value in prepared.graph.input] == ["input"]
    feeds = nets.batches(model, 1)[0]
    reference = run(model, feeds) if version <= 21 else run(prepared, feeds)
    np.testing.assert_allclose(run(prepared, feeds)[0], reference[0], atol=1e-5)


def test_a_quantised_model_is_refused() -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    node = helper.make_node("QuantizeLinear", ["input", "s"], ["y"], "first")
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [2])
    made = helper.make_tensor_value_info("y", TensorProto.UINT8, [2])
    model = helper.make_model(helper.make_graph([node], "g", [taken], [made], [scale]), opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(CalibrationError, match=r"'first' is a QuantizeLinear.*quantised already"):
        prepare(model)
