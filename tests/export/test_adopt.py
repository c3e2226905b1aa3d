"""Adopting foreign ONNX files: every graph here is made with onnx.helper, none by a framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from edgeseg.errors import EdgesegError, OnnxError
from edgeseg.export.adopt import AdoptOptions, adopt, palette, write_folder
from edgeseg.onnx_guard import load_onnx
from edgeseg.ops.functions import attach, declare

H, W, CLASSES = 8, 12, ["road", "car", "sky"]
RNG = np.random.default_rng(3)
OPTIONS = AdoptOptions(classes=CLASSES, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])


def weight(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(len(name) + sum(shape)).normal(size=shape).astype(dtype), name)


def build(
    nodes: list, weights: list, opset: int, *, shape=(1, 3, H, W), elem=T.FLOAT, outputs=None, listed=False, ir: int | None = None
) -> onnx.ModelProto:
    """A model with input ``x``; ``outputs`` maps names to element types; ``listed`` lists initialisers as inputs too."""
    inputs = [h.make_tensor_value_info("x", elem, shape)]
    if listed:
        inputs += [h.make_tensor_value_info(item.name, item.data_type, list(item.dims)) for item in weights]
    made = [h.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": T.FLOAT}).items()]
    graph = h.make_graph(nodes, "g", inputs, made, weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir or (3 if listed else 8))


def conv(source: str = "x", target: str = "c", name: str = "w") -> onnx.NodeProto:
    return h.make_node("Conv", [source, name], [target], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])


def adopted(tmp_path: Path, model: onnx.ModelProto, options: AdoptOptions = OPTIONS):
    path = tmp_path / "in.onnx"
    path.write_bytes(model.SerializeToString())
    return adopt(path, options)


def run(model: onnx.ModelProto, tensor: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})[0]


def image() -> np.ndarray:
    return RNG.normal(size=(1, 3, H, W)).astype(np.float32)


def network(opset: int) -> tuple[list, list]:
    """Conv, BatchNorm, Relu/Clip, then an upsampling in the words of ``opset``."""
    weights = [weight("w", 3, 3, 3, 3), *(weight(item, 3) for item in ("scale", "bias", "mean"))]
    weights.append(numpy_helper.from_array(np.array([0.5, 1.0, 2.0], np.float32), "var"))
    nodes = [conv(), h.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["b"])]
    if opset < 11:
        nodes.append(h.make_node("Clip", ["b"], ["r"], min=0.0, max=6.0))
    else:
        weights += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("low", 0.0), ("high", 6.0))]
        nodes.append(h.make_node("Clip", ["b", "low", "high"], ["r"]))
    factors = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "factors")
    if opset < 9:
        nodes.append(h.make_node("Upsample", ["r"], ["y"], mode="linear", scales=[1.0, 1.0, 2.0, 2.0]))
    elif opset < 11:
        weights.append(factors)
        nodes.append(h.make_node("Upsample" if opset == 9 else "Resize", ["r", "factors"], ["y"], mode="linear"))
    else:
        roi = numpy_helper.from_array(np.zeros(0, np.float32), "roi")  # required before opset 13
        weights += [roi, factors]
        nodes.append(
            h.make_node("Resize", ["r", "roi", "factors"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel")
        )
    return nodes, weights


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 21, 22])
def test_every_opset_keeps_its_meaning(tmp_path: Path, opset: int) -> None:
    nodes, weights = network(opset)
    original = build(nodes, weights, opset, listed=opset < 9, ir=10 if opset > 17 else None)
    result = adopted(tmp_path, original)
    (version,) = [item.version for item in result.model.opset_import if item.domain == ""]
    assert 13 <= version <= 21
    tensor = image()
    expected = run(original, tensor)
    assert expected.shape == (1, 3, H, W)
    np.testing.assert_allclose(run(result.model, tensor), expected, rtol=1e-5, atol=1e-5)
    assert (result.input.width, result.input.height, result.output.kind) == (W, H, "logits")
    assert result.parity.argmax_agreement > 0.99


def test_initialisers_listed_as_inputs_become_constants(tmp_path: Path) -> None:
    result = adopted(tmp_path, build([conv(target="y")], [weight("w", 3, 3, 3, 3)], 9, listed=True))
    assert [item.name for item in result.model.graph.input] == ["x"]
    assert any("listed as inputs" in note for note in result.notes)


@pytest.mark.parametrize(
    "shape", [("n", 3, "h", "w"), (None, 3, None, None), (1, 3, -1, -1), (4, 3, "h", "w"), ("n", "c", "h", "w")]
)
def test_open_sizes_are_set_by_size(tmp_path: Path, shape: tuple) -> None:
    model = build([conv(target="y")], [weight("w", 3, 3, 3, 3)], 13, shape=shape)
    result = adopted(tmp_path, model, AdoptOptions(CLASSES, [0, 0, 0], [1, 1, 1], size=(20, 10)))
    dims = [dim.dim_value for dim in result.model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, 10, 20]
    assert result.input.shape == (1, 3, 10, 20)
    with pytest.raises(OnnxError, match="--size"):
        adopted(tmp_path, model)


def test_a_fixed_size_cannot_be_changed(tmp_path: Path) -> None:
    model = build([conv(target="y")], [weight("w", 3, 3, 3, 3)], 13)
    with pytest.raises(OnnxError, match="fixed at 12x8"):
        adopted(tmp_path, model, AdoptOptions(CLASSES, [0, 0, 0], [1, 1, 1], size=(20, 10)))


def test_nhwc_input_and_output_are_turned(tmp_path: Path) -> None:
    nodes = [
        h.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        conv("t"),
        h.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    original = build(nodes, [weight("w", 3, 3, 3, 3)], 13, shape=(1, H, W, 3))
    result = adopted(tmp_path, original)
    tensor = image()
    expected = run(original, np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(run(result.model, tensor), expected, rtol=1e-5, atol=1e-5)
    assert sum("Transpose" in note for note in result.notes) == 2


def test_integer_input_is_rounded_and_cast(tmp_path: Path) -> None:
    nodes = [h.make_node("Cast", ["x"], ["f"], to=T.FLOAT), conv("f", "y")]
    original = build(nodes, [weight("w", 3, 3, 3, 3)], 13, elem=T.UINT8)
    result = adopted(tmp_path, original, AdoptOptions(CLASSES, [0, 0, 0], [1, 1, 1]))
    assert result.input.scale == 1.0
    pixels = RNG.integers(0, 256, (1, 3, H, W)).astype(np.uint8)
    np.testing.assert_allclose(run(result.model, pixels + np.float32(0.4)), run(original, pixels), rtol=1e-5)


def test_half_graph_computes_in_float_and_stores_half(tmp_path: Path) -> None:
    nodes = [
        conv(),
        h.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2, np.float16))),
        h.make_node("Mul", ["c", "two"], ["y"]),
    ]
    original = build(nodes, [weight("w", 3, 3, 3, 3, dtype=np.float16)], 13, elem=T.FLOAT16, outputs={"y": T.FLOAT16})
    result = adopted(tmp_path, original)
    tensor = image()
    after = run(result.model, tensor)
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, run(original, tensor.astype(np.float16)).astype(np.float32), atol=0.1)
    stored = {item.name: item.data_type for item in result.model.graph.initializer}
    assert stored["w"] == T.FLOAT16


ENDS = {
    "softmax": ([h.make_node("Softmax", ["c"], ["y"], axis=1)], T.FLOAT, "softmax"),
    "log_softmax": ([h.make_node("LogSoftmax", ["c"], ["y"], axis=1)], T.FLOAT, "logits"),
    "sigmoid": ([h.make_node("Sigmoid", ["c"], ["y"])], T.FLOAT, "sigmoid"),
    "labels_nhw": ([h.make_node("ArgMax", ["c"], ["y"], axis=1, keepdims=0)], T.INT64, "labels"),
    "labels_n1hw": ([h.make_node("ArgMax", ["c"], ["y"], axis=1, keepdims=1)], T.INT64, "labels"),
    "labels_int32": (
        [h.make_node("ArgMax", ["c"], ["a"], axis=1, keepdims=0), h.make_node("Cast", ["a"], ["y"], to=T.INT32)],
        T.INT32,
        "labels",
    ),
    "labels_uint8": (
        [h.make_node("ArgMax", ["c"], ["a"], axis=1, keepdims=1), h.make_node("Cast", ["a"], ["y"], to=T.UINT8)],
        T.UINT8,
        "labels",
    ),
    "labels_float": (
        [h.make_node("ArgMax", ["c"], ["a"], axis=1, keepdims=0), h.make_node("Cast", ["a"], ["y"], to=T.FLOAT)],
        T.FLOAT,
        "labels",
    ),
}


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("name", ENDS)
def test_output_kinds_are_detected(tmp_path: Path, name: str, opset: int) -> None:
    tail, elem, kind = ENDS[name]
    original = build([conv(), *tail], [weight("w", 3, 3, 3, 3)], opset, outputs={"y": elem})
    result = adopted(tmp_path, original)
    assert result.output.kind == kind
    tensor = image()
    expected, found = run(original, tensor), run(result.model, tensor)
    assert found.ndim == (3 if kind == "labels" else 4)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-5)
    if kind == "labels":
        assert found.dtype in (np.uint8, np.int32, np.int64)


def test_one_channel_needs_two_classes(tmp_path: Path) -> None:
    model = build([conv(), h.make_node("Sigmoid", ["c"], ["y"])], [weight("w", 1, 3, 3, 3)], 13)
    result = adopted(tmp_path, model, AdoptOptions(["background", "road"], [0, 0, 0], [1, 1, 1], threshold=0.7))
    assert (result.output.kind, result.output.threshold) == ("sigmoid", 0.7)
    with pytest.raises(OnnxError, match=r"2 names for its 1 channel"):
        adopted(tmp_path, model)


@pytest.mark.parametrize("tail", ["logits", "labels"])
def test_class_count_is_checked(tmp_path: Path, tail: str) -> None:
    nodes = [conv(target="y")] if tail == "logits" else [conv(), h.make_node("ArgMax", ["c"], ["y"], axis=1)]
    model = build(nodes, [weight("w", 7, 3, 3, 3)], 13, outputs={"y": T.FLOAT if tail == "logits" else T.INT64})
    with pytest.raises(OnnxError, match="7 channels, --classes has 3 names"):
        adopted(tmp_path, model)


def test_auxiliary_heads_are_dropped_with_their_nodes(tmp_path: Path) -> None:
    nodes = [conv("x", "aux", "w_aux"), conv("x", "out")]
    weights = [weight("w", 3, 3, 3, 3), weight("w_aux", 3, 3, 3, 3)]
    model = build(nodes, weights, 13, outputs={"aux": T.FLOAT, "out": T.FLOAT})
    result = adopted(tmp_path, model)
    assert result.output.name == "out"
    assert [item.name for item in result.model.graph.initializer] == ["w"]
    chosen = adopted(tmp_path, model, AdoptOptions(CLASSES, [0, 0, 0], [1, 1, 1], output="aux"))
    assert chosen.output.name == "aux"
    with pytest.raises(OnnxError, match="no such output"):
        adopted(tmp_path, model, AdoptOptions(CLASSES, [0, 0, 0], [1, 1, 1], output="nope"))


def test_grey_input(tmp_path: Path) -> None:
    model = build([conv(target="y")], [weight("w", 3, 1, 3, 3)], 13, shape=(1, 1, H, W))
    result = adopted(tmp_path, model, AdoptOptions(CLASSES, [0.5], [0.5], colour_order="grey"))
    assert result.input.channels == 1
    with pytest.raises(OnnxError, match="1 channels"):
        adopted(tmp_path, model)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = [h.make_node("Relu", ["a"], ["b"])]
    function = h.make_function("mine", "Act", ["a"], ["b"], body, [h.make_opsetid("", 17)])
    model = build([conv(), h.make_node("Act", ["c"], ["y"], domain="mine")], [weight("w", 3, 3, 3, 3)], 17)
    model.functions.append(function)
    model.opset_import.append(h.make_opsetid("mine", 1))
    result = adopted(tmp_path, model)
    assert {node.op_type for node in result.model.graph.node} == {"Conv", "Relu"}
    assert not result.model.functions


def test_our_own_operators_stay_whole(tmp_path: Path) -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2], "domain": "edgeseg"}
    nodes = [
        conv(),
        h.make_node("MaxPoolArgmax", ["c"], ["p", "codes"], **window),
        h.make_node("MaxUnpool", ["p", "codes"], ["y"], **window),
    ]
    model = build(nodes, [weight("w", 3, 3, 3, 3)], 18)
    declare(model)
    onnx.save(attach(model), tmp_path / "net.onnx")
    result = adopt(tmp_path / "net.onnx", OPTIONS)
    assert [node.op_type for node in result.model.graph.node if node.domain] == ["MaxPoolArgmax", "MaxUnpool"]
    assert {function.name for function in result.model.functions} == {"MaxPoolArgmax", "MaxUnpool"}


def test_a_graph_with_two_inputs_is_refused(tmp_path: Path) -> None:
    model = build([h.make_node("Add", ["x", "z"], ["y"])], [], 13)
    model.graph.input.append(h.make_tensor_value_info("z", T.FLOAT, (1, 3, H, W)))
    with pytest.raises(OnnxError, match="2 inputs"):
        adopted(tmp_path, model)


def test_nan_output_is_refused(tmp_path: Path) -> None:
    model = build([h.make_node("Log", ["x"], ["y"])], [], 13)
    with pytest.raises(OnnxError, match="NaN"):
        adopted(tmp_path, model)


def test_folder_is_complete_and_replaced_whole(tmp_path: Path) -> None:
    result = adopted(tmp_path, build([conv(target="y")], [weight("w", 3, 3, 3, 3)], 13))
    target = tmp_path / "folder"
    for _ in range(2):
        folder = write_folder(target, "net", result, CLASSES, source="in.onnx", licence="MIT")
    manifest = folder.manifest
    assert manifest.class_names == CLASSES
    assert manifest.provenance.licence == "MIT"
    assert manifest.parity is not None
    graph = load_onnx(folder.require("model.onnx", "import it again"))
    assert graph.graph.output[0].name == manifest.output.name
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", "in.onnx"]


def test_wrong_number_of_means_is_told(tmp_path: Path) -> None:
    model = build([conv(target="y")], [weight("w", 3, 3, 3, 3)], 13)
    with pytest.raises(EdgesegError, match="mean"):
        adopted(tmp_path, model, AdoptOptions(CLASSES, [0, 0, 0], [1, 1]))


def test_palette_tells_classes_apart() -> None:
    assert len(set(palette(256))) == 256
    assert palette(2) == [(0, 0, 0), (128, 0, 0)]
