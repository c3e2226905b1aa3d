"""The pools as ONNX functions: what each runtime makes of their bodies, against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg.errors import OnnxError
from edgeseg.ops.functions import attach, inline
from edgeseg.ops.max_pool import (
    BODIES,
    Window,
    max_pool_argmax_reference,
    max_pool_indices_reference,
    max_unpool_indices_reference,
    max_unpool_reference,
)
from edgeseg.ops.max_pool_bodies import primitive_pool_codes, primitive_unpool_codes
from tests.ops import rtx

PRIMITIVE_LACKS = {"MaxUnpool", "NonZero", "RoiAlign"}
TILES, OVERLAPPING = Window((2, 2), (2, 2)), Window((3, 3), (2, 2), (1, 1, 1, 1))
WINDOWS = [
    *(TILES, OVERLAPPING, Window((3, 3), (3, 3)), Window((2, 2), (3, 3)), Window((3, 2), (1, 2), (0, 1, 2, 0))),
    *(Window((5, 4), (2, 3), (2, 0, 1, 3)), Window((1, 3), (1, 1), (0, 1, 0, 1)), Window((2, 2), (1, 1))),
]


def node(op_type: str, inputs: list[str], outputs: list[str], window: Window, **others: Any) -> onnx.NodeProto:
    settings_ = {"kernel_shape": window.kernel, "strides": window.strides, "pads": window.pads, **others}
    return helper.make_node(op_type, inputs, outputs, domain="edgeseg", **settings_)


def there_and_back(
    shape: tuple[int, ...], window: Window, by_index: bool = False, element: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """x, pooled and unpooled to x's size."""
    pool, unpool = ("MaxPoolIndices", "MaxUnpoolIndices") if by_index else ("MaxPoolArgmax", "MaxUnpool")
    nodes = [node(pool, ["x"], ["y", "where"], window)]
    size = {} if window.unpooled(*window.pooled(*shape[2:])) == shape[2:] else {"output_size": shape[2:]}
    nodes.append(node(unpool, ["y", "where"], ["z"], window, **size))
    info = helper.make_tensor_value_info
    pooled = [*shape[:2], *window.pooled(*shape[2:])]
    outputs = [info("y", element, pooled), info("z", element, shape)]
    graph = helper.make_graph(nodes, "pools", [info("x", element, shape)], outputs)
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("edgeseg", 1)], ir_version=9)


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Distinct values and ties, none zero, so that a value put nowhere is noticed."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.4, rng.choice([1.0, 2.0, -1.0], shape), x).astype(np.float32)


def expected(x: np.ndarray, window: Window, by_index: bool) -> tuple[np.ndarray, np.ndarray]:
    if by_index:
        values, indices = max_pool_indices_reference(x, window)
        return values, max_unpool_indices_reference(values, indices, x.shape[2:])
    values, codes = max_pool_argmax_reference(x, window)
    return values, max_unpool_reference(values, codes, window, x.shape[2:])


@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_onnx_runtime_runs_the_bodies(window: Window, kind: str, by_index: bool) -> None:
    for seed, shape in enumerate([(2, 3, 8, 12), (1, 2, 9, 7), (2, 1, 6, 6)]):
        x = draw(shape, seed)
        attached = attach(there_and_back(shape, window, by_index), kind)
        onnx.checker.check_model(attached, full_check=True)
        pooled, unpooled = run(attached, {"x": x})
        values, planes = expected(x, window, by_index)
        assert np.array_equal(pooled, values)
        assert np.array_equal(unpooled, planes)


windows = st.builds(
    lambda kernel, strides, pads: Window(kernel, strides, tuple(min(pad, kernel[a % 2] - 1) for a, pad in enumerate(pads))),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 2)] * 4),
)


@settings(max_examples=60, deadline=None)
@given(windows, st.integers(4, 9), st.integers(4, 9), st.sampled_from(["standard", "primitive"]), st.booleans(), st.integers(0, 9))
def test_bodies_of_any_window(window: Window, height: int, width: int, kind: str, by_index: bool, seed: int) -> None:
    x = draw((1, 2, height, width), seed)
    pooled, unpooled = run(attach(there_and_back(x.shape, window, by_index), kind), {"x": x})
    values, planes = expected(x, window, by_index)
    assert np.array_equal(pooled, values)
    assert np.array_equal(unpooled, planes)


