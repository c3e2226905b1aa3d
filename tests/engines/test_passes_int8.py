"""INT8 through our operators: the ``tensorrt`` profile's Q/DQ, and plugins that absorb them, exactly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration import collect, prepare, quantize
from edgeseg.engines.lowering import lower_for_openvino, to_half, to_plugins, to_primitive, to_standard
from edgeseg.ops.functions import DOMAIN
from tests.calibration import nets
from tests.engines.graphs import FLOAT, INT64, OURS, POOL, UINT8, build, kinds, noise, options, run, segnet

INT8 = TensorProto.INT8
SCALE = {"s": np.float32(0.05), "z": np.int8(0)}


def quantised(model: ModelProto, profile: str = "tensorrt") -> tuple[ModelProto, ModelProto, dict[str, np.ndarray]]:
    """(prepared float graph, its Q/DQ graph, one batch)."""
    prepared = prepare(model, (DOMAIN,))
    batches = nets.batches(prepared)
    return prepared, quantize(prepared, collect(prepared, batches, method="minmax"), profile), batches[0]


def before(model: ModelProto, op_type: str, place: int = 0) -> list[str]:
    """The operators that make an input of each node of ``op_type``."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    return [made.get(node.input[place], "input") for node in model.graph.node if node.op_type == op_type]


@pytest.mark.parametrize("ours", [True, False])
def test_codes_pass_through_pools_and_unpools(ours: bool) -> None:
    _, graph, _ = quantised(segnet(ours=ours))
    pool = "MaxPoolArgmax" if ours else "MaxPool"
    assert before(graph, pool) == ["DequantizeLinear"] * 2
    assert before(graph, "MaxUnpool") == ["DequantizeLinear"] * 2
    lowered = to_plugins(graph)
    assert before(lowered, "MaxPoolArgmax") == before(lowered, "MaxUnpool") == ["QuantizeLinear"] * 2
    found = Counter(kinds(lowered))
    # One Q before each of 5 convolutions, but those whose input an operator of ours gives as codes.
    assert found["QuantizeLinear"] == 5
    assert found["DequantizeLinear"] == 5 + 5
    assert not {node.op_type for node in lowered.graph.node} & {"MaxPool"}


def test_logits_are_absorbed_with_their_scale() -> None:
    _, graph, _ = quantised(segnet(labels=True))
    logits = next(node.input[0] for node in graph.graph.node if node.op_type == "UpsampleArgmax")
    dequantise = next(node for node in graph.graph.node if node.output[0] == logits)
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    lowered = to_plugins(graph)
    assert before(lowered, "UpsampleArgmax") == ["QuantizeLinear"]
    assert options(lowered, "UpsampleArgmax")["logit_scale"] == float(scales[dequantise.input[1]])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("profile", ["x86", "openvino", "arm", "tensorrt"])
def test_every_profile_keeps_what_the_network_says(profile: str, labels: bool) -> None:
    prepared, graph, feeds = quantised(segnet(labels), profile)
    onnx.checker.check_model(graph, full_check=True)
    want = run(prepared, **feeds)[0]
    for lower in (to_standard, lower_for_openvino, to_primitive):
        got = run(lower(graph), **feeds)[0]
        assert got.dtype == want.dtype
        agreement = (got == want).mean() if labels else (got.argmax(1) == want.argmax(1)).mean()
        assert agreement > 0.8, f"{lower.__name__}: {agreement:.1%} of a random network's pixels"


def test_graphs_for_tensorrt_have_symmetric_int8_and_float_bias() -> None:
    _, graph, _ = quantised(segnet(labels=True))
    for model in (graph, to_plugins(graph), to_half(to_plugins(graph)), to_half(to_primitive(graph))):
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        for node in pairs:
            zero = constants[node.input[2]]
            assert zero.data_type == INT8
            assert not numpy_helper.to_array(zero).any()
            assert (numpy_helper.to_array(constants[node.input[1]]) > 0).all()
        for node in model.graph.node:
            if node.op_type == "Conv" and len(node.input) > 2:
                assert constants[node.input[2]].data_type in (FLOAT, TensorProto.FLOAT16)
        assert not any(tensor.data_type == TensorProto.INT32 for tensor in model.graph.initializer)


