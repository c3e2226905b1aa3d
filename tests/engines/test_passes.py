"""Standard operators become ours and ours standard: results are those of ONNX Runtime on the graph as it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.engines.lowering import to_plugins, to_primitive, to_standard
from edgeseg.errors import OnnxError
from edgeseg.ops import functions
from tests.engines.graphs import FLOAT, HALF, INT64, OURS, POOL, UINT8, build, kinds, noise, options, run


def pooled_and_unpooled(height: int, width: int, size: list[int] | None = None, opset: int = 18, **unpool: Any) -> ModelProto:
    names = ["pooled", "places"] + (["size"] if size else [])
    nodes = [
        helper.make_node("MaxPool", ["x"], ["pooled", "places"], **POOL),
        helper.make_node("Relu", ["pooled"], ["values"]),
        helper.make_node("MaxUnpool", ["values", *names[1:]], ["y"], **{**POOL, **unpool}),
    ]
    constants = {"size": np.array(size, np.int64)} if size else None
    return build(nodes, {"x": [2, 3, height, width]}, {"y": [None] * 4}, constants, opset)


# --- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, [2, 3, 9, 13]])
def test_pool_and_unpool_of_one_plane_speak_codes(size: list[int] | None) -> None:
    height, width = (9, 13) if size else (8, 12)
    model = pooled_and_unpooled(height, width, size)
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::MaxPoolArgmax", "Relu", "edgeseg::MaxUnpool"]
    assert options(lowered, "MaxUnpool")["output_size"] == [height, width]
    assert options(lowered, "MaxPoolArgmax")["plugin_version"] == "1"
    assert options(lowered, "MaxPoolArgmax")["plugin_namespace"] == "edgeseg"
    assert not lowered.graph.initializer
    assert not lowered.functions
    assert kinds(model) == ["MaxPool", "Relu", "MaxUnpool"], "the given graph is left alone"
    x = noise(2, 3, height, width)
    want = run(model, x=x)[0]
    assert np.array_equal(run(functions.attach(lowered), x=x)[0], want)
    assert np.array_equal(run(to_primitive(model), x=x)[0], want)
    back = to_standard(lowered)
    assert kinds(back) == ["MaxPool", "Relu", "MaxUnpool"]
    assert np.array_equal(run(back, x=x)[0], want)


def test_an_unpool_to_another_plane_speaks_indices() -> None:
    model = pooled_and_unpooled(8, 12, [2, 3, 9, 14])
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::MaxPoolIndices", "Relu", "edgeseg::MaxUnpoolIndices"]
    assert options(lowered, "MaxUnpoolIndices")["output_size"] == [9, 14]
    x = noise(2, 3, 8, 12)
    assert np.array_equal(run(functions.attach(lowered), x=x)[0], run(model, x=x)[0])


def test_indices_that_are_an_output_stay_indices() -> None:
    nodes = [helper.make_node("MaxPool", ["x"], ["y", "places"], storage_order=1, **POOL)]
    model = build(nodes, {"x": [1, 2, 6, 8]}, {"y": [None] * 4, "places": (INT64, [None] * 4)})
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::MaxPoolIndices"]
    assert options(lowered, "MaxPoolIndices")["storage_order"] == 1
    x = noise(1, 2, 6, 8)
    for got, want in zip(run(functions.attach(lowered), x=x), run(model, x=x), strict=True):
        assert np.array_equal(got, want)


def test_indices_nobody_reads_are_dropped() -> None:
    model = build([helper.make_node("MaxPool", ["x"], ["y", "places"], **POOL)], {"x": [1, 2, 6, 8]}, {"y": [None] * 4})
    lowered = to_plugins(model)
    assert kinds(lowered) == ["MaxPool"]
    assert list(lowered.graph.node[0].output) == ["y"]


@pytest.mark.parametrize(
    "attribute", [{"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}, {"kernel_shape": [2, 2, 2], "strides": [2] * 3}]
)
def test_pools_that_ours_cannot_express_stay(attribute: dict[str, Any]) -> None:
    rank = len(attribute.get("kernel_shape", [2, 2]))
    nodes = [helper.make_node("MaxPool", ["x"], ["y", "places"], **{**POOL, **attribute})]
    model = build(nodes, {"x": [1, 2, *[8] * rank]}, {"y": [None] * (rank + 2), "places": (INT64, [None] * (rank + 2))})
    assert kinds(to_plugins(model)) == ["MaxPool"]


def test_codes_that_something_else_reads_go_through_the_body() -> None:
    nodes = [
        helper.make_node("MaxPoolArgmax", ["x"], ["y", "codes"], **POOL, **OURS),
        helper.make_node("MaxUnpool", ["y", "codes"], ["z"], **POOL, **OURS),
    ]
    model = build(nodes, {"x": [1, 2, 6, 8]}, {"z": [None] * 4, "codes": (UINT8, [None] * 4)})
    lowered = to_standard(model)
    assert "Cast" in kinds(lowered)
    assert not lowered.functions
    x = noise(1, 2, 6, 8)
    plain, codes = run(lowered, x=x)
    assert codes.dtype == np.uint8
    assert codes.max() <= 3
    assert np.array_equal(np.sort(plain[plain != 0]), np.sort(run(lowered, x=x)[0][plain != 0]))


def test_other_functions_are_inlined_and_ours_renamed() -> None:
    body = helper.make_function(
        "their", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["double"], domain="their"),
        helper.make_node("MaxPoolArgmax", ["double"], ["p", "c"], **POOL, **OURS),
        helper.make_node("MaxUnpool", ["p", "c"], ["q"], **POOL, **OURS),
        helper.make_node("MaxPoolArgmax", ["q"], ["r", "d"], kernel_shape=[3, 3], strides=[3, 3], **OURS),
        helper.make_node("MaxUnpool", ["r", "d"], ["y"], kernel_shape=[3, 3], strides=[3, 3], **OURS),
    ]
    model = build(nodes, {"x": [1, 2, 12, 6]}, {"y": [None] * 4})
    model.opset_import.append(helper.make_opsetid("their", 1))
    model = functions.attach(model)
    model.functions.append(body)
    assert [node.op_type for node in model.graph.node][1:] == ["MaxPoolArgmax", "MaxUnpool", "MaxPoolArgmax_2", "MaxUnpool_2"]
    lowered = to_plugins(model)
    assert kinds(lowered) == ["Add", *["edgeseg::MaxPoolArgmax", "edgeseg::MaxUnpool"] * 2]
    assert {entry.domain for entry in lowered.opset_import} == {"", "edgeseg"}
    x = noise(1, 2, 12, 6)
    assert np.array_equal(run(to_standard(model), x=x)[0], run(model, x=x)[0])
    assert np.array_equal(run(to_primitive(model), x=x)[0], run(model, x=x)[0])


def test_primitive_graphs_of_old_opsets_are_raised() -> None:
    model = pooled_and_unpooled(8, 12, opset=13)
    x = noise(2, 3, 8, 12)
    assert np.array_equal(run(to_primitive(model), x=x)[0], run(model, x=x)[0])
    assert Counter(kinds(to_plugins(model)))["edgeseg::MaxUnpool"] == 1


def test_an_operator_of_a_later_version_is_named() -> None:
    model = build([helper.make_node("Levitate", ["x"], ["y"], **OURS)], {"x": [1]}, {"y": [1]})
    with pytest.raises(OnnxError, match="Levitate"):
        to_standard(model)


# --- labels ----------------------------------------------------------------------------------------------------------


def argmax(output: str, **attributes: int) -> NodeProto:
    return helper.make_node("ArgMax", ["up"], [output], **attributes)


def label_graph(
    tail: list[NodeProto], mode: str = "half_pixel", shape: list[int] | None = None, kind: int = INT64, **more: Any
) -> ModelProto:
    nodes = [
        helper.make_node("Resize", ["x", "", "", "sizes"], ["up"], mode="linear", coordinate_transformation_mode=mode, **more),
        *tail,
    ]
    sizes = {"sizes": np.array([1, 5, 24, 36], np.int64)}
    return build(nodes, {"x": [1, 5, 8, 12]}, {"y": (kind, shape or [1, 24, 36])}, sizes)


@pytest.mark.parametrize(
    "tail",
    [
        [helper.make_node("ArgMax", ["up"], ["y"], axis=1, keepdims=0)],
        [
            helper.make_node("ArgMax", ["up"], ["a"], axis=-3, keepdims=0),
            helper.make_node("Cast", ["a"], ["y"], to=TensorProto.INT32),
        ],
        [helper.make_node("ArgMax", ["up"], ["a"], axis=1), helper.make_node("Squeeze", ["a", "one"], ["y"])],
    ],
)
@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "align_corners"])
def test_resize_and_argmax_at_an_output_are_fused(tail: list[NodeProto], mode: str) -> None:
    model = label_graph(tail, mode, kind=TensorProto.INT32 if len(tail) > 1 and tail[1].op_type == "Cast" else INT64)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::UpsampleArgmax"]
    assert options(lowered, "UpsampleArgmax")["size"] == [24, 36]
    assert options(lowered, "UpsampleArgmax")["align_corners"] == (mode == "align_corners")
    assert lowered.graph.output[0].type.tensor_type.elem_type == UINT8
    assert not lowered.graph.initializer


@pytest.mark.parametrize(
    ("tail", "more"),
    [
        ([argmax("y", axis=2, keepdims=0)], {}),
        ([argmax("y", axis=1, keepdims=0, select_last_index=1)], {}),
        ([argmax("y", axis=1, keepdims=1)], {}),
        ([argmax("y", axis=1, keepdims=0)], {"antialias": 1}),
        ([argmax("y", axis=1, keepdims=0)], {"mode": "asymmetric"}),
    ],
)
def test_what_is_no_label_output_of_ours_stays(tail: list[NodeProto], more: dict[str, Any]) -> None:
    shape = {2: [1, 5, 36], 1: [1, 24, 36]}[functions.attributes(tail[0])["axis"]]
    keeps = functions.attributes(tail[0]).get("keepdims") == 1
    model = label_graph(tail, shape=[1, 1, 24, 36] if keeps else shape, **more)
    assert kinds(to_plugins(model)) == ["Resize", "ArgMax"]


def test_scales_that_do_not_meet_the_sizes_stay() -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["up"], mode="linear"),
        helper.make_node("ArgMax", ["up"], ["y"], axis=1, keepdims=0),
    ]
    for factor, fused in ((2.0, True), (2.3, False)):
        scales = {"scales": np.array([1, 1, factor, factor], np.float32)}
        sides = [int(8 * factor), int(12 * factor)]
        lowered = to_plugins(build(nodes, {"x": [1, 5, 8, 12]}, {"y": (INT64, [1, *sides])}, scales))
        assert (kinds(lowered) == ["edgeseg::UpsampleArgmax"]) == fused


@pytest.mark.parametrize("outputs", [["y"], ["y", "p"]])
def test_the_plugin_is_told_of_its_second_output(outputs: list[str]) -> None:
    node = helper.make_node("UpsampleArgmax", ["x"], outputs, size=[8, 8], **OURS)
    made = {"y": (UINT8, [1, 8, 8]), "p": [1, 8, 8]}
    lowered = to_plugins(build([node], {"x": [1, 3, 4, 4]}, {name: made[name] for name in outputs}))
    assert options(lowered, "UpsampleArgmax").get("probability", 0) == len(outputs) - 1


# --- RoiAlign --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "mode", "aligned"), [(10, None, 0), (16, None, 1), (16, "output_half_pixel", 0), (22, "half_pixel", 1)]
)
def test_roi_align_becomes_one_level(opset: int, mode: str | None, aligned: int) -> None:
    more = {"coordinate_transformation_mode": mode} if mode else {}
    node = helper.make_node(
        "RoiAlign", ["x", "rois", "batch"], ["y"], output_height=3, output_width=5, sampling_ratio=2, spatial_scale=0.25, **more
    )
    model = build([node], {"x": [1, 2, 8, 8], "rois": ["k", 4], "batch": (INT64, ["k"])}, {"y": ["k", 2, 3, 5]}, opset=opset)
    lowered = to_plugins(model)
    assert kinds(lowered) == ["edgeseg::RoIAlign"]
    assert list(lowered.graph.node[0].input) == ["rois", "batch", "x"]
    found = options(lowered, "RoIAlign")
    assert (found["aligned"], found["mode"], found["sampling_ratio"], found["spatial_scales"]) == (aligned, "avg", 2, [0.25])
    assert (found["output_height"], found["output_width"]) == (3, 5)


def test_half_boxes_become_float() -> None:
    node = helper.make_node("RoiAlign", ["x", "rois", "batch"], ["y"])
    inputs = {"x": (HALF, [1, 2, 8, 8]), "rois": (HALF, [7, 4]), "batch": (INT64, [7])}
    lowered = to_plugins(build([node], inputs, {"y": (HALF, [7, 2, 1, 1])}))
    assert kinds(lowered) == ["Cast", "edgeseg::RoIAlign"]
    assert options(lowered, "Cast")["to"] == FLOAT
