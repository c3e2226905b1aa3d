"""Every operator of ours through every lowering: one result in ONNX Runtime and OpenVINO, and TensorRT-RTX builds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from edgeseg.engines.lowering import to_half, to_primitive, to_standard
from edgeseg.engines.nvidia.rules import check_for_rtx
from edgeseg.ops import functions
from tests.engines.graphs import INT64, OURS, POOL, UINT8, build, run, segnet

WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
ROIS = np.float32([[1, 1, 9, 9], [0, 2, 14, 15], [3, 3, 4, 4], [-5, -5, 40, 40]])


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(op_type, inputs, outputs, **attributes, **OURS)


def labels(classes: int, **attributes: Any) -> ModelProto:
    made = node("UpsampleArgmax", ["x"], ["y"], size=[16, 20], **attributes)
    return build([made], {"x": [1, classes, 4, 4]}, {"y": (UINT8, [1, 16, 20])})


def overlapping_codes() -> ModelProto:
    nodes = [
        node("MaxPoolArgmax", ["x"], ["p", "c"], **WINDOW),
        node("MaxUnpool", ["p", "c"], ["y"], output_size=[9, 12], **WINDOW),
    ]
    return build(nodes, {"x": [1, 3, 9, 12]}, {"y": [1, 3, 9, 12]})


def whole_indices() -> ModelProto:
    nodes = [node("MaxPoolIndices", ["x"], ["p", "i"], **POOL), node("MaxUnpoolIndices", ["p", "i"], ["y"], **POOL)]
    return build(nodes, {"x": [1, 3, 8, 12]}, {"y": [1, 3, 8, 12]})


def boxes(mode: str = "avg") -> ModelProto:
    settings = {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "spatial_scales": [1.0, 0.5], "canonical_size": 8.0}
    nodes = [
        helper.make_node("AveragePool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        node("RoIAlign", ["rois", "batch", "x", "half"], ["y"], mode=mode, **settings),
    ]
    return build(nodes, {"x": [1, 3, 16, 16]}, {"y": [4, 3, 3, 2]}, {"rois": ROIS, "batch": np.zeros(4, np.int64)})


def standard_boxes(mode: str = "avg") -> ModelProto:
    settings = {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "mode": mode}
    made = helper.make_node("RoiAlign", ["x", "rois", "batch"], ["y"], **settings)
    return build([made], {"x": [1, 3, 16, 16]}, {"y": [4, 3, 3, 2]}, {"rois": ROIS, "batch": np.zeros(4, np.int64)})


GRAPHS = {
    "labels": lambda: labels(3),
    "labels of one class": lambda: labels(1, threshold=0.2),
    "labels, corners aligned": lambda: labels(3, align_corners=1),
    "overlapping codes": overlapping_codes,
    "whole indices": whole_indices,
    "boxes": boxes,
    "largest of boxes": lambda: boxes("max"),
    "standard boxes": standard_boxes,
    "largest of standard boxes": lambda: standard_boxes("max"),
    "segnet": segnet,
    "segnet in labels": lambda: segnet(labels=True),
}


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> ModelProto:
    return functions.attach(GRAPHS[request.param]())


def feeds(model: ModelProto) -> dict[str, np.ndarray]:
    """Values of FP16, so that no rounding makes two maxima one."""
    (value,) = model.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    random = np.random.default_rng(1).permutation(int(np.prod(shape))).reshape(shape)
    return {value.name: (random / 512 - 0.5).astype(np.float16).astype(np.float32)}


def alike(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float, share: float = 0.0) -> None:
    """Equal but for ``tolerance``, and that everywhere but for a ``share`` of places."""
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.dtype
        if want.dtype == np.uint8:
            assert (got != want).mean() <= share
        else:
            assert (np.abs(got - want) > tolerance * max(1.0, np.abs(want).max())).mean() <= share


def test_onnx_runtime_gives_one_result_in_every_form(graph: ModelProto) -> None:
    given = feeds(graph)
    wanted = run(graph, **given)
    for lower in (to_standard, to_primitive):
        lowered = lower(graph)
        assert not lowered.functions
        assert {made.domain for made in functions.walk(lowered.graph)} == {""}
        alike(run(lowered, **given), wanted, 1e-5)


def test_openvino_gives_it_too(graph: ModelProto) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from edgeseg.engines.openvino import open_graph

    given = feeds(graph)
    wanted = run(graph, **given)
    for model in (graph, to_primitive(graph)):
        alike(list(open_graph(model).run(given).values()), wanted, 1e-5)


def test_half_stays_close(graph: ModelProto) -> None:
    given = feeds(graph)
    assert not any(value.type.tensor_type.elem_type == INT64 for value in graph.graph.output)
    # Where two maxima differ by less than FP16 tells apart, a value is unpooled to the other's place.
    alike(run(to_half(to_primitive(graph)), **given), run(graph, **given), 1e-2, share=0.01)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(graph: ModelProto, precision: str) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: no builder that works without a GPU")
    from edgeseg.engines.nvidia import builder
    from edgeseg.engines.nvidia.messages import Log
    from edgeseg.engines.options import BuildOptions

    lowered = to_primitive(graph) if precision == "fp32" else to_half(to_primitive(graph))
    check_for_rtx(lowered)  # what resolves to a plugin would end this process
    options = BuildOptions(targets=("sm86",))
    wanted = builder.Request("tensorrt_rtx", lowered.SerializeToString(), precision, graph.graph.input[0].name, options)
    assert builder.build(rtx, wanted, Log(rtx), lambda _: None, lambda: False).engine
