"""Our operators as functions: names, bodies that are shared or told apart, opsets, and the results that inference finds."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import OnnxError
from edgeseg.ops import functions

FLOAT, HALF, INT8, INT64, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64, TensorProto.UINT8
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
SMALL = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, domain="edgeseg", **attributes)


def model(nodes: list[onnx.NodeProto], shape: list[Any], opset: int = 18, kind: int = FLOAT, **inputs: Any) -> ModelProto:
    taken = [helper.make_tensor_value_info("x", kind, shape)]
    taken += [helper.make_tensor_value_info(name, element, dims) for name, (element, dims) in inputs.items()]
    made = [onnx.ValueInfoProto(name=name) for name in nodes[-1].output]
    graph = helper.make_graph(nodes, "g", taken, made)
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    functions.declare(found)
    return found


@pytest.mark.parametrize(("name", "base"), [("RoIAlign", "RoIAlign"), ("RoIAlign_2", "RoIAlign"), ("MaxUnpool_13", "MaxUnpool")])
def test_base_names(name: str, base: str) -> None:
    assert functions.base_name(name) == base


def test_every_operator_has_both_bodies() -> None:
    for name in functions.REGISTRY:
        found = functions.bodies(f"{name}_2")
        assert callable(found.standard)
        assert callable(found.primitive)
    with pytest.raises(OnnxError, match="one of RoIAlign"):
        functions.bodies("Levitate")


def test_equal_bodies_are_one_function_and_others_numbered() -> None:
    nodes = [
        node("MaxPoolArgmax", ["x"], ["a", "ca"], **POOL),
        node("MaxPoolArgmax", ["a"], ["b", "cb"], **SMALL),
        node("MaxPoolArgmax", ["b"], ["c", "cc"], **POOL),
        node("MaxPoolArgmax", ["c"], ["d", "cd"], **SMALL),
    ]
    attached = functions.attach(model(nodes, [1, 2, 32, 32]))
    assert [item.op_type for item in attached.graph.node] == ["MaxPoolArgmax", "MaxPoolArgmax_2"] * 2
    assert sorted(function.name for function in attached.functions) == ["MaxPoolArgmax", "MaxPoolArgmax_2"]
    assert {function.domain for function in attached.functions} == {"edgeseg"}
    onnx.checker.check_model(functions.infer(attached), full_check=True)
    assert functions.attach(attached) == attached, "attaching again changes nothing"
    bare = functions.detach(attached)
    assert {item.op_type for item in bare.graph.node} == {"MaxPoolArgmax"}
    assert not bare.functions
    primitive = functions.attach(attached, "primitive")
    assert len({item.op_type for item in primitive.graph.node}) == 4, "four shapes, four bodies"


@pytest.mark.parametrize("opset", [18, 19, 21])
def test_bodies_are_of_the_models_opset_and_declare_the_attributes(opset: int) -> None:
    nodes = [node("MaxPoolArgmax", ["x"], ["a", "ca"], **POOL)]
    (function,) = functions.attach(model(nodes, [1, 2, 8, 8], opset)).functions
    assert [entry.version for entry in function.opset_import] == [opset]
    assert set(function.attribute) == set(POOL)


def test_a_kind_for_each_node() -> None:
    nodes = [node("MaxPoolArgmax", ["x"], ["a", "ca"], **POOL), node("MaxUnpool", ["a", "ca"], ["y"], **POOL)]
    attached = functions.attach(model(nodes, [1, 2, 8, 8]), lambda item: "primitive" if item.op_type == "MaxUnpool" else "standard")
    used = {function.name: {item.op_type for item in function.node} for function in attached.functions}
    assert "Mod" in used["MaxPoolArgmax"]
    assert "Where" in used["MaxUnpool"]


def test_other_functions_stay_and_inline_takes_all() -> None:
    body = helper.make_function(
        "theirs", "Same", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    made = model([node("MaxPoolArgmax", ["x"], ["a", "ca"], **POOL)], [1, 2, 8, 8])
    made.functions.append(body)
    attached = functions.attach(made)
    assert {function.domain for function in attached.functions} == {"theirs", "edgeseg"}
    inlined = functions.inline(attached)
    assert not inlined.functions
    assert [entry.domain for entry in inlined.opset_import] == [""]


@pytest.mark.parametrize(("kind", "bodies"), [(FLOAT, False), (FLOAT, True), (HALF, False), (HALF, True), (INT8, False)])
def test_results_are_inferred_with_and_without_bodies(kind: int, bodies: bool) -> None:
    levels = {"output_height": 3, "output_width": 5, "spatial_scales": [1.0, 0.5]}
    cases: list[tuple[list[onnx.NodeProto], dict[str, tuple[int, list[Any]]]]] = [
        ([node("MaxPoolArgmax", ["x"], ["y", "c"], **SMALL)], {"y": (kind, [2, 3, 8, 12]), "c": (UINT8, [2, 3, 8, 12])}),
        ([node("MaxPoolIndices", ["x"], ["y", "i"], **POOL)], {"y": (kind, [2, 3, 4, 6]), "i": (INT64, [2, 3, 4, 6])}),
        ([node("MaxUnpool", ["x", "codes"], ["y"], **POOL)], {"y": (kind, [2, 3, 16, 24])}),
        ([node("MaxUnpool", ["x", "codes"], ["y"], **POOL, output_size=[17, 25])], {"y": (kind, [2, 3, 17, 25])}),
        ([node("MaxUnpoolIndices", ["x", "indices"], ["y"], **POOL)], {"y": (kind, [2, 3, 16, 24])}),
        ([node("RoIAlign", ["rois", "batch", "x", "x"], ["y"], **levels)], {"y": (kind, [7, 3, 3, 5])}),
        ([node("UpsampleArgmax", ["x"], ["y"], size=[20, 30])], {"y": (UINT8, [2, 20, 30])}),
    ]
    inputs = {"codes": (UINT8, [2, 3, 8, 12]), "indices": (INT64, [2, 3, 8, 12]), "rois": (FLOAT, [7, 4]), "batch": (INT64, [7])}
    for nodes, wanted in cases:
        made = model(nodes, [2, 3, 8, 12], kind=kind, **inputs)
        inferred = functions.infer(functions.attach(made) if bodies else made)
        for value in inferred.graph.output:
            found = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert (value.type.tensor_type.elem_type, found) == wanted[value.name], nodes[0].op_type


def test_open_sizes_stay_open() -> None:
    nodes = [node("MaxPoolArgmax", ["x"], ["y", "c"], **POOL)]
    (value, _) = functions.infer(model(nodes, ["n", 3, "h", 12])).graph.output
    dims = value.type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value, dims[3].dim_value) == ("n", 3, 6)
    assert not dims[2].HasField("dim_value")
    assert "y" not in functions.known_shapes(model(nodes, ["n", 3, "h", 12]))
    assert functions.known_shapes(model(nodes, [1, 3, 8, 12]))["y"] == (1, 3, 4, 6)
