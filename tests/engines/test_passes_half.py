"""FP16 as a pass: types, what stays float32, scales, and results close to float32's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration import collect, prepare, quantize
from calibration.graph import element_types
from edgeseg.engines.lowering import to_half, to_plugins, to_primitive
from edgeseg.engines.passes.half import Half, halve, round_up
from edgeseg.ops.functions import infer
from tests.calibration import nets
from tests.engines.graphs import FLOAT, HALF, INT64, OURS, build, kinds, noise, run, segnet

WEIGHT = noise(4, 3, 3, 3)


def checked(model: ModelProto) -> Half:
    """FP16 form of a graph that was checked: ONNX's checker with shapes, no Cast of a constant, none to the type there is."""
    before = model.SerializeToString()
    result = halve(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    types = element_types(infer(result.model).graph)
    constants = {tensor.name for tensor in result.model.graph.initializer}
    casts = [node for node in result.model.graph.node if node.op_type == "Cast"]
    for node in casts:
        assert node.input[0] not in constants
        assert types[node.input[0]] != node.attribute[0].i
    pairs = Counter((node.input[0], node.attribute[0].i) for node in casts)
    assert not pairs or max(pairs.values()) == 1
    return result


def at(opset: int, model: ModelProto) -> ModelProto:
    """The graph, whose operators mean the same in opsets 13 to 17, at ``opset``."""
    if opset >= 17:
        return onnx.version_converter.convert_version(model, opset)
    model.opset_import[0].version = opset
    return model


def types_of(model: ModelProto, op_type: str) -> list[list[int]]:
    """Element types of the inputs of every node of an operator."""
    types = element_types(infer(model).graph)
    return [[types.get(name, 0) for name in node.input] for node in model.graph.node if node.op_type == op_type]


def close(model: ModelProto, result: Half, tolerance: float, **feeds: np.ndarray) -> None:
    for want, got in zip(run(model, **feeds), run(result.model, **feeds), strict=True):
        assert got.dtype == want.dtype
        assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_a_float_network_is_half_between_two_casts(opset: int) -> None:
    model = at(opset, prepare(nets.unet(8, (32, 32))))
    result = checked(model)
    assert (result.kept, result.large) == ({}, {})
    assert Counter(kinds(result.model))["Cast"] == 2
    assert all(kind == HALF for row in types_of(result.model, "Conv") for kind in row)
    assert [value.type.tensor_type.elem_type for value in [*result.model.graph.input, *result.model.graph.output]] == [FLOAT, FLOAT]
    assert [value.name for value in result.model.graph.output] == [value.name for value in model.graph.output]
    close(model, result, 4e-3, **nets.batches(model)[0])


def test_dynamic_graphs() -> None:
    model = prepare(nets.unet(8, (32, 32), batch="n"))
    close(model, checked(model), 4e-3, input=noise(3, 3, 32, 32))


def quantised(opset: int = 18, model: ModelProto | None = None) -> tuple[ModelProto, dict[str, np.ndarray]]:
    model = prepare(model or nets.unet(8, (32, 32)), ("edgeseg",))
    batches = nets.batches(model)
    made = quantize(model, collect(model, batches, method="minmax"), "tensorrt")
    return made if made.functions else at(opset, made), batches[0]


@pytest.mark.parametrize("opset", [13, 18, 19, 21])
def test_int8_graphs_get_half_scales_and_no_casts_inside(opset: int) -> None:
    model, feeds = quantised(opset)
    result = checked(model)
    found = Counter(kinds(result.model))
    assert found["Cast"] == 1, "the image is quantised in float32; only the output is cast"
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == tuple(
        Counter(kinds(model))[name] for name in ("QuantizeLinear", "DequantizeLinear")
    )
    assert all(row[1] == HALF for row in types_of(result.model, "DequantizeLinear"))
    assert Counter(row[1] for row in types_of(result.model, "QuantizeLinear"))[FLOAT] == 1
    assert all(kind == HALF for row in types_of(result.model, "Conv") for kind in row)
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    quantisers = {node.output[0]: node for node in result.model.graph.node if node.op_type == "QuantizeLinear"}
    for node in result.model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantisers:
            assert float(scales[node.input[1]]) == float(scales[quantisers[node.input[0]].input[1]]), "Q and DQ by one scale"
    want, got, exact = (run(graph, **feeds)[0] for graph in (model, result.model, prepare(nets.unet(8, (32, 32)))))
    assert np.abs(got - exact).max() <= 1.5 * np.abs(want - exact).max(), "no worse than INT8 with float32 between"


def test_scales_round_up_and_never_vanish() -> None:
    scale = np.float32([1.0, 1.0001, 0.1, 6e-5, 1e-6, 3e-8, 1e-12, 1e9])
    rounded = round_up(scale)
    assert rounded.astype(np.float16).astype(np.float32).tolist() == rounded.tolist()
    assert (rounded[:-1] >= scale[:-1]).all()
    assert rounded[0] == 1.0
    assert np.abs(rounded[:4] / scale[:4] - 1).max() < 1e-3
    assert rounded[-2] > 0
    assert np.isfinite(rounded).all()


def test_weights_of_tiny_scales_are_coded_again() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    constants = {
        "codes": codes,
        "scale": np.float32([1e-6, 2.1e-6, 0.01, 3e-9]),
        "zero": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    model = build(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, constants)
    result = checked(model)
    x = np.full((1, 3, 8, 8), 0.5, np.float32)
    want, got = run(model, x=x)[0], run(result.model, x=x)[0]
    for channel in range(4):
        limit = (
            0.5 * float(round_up(constants["scale"][channel : channel + 1])[0]) * 27 * 0.5 + 2e-3 * np.abs(want[:, channel]).max()
        )
        assert np.abs(got - want)[:, channel].max() <= limit


# --- what stays float32 --------------------------------------------------------------------------------------------------


def test_epsilon_and_squares_stay_float() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("ReduceMean", ["c", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["c", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["variance"], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["y"]),
    ]
    constants = {"w": WEIGHT, "axes": np.int64([2, 3]), "two": np.float32(2), "epsilon": np.float32(1e-12)}
    model = build(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, constants)
    result = checked(model)
    assert types_of(result.model, "Pow") == [[FLOAT, FLOAT]]
    assert types_of(result.model, "Add") == [[FLOAT, FLOAT]]
    assert types_of(result.model, "Div") == [[HALF, HALF]]
    close(model, result, 1e-2, x=1000 * noise(1, 3, 8, 8))
    assert np.isfinite(run(result.model, x=np.zeros((1, 3, 8, 8), np.float32))[0]).all()


def test_what_computes_sizes_and_coordinates_stays_float() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sides"], to=FLOAT),
        helper.make_node("Mul", ["sides", "factor"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["sizes"], to=INT64),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["up"], mode="linear"),
        helper.make_node("Mul", ["boxes", "stretch"], ["rois"]),
        helper.make_node("RoIAlign", ["rois", "batch", "up"], ["y"], output_height=2, output_width=2, spatial_scales=[1.0], **OURS),
    ]
    constants = {"factor": np.float32([1, 1, 1.5, 1.5]), "stretch": np.float32(3.0)}
    inputs = {"x": [1, 3, 2050, 6], "boxes": [5, 4], "batch": (INT64, [5])}
    model = build(nodes, inputs, {"y": [5, 3, 2, 2]}, constants)
    result = checked(model)
    assert types_of(result.model, "Mul") == [[FLOAT, FLOAT], [FLOAT, FLOAT]]
    assert types_of(result.model, "RoIAlign") == [[FLOAT, INT64, HALF]]
    assert types_of(result.model, "Resize")[0][0] == HALF
    assert set(result.kept.values()) == {"coordinates or sizes"}


def test_weights_beyond_half_keep_their_node_float(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Conv", ["c", "v"], ["y"])]
    large, tiny = WEIGHT.copy(), noise(2, 4, 1, 1) * 1e-9
    large[0, 0, 0, :2] = 1e6
    model = build(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 2, 2, 2]}, {"w": large, "v": tiny})
    result = checked(model)
    assert result.large == {"w": 2}
    assert result.flushed == {"v": (8, 8)}
    assert types_of(result.model, "Conv") == [[FLOAT, FLOAT], [HALF, HALF]]
    to_half(model)
    assert "2 values beyond FP16's 65504" in caplog.text
    assert "8 of 8 values in 1 weights" in caplog.text


def test_clip_bounds_end_at_the_range() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Clip", ["c", "low", "high"], ["y"])]
    constants = {"w": WEIGHT, "low": np.float32(0), "high": np.float32(3.4e38)}
    model = build(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, constants)
    result = checked(model)
    assert types_of(result.model, "Clip") == [[HALF, HALF, HALF]]
    close(model, result, 4e-3, x=noise(1, 3, 8, 8))


def test_nested_graphs_read_what_they_read_before() -> None:
    def branch(name: str, op_type: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op_type, ["c"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, [1, 4, 6, 6])]
        )

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Abs")),
        helper.make_node("Relu", ["c"], ["z"]),
    ]
    outputs = {"y": [1, 4, 6, 6], "z": [1, 4, 6, 6]}
    model = build(nodes, {"x": [1, 3, 8, 8], "yes": (TensorProto.BOOL, [])}, outputs, {"w": WEIGHT})
    result = checked(model)
    assert (types_of(result.model, "Conv"), types_of(result.model, "Relu")) == ([[HALF, HALF]], [[HALF]])
    close(model, result, 4e-3, x=noise(1, 3, 8, 8), yes=np.array(True))