def unpool(window: Window, y: np.ndarray, codes: np.ndarray, size: list[int], kind: str) -> np.ndarray:
    info, options = helper.make_tensor_value_info, {"output_size": size} if size else {}
    inputs = [info("y", TensorProto.FLOAT, y.shape), info("codes", TensorProto.UINT8, y.shape)]
    nodes = [node("MaxUnpool", ["y", "codes"], ["x"], window, **options)]
    graph = helper.make_graph(nodes, "unpool", inputs, [info("x", TensorProto.FLOAT, None)])
    return run(attach(_model(graph), kind), {"y": y, "codes": codes})[0]


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize("size", [[], [8, 12], [9, 14], [7, 11]])
def test_an_output_size_is_filled_up(kind: str, size: list[int]) -> None:
    y, codes = draw((2, 3, 4, 6)), max_pool_argmax_reference(draw((2, 3, 7, 11), 1), OVERLAPPING)[1]
    found = unpool(OVERLAPPING, y, codes, size, kind)
    assert np.array_equal(found, max_unpool_reference(y, codes, OVERLAPPING, tuple(size) or None))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_primitive_unpooling_drops_what_names_no_place(window: Window) -> None:
    y = draw((2, 3, 4, 6))
    for top in (window.kernel[0] * window.kernel[1] + 3, 256):
        codes = np.random.default_rng(0).integers(0, top, y.shape).astype(np.uint8)
        for size in ([9, 14], [5, 3]):
            found = unpool(window, y, codes, size, "primitive")
            assert np.array_equal(found, max_unpool_reference(y, codes, window, (size[0], size[1])))


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("op_type", ["MaxPoolArgmax", "MaxPoolIndices"])
def test_codes_and_indices_of_the_bodies(op_type: str, kind: str, order: int) -> None:
    info, x = helper.make_tensor_value_info, draw((2, 3, 9, 7))
    is_codes = op_type == "MaxPoolArgmax"
    element = TensorProto.UINT8 if is_codes else TensorProto.INT64
    for window in WINDOWS:
        pool = node(op_type, ["x"], ["y", "where"], window, **({} if is_codes else {"storage_order": order}))
        outputs = [info("y", TensorProto.FLOAT, None), info("where", element, None)]
        graph = helper.make_graph([pool], "pool", [info("x", TensorProto.FLOAT, x.shape)], outputs)
        values, where = run(attach(_model(graph), kind), {"x": x})
        reference = max_pool_argmax_reference(x, window) if is_codes else max_pool_indices_reference(x, window, order)
        assert np.array_equal(values, reference[0])
        assert np.array_equal(where, reference[1])


@pytest.mark.parametrize("by_index", [False, True])
def test_standard_bodies_need_no_shapes(by_index: bool) -> None:
    model = there_and_back((1, 1, 8, 8), TILES, by_index)
    for value in [*model.graph.input, *model.graph.output]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{axis}"
    attached = attach(model)
    for shape in ((1, 2, 6, 10), (3, 1, 8, 4)):
        x = draw(shape)
        assert np.array_equal(run(attached, {"x": x})[1], expected(x, TILES, by_index)[1])
    with pytest.raises(OnnxError, match="known shape"):
        attach(model, "primitive")


def test_primitive_bodies_are_primitive() -> None:
    for window in WINDOWS:
        for by_index in (False, True):
            functions = attach(there_and_back((1, 2, 9, 7), window, by_index), "primitive").functions
            nodes = [item for function in functions for item in function.node]
            assert not PRIMITIVE_LACKS & {item.op_type for item in nodes}
            assert all(len(item.output) == 1 for item in nodes), "MaxPool's indices are not primitive"
            # TensorRT's parser takes uint8 constants but no cast to uint8 between nodes; a scatter is left for indices alone.
            scatters = any(item.op_type.startswith("Scatter") for item in nodes)
            assert scatters == by_index
            assert by_index or all(item.op_type != "Cast" for item in nodes)


def test_overlapping_windows_of_256_places_have_no_primitive_body() -> None:
    attributes = {"kernel_shape": [16, 16], "strides": [8, 8]}
    with pytest.raises(OnnxError, match="at most 255"):
        BODIES["MaxUnpool"].primitive("MaxUnpool", attributes, [(1, 1, 4, 4), None])
    # The largest windows that tile have.
    x = draw((1, 1, 32, 48))
    window = Window((16, 16), (16, 16))
    assert np.array_equal(run(attach(there_and_back(x.shape, window), "primitive"), {"x": x})[1], expected(x, window, False)[1])


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_openvino_runs_the_bodies(window: Window, kind: str) -> None:
    openvino = pytest.importorskip("openvino")
    from edgeseg.engines.lowering import lower_for_openvino

    x = draw((2, 3, 9, 12))
    lowered = inline(attach(there_and_back(x.shape, window), kind))
    if kind == "standard":
        lowered = lower_for_openvino(lowered)  # it has no MaxUnpool
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(lowered.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"x": x})
    values, planes = expected(x, window, False)
    assert np.array_equal(found["y"], values)
    assert np.array_equal(found["z"], planes)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("by_index", [False, True], ids=["codes", "indices"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_tensorrt_rtx_builds_the_primitive_bodies(tmp_path: Path, window: Window, by_index: bool, element: int) -> None:
    attached = attach(there_and_back((1, 8, 17, 24), window, by_index, element), "primitive")
    # The parser takes a function named MaxUnpool for the standard operator, which it lacks: inline first.
    assert rtx.build(inline(attached), tmp_path).size > 0


def test_tensorrt_rtx_builds_codes_that_cross_its_border(tmp_path: Path) -> None:
    info, (n, c, h, w) = helper.make_tensor_value_info, (1, 8, 16, 24)
    kinds = [("x", TensorProto.FLOAT, (n, c, h, w)), ("given", TensorProto.UINT8, (n, c, h // 2, w // 2))]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    functions = [
        primitive_pool_codes("Pool", attributes, [(n, c, h, w)], code_type=TensorProto.INT32),
        primitive_unpool_codes("Unpool", attributes, [(n, c, h // 2, w // 2), None], code_type=TensorProto.INT32),
    ]
    nodes = [
        helper.make_node("Pool", ["x"], ["y", "inside"], domain="edgeseg"),
        helper.make_node("Cast", ["inside"], ["codes"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["given"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Unpool", ["y", "wide"], ["z"], domain="edgeseg"),
    ]
    outputs = [info("codes", TensorProto.UINT8, None), info("z", TensorProto.FLOAT, None)]
    model = _model(helper.make_graph(nodes, "border", [info(*kind) for kind in kinds], outputs))
    model.functions.extend(functions)
    assert rtx.build(inline(model), tmp_path).size > 0