def roi_graph() -> ModelProto:
    """Two levels of features and a convolution on what RoIAlign gives."""
    b = nets.Builder()
    fine = b.conv_norm_relu("input", 3, 4)
    coarse = b.conv_norm_relu(fine, 4, 4, 3, 2)
    settings = {"output_height": 3, "output_width": 3, "sampling_ratio": 2, "spatial_scales": [1.0, 0.5], "canonical_size": 8.0}
    b.nodes.append(helper.make_node("RoIAlign", ["rois", "batch", fine, coarse], ["pooled"], **settings, **OURS))
    y = b.conv("pooled", 4, 5, 1, bias=True)
    b.constant(np.float32([[1, 1, 6, 7], [0, 0, 15, 15], [3, 2, 14, 9], [8, 8, 9, 9], [2, 2, 3, 12], [5, 5, 13, 14]]), "rois")
    b.constant(np.zeros(6, np.int64), "batch")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in b.constants}
    return build(b.nodes, {"input": [1, 3, 16, 16]}, {y: [6, 5, 3, 3]}, stored)


def test_levels_and_result_of_roi_align_share_one_scale() -> None:
    from edgeseg.ops import functions

    model = functions.attach(roi_graph())
    prepared, graph, feeds = quantised(model)
    assert before(graph, "RoIAlign", 2) == before(graph, "RoIAlign", 3) == ["DequantizeLinear"]
    lowered = to_plugins(graph)
    (node,) = [node for node in lowered.graph.node if node.op_type == "RoIAlign"]
    assert before(lowered, "RoIAlign", 2) == before(lowered, "RoIAlign", 3) == ["QuantizeLinear"]
    assert [reader.op_type for reader in lowered.graph.node if node.output[0] in reader.input] == ["DequantizeLinear"]
    want, got = run(prepared, **feeds)[0], run(to_standard(graph), **feeds)[0]
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


# --- what absorbs, and what does not -------------------------------------------------------------------------------------


def around(readers: list[str], out_scale: str = "s", **constants: np.ndarray) -> ModelProto:
    """x (int8) -> DQ -> MaxPoolArgmax -> each of ``readers``."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("MaxPoolArgmax", ["f"], ["p", "c"], **POOL, **OURS),
    ]
    outputs: dict[str, object] = {"c": (UINT8, [1, 2, 4, 4])}
    for number, reader in enumerate(readers):
        inputs = ["p", out_scale, "z"] if reader == "QuantizeLinear" else ["p"]
        nodes.append(helper.make_node(reader, inputs, [f"y{number}"]))
        outputs[f"y{number}"] = (INT8 if reader == "QuantizeLinear" else FLOAT, [1, 2, 4, 4])
    return build(nodes, {"x": (INT8, [1, 2, 8, 8])}, outputs, {**SCALE, **constants})


def test_one_scale_on_both_sides_is_absorbed() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("MaxPoolArgmax", ["f"], ["p", "c"], **POOL, **OURS),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["q"]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["r"]),
        helper.make_node("Cast", ["q"], ["a"], to=TensorProto.INT32),
        helper.make_node("Cast", ["r"], ["b"], to=TensorProto.INT32),
    ]
    outputs = {"a": (TensorProto.INT32, [1, 2, 4, 4]), "b": (TensorProto.INT32, [1, 2, 4, 4]), "c": (UINT8, [1, 2, 4, 4])}
    model = build(nodes, {"x": (INT8, [1, 2, 8, 8])}, outputs, SCALE)
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::MaxPoolArgmax", "Cast", "Cast"]
    assert not lowered.graph.initializer
    codes = np.random.default_rng(0).integers(-128, 128, (1, 2, 8, 8)).astype(np.int8)
    values, _, places = run(to_standard(model), x=codes)
    windows = codes.reshape(1, 2, 4, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(1, 2, 4, 4, 4)
    assert np.array_equal(values, windows.max(-1)), "the pool of codes is the code of the pool"
    assert np.array_equal(places, windows.argmax(-1))


@pytest.mark.parametrize(
    ("readers", "more"),
    [
        (["Relu"], {}),
        (["QuantizeLinear", "Relu"], {}),
        (["QuantizeLinear"], {"out_scale": "t", "t": np.float32(0.06)}),
        (["QuantizeLinear"], {"z": np.int8(3)}),
    ],
)
def test_anything_else_stays_float(readers: list[str], more: dict[str, object]) -> None:
    model = around(readers, **more)  # type: ignore[arg-type]
    found = kinds(to_plugins(model))
    assert found[:2] == ["DequantizeLinear", "edgeseg::MaxPoolArgmax"]
    assert sorted(found[2:]) == sorted(readers)


def test_float_logits_stay_float() -> None:
    nodes = [helper.make_node("UpsampleArgmax", ["x"], ["y"], size=[8, 8], **OURS)]
    lowered = to_plugins(build(nodes, {"x": [1, 3, 4, 4]}, {"y": (UINT8, [1, 8, 8])}))
    assert "logit_scale" not in options(lowered, "UpsampleArgmax")
    assert run(to_standard(lowered), x=noise(1, 3, 4, 4))[0].dtype == np.uint8
    assert INT64 not in {value.type.tensor_type.elem_type for value in lowered.graph.output}
