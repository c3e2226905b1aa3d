"""RoIAlign as an ONNX function: what each runtime makes of its bodies, against plain loops."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg.errors import OnnxError
from edgeseg.ops.functions import attach, inline
from edgeseg.ops.roi_align import RoiAlignOptions, primitive_body, roi_align_reference
from tests.ops import rtx
from tests.ops.roi_align_cases import Case, cases, make, spoil

# GridSample's coordinates are normalised: they lose what the place in the canvas costs them.
TOLERANCE = {"standard": 1e-6, "primitive": 1e-5}
PRIMITIVE_LACKS = {"RoiAlign", "NonZero", "MaxUnpool", "ScatterND", "Shape", "Compress", "Loop", "If"}


def model_of(case: Case, element: int = TensorProto.FLOAT, free: bool = False) -> onnx.ModelProto:
    """One node of ours; ``free``: no sizes in the file but the channels."""
    info = helper.make_tensor_value_info
    attributes = {**asdict(case.options), "aligned": int(case.options.aligned)}
    names = [f"feature_{level}" for level in range(len(case.features))]
    shapes = [list(level.shape) for level in case.features]
    maps = [[None, shape[1], None, None] if free else shape for shape in shapes]
    boxes: int | str = "boxes" if free else len(case.rois)
    inputs = [info("rois", TensorProto.FLOAT, [boxes, 4]), info("images", TensorProto.INT64, [boxes])]
    inputs += [info(name, element, shape) for name, shape in zip(names, maps, strict=True)]
    output = [boxes, shapes[0][1], case.options.output_height, case.options.output_width]
    node = helper.make_node("RoIAlign", ["rois", "images", *names], ["pooled"], domain="edgeseg", **attributes)
    graph = helper.make_graph([node], "roi_align", inputs, [info("pooled", element, output)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgeseg", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def feed(case: Case) -> dict[str, np.ndarray]:
    maps = {f"feature_{level}": array for level, array in enumerate(case.features)}
    return {"rois": case.rois, "images": case.images, **maps}


def run(model: onnx.ModelProto, case: Case) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed(case))[0]


def agree(found: np.ndarray, case: Case, tolerance: float) -> None:
    expected = roi_align_reference(*case.arguments)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= tolerance * case.scale


@settings(max_examples=40)
@given(cases)
def test_onnx_runtime_runs_the_standard_body(case: Case) -> None:
    attached = attach(model_of(case))
    onnx.checker.check_model(attached, full_check=True)
    agree(run(attached, case), case, TOLERANCE["standard"])


@settings(max_examples=40)
@given(cases)
def test_onnx_runtime_runs_the_primitive_body(case: Case) -> None:
    assume(case.options.sampling_ratio and len(case.rois))
    attached = attach(model_of(case), "primitive")
    onnx.checker.check_model(attached, full_check=True)
    agree(run(attached, case), case, TOLERANCE["primitive"])


@settings(max_examples=30)
@given(cases, st.integers(0, 10**6), st.sampled_from(["standard", "primitive"]))
def test_no_box_makes_them_fail(case: Case, seed: int, kind: str) -> None:
    assume(kind == "standard" or (case.options.sampling_ratio and len(case.rois)))
    spoiled = spoil(case, seed)
    agree(run(attach(model_of(spoiled), kind), spoiled), spoiled, TOLERANCE[kind])


def test_the_standard_body_needs_no_sizes() -> None:
    attached = attach(model_of(make(1), free=True))
    for count, images, size in ((0, 1, (9, 9)), (3, 1, (31, 17)), (7, 3, (5, 40))):
        case = make(2, count=count, images=images, size=size)
        case = replace(case, options=make(1).options)
        agree(run(attached, case), case, TOLERANCE["standard"])


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("images", [1, 2])
def test_primitive_bodies_are_primitive(mode: str, images: int) -> None:
    (function,) = attach(model_of(make(1, mode=mode, images=images)), "primitive").functions
    operators = {node.op_type for node in function.node}
    assert not PRIMITIVE_LACKS & operators
    assert sum(node.op_type == "GridSample" for node in function.node) == (4 if mode == "max" else 1)


def test_what_has_no_primitive_body_is_refused() -> None:
    with pytest.raises(OnnxError, match="sampling_ratio >= 1"):
        attach(model_of(make(1, ratio=0)), "primitive")
    with pytest.raises(OnnxError, match="static shapes"):
        attach(model_of(make(1), free=True), "primitive")
    with pytest.raises(ValueError, match="mode"):
        primitive_body("RoIAlign", asdict(RoiAlignOptions(1, 1, [1.0], 1, "sum")), [(1, 4), (1,), (1, 1, 2, 2)])


def test_the_primitive_body_at_the_size_of_a_network() -> None:
    """The pyramid of a 640x960 image, one channel: the error that a canvas of 300 rows costs."""
    case = make(4, levels=4, size=(160, 240), channels=1, count=100, images=1, output=(7, 7))
    agree(run(attach(model_of(case), "primitive"), case), case, 5e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("images", [1, 2])
def test_openvino_runs_the_primitive_body(mode: str, images: int) -> None:
    openvino = pytest.importorskip("openvino")
    good = make(8, mode=mode, images=images, count=12)
    core = openvino.Core()
    model = core.read_model(inline(attach(model_of(good), "primitive")).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for case in (good, spoil(good, 1), spoil(good, 2)):
        agree(compiled(feed(case))["pooled"], case, TOLERANCE["primitive"])


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_tensorrt_rtx_builds_the_primitive_body(tmp_path: Path, mode: str, images: int, element: int) -> None:
    case = make(1, levels=4, mode=mode, images=images, size=(64, 96), channels=16, count=100, output=(7, 7))
    assert rtx.build(inline(attach(model_of(case, element), "primitive")), tmp_path, targets=("SM89",)).size > 0