def test_casts_of_the_graph_itself_go_where_they_say_nothing_any_more() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Cast", ["c"], ["half"], to=HALF),
        helper.make_node("Relu", ["half"], ["r"]),
        helper.make_node("Cast", ["r"], ["back"], to=FLOAT),
        helper.make_node("Neg", ["back"], ["y"]),
    ]
    model = build(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, {"w": WEIGHT})
    assert kinds(checked(model).model) == ["Cast", "Conv", "Relu", "Neg", "Cast"]


def test_unknown_operators_keep_their_types() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Mystery", ["c"], ["y"], domain="theirs")]
    model = build(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, {"w": WEIGHT})
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    found = kinds(halve(model).model)
    assert found == ["Cast", "Conv", "Cast", "theirs::Mystery"]


# --- our operators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [False, True])
def test_our_operators_as_plugins_and_as_primitives(labels: bool) -> None:
    model = segnet(labels)
    half = halve(to_plugins(model)).model
    assert Counter(kinds(half))["Cast"] == (1 if labels else 2)
    assert all(row[0] == HALF for row in types_of(half, "MaxUnpool"))
    primitive = to_primitive(model)
    result = checked(primitive)
    feeds: dict[str, Any] = {"input": noise(1, 3, 32, 48)}
    want, got = run(primitive, **feeds)[0], run(result.model, **feeds)[0]
    if labels:
        assert (want == got).mean() > 0.99
    else:
        assert np.mean(np.abs(want - got) > 0.02 * np.abs(want).max()) < 0.01, "but for places where two maxima became one"


def test_int8_logits_need_no_float() -> None:
    model, _ = quantised(model=segnet(labels=True))
    half = halve(to_plugins(model)).model
    assert "Cast" not in kinds(half)
    assert types_of(half, "UpsampleArgmax") == [[TensorProto.INT8]]
