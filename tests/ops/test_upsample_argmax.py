"""UpsampleArgmax through all its doors: the CPU twin, the kernel run on the host, edgeseg.native, PyTorch and the ONNX bodies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg import native
from edgeseg.ops import functions, launch
from edgeseg.ops.upsample_argmax import c_arguments, upsample_argmax, upsample_argmax_reference, upsampled_reference
from tests.ops import host_cuda, rtx

TYPES = ("float32", "float16", "int8")
KERNEL = host_cuda.ROOT / "trt_plugins" / "upsample_argmax" / "upsample_argmax.cu"
sides = st.integers(1, 21)


def draw(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0, regions: bool = False) -> np.ndarray:
    """Noise, or with ``regions`` logits that differ little inside an image, so that few classes may win."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal(shape)
    if regions:
        x = 0.1 * x + 3 * rng.standard_normal((*shape[:2], 1, 1))
    return np.clip(np.round(20 * x), -128, 127).astype(np.int8) if dtype == "int8" else x.astype(dtype)


def scale_of(x: np.ndarray) -> float:
    return 0.05 if x.dtype == np.int8 else 1.0


def assert_matches(labels: np.ndarray, probability: np.ndarray, x: np.ndarray, align: bool, threshold: float = 0.0) -> None:
    """Labels equal where the best two are apart by more than 1e-5 of the scores' size; probabilities to 1e-5."""
    size, scale = labels.shape[1:], scale_of(x)
    expected, likely = upsample_argmax_reference(x, size, align, threshold, scale)
    scores = upsampled_reference(x, size, align) * scale
    if x.shape[1] == 1:
        clear = np.abs(scores[:, 0] - threshold) > 1e-5 * max(1.0, np.abs(scores).max(initial=0.0))
    else:
        second, first = np.moveaxis(np.sort(scores, axis=1)[:, -2:], 1, 0)
        clear = first - second > 1e-5 * np.maximum(1.0, np.abs(first))
    assert np.array_equal(labels[clear], expected[clear])
    assert clear.mean() > 0.9 or x.dtype == np.int8
    assert np.abs(probability - likely).max(initial=0.0) <= 1e-5


# --- the CPU twin -----------------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 2), c=st.integers(1, 30), h=sides, w=sides, out_h=sides, out_w=sides,
    align=st.booleans(), dtype=st.sampled_from(TYPES), seed=st.integers(0, 99),
)  # fmt: skip
def test_twin_matches_reference(twin, n, c, h, w, out_h, out_w, align, dtype, seed):
    x = draw((n, c, h, w), dtype, seed)
    labels, probability = upsample_argmax(x, (out_h, out_w), align_corners=align, threshold=0.1, logit_scale=scale_of(x))
    assert_matches(labels, probability, x, align, 0.1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("format", launch.FORMATS)
def test_every_format_gives_the_labels_of_linear(twin, format, dtype):
    x = draw((2, 19, 5, 7), dtype)
    expected = upsample_argmax(x, (21, 30), logit_scale=scale_of(x))
    got = upsample_argmax(x, (21, 30), logit_scale=scale_of(x), format=format, threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_padding_channels_are_not_read(twin):
    x = draw((1, 5, 4, 6))
    arguments, (packed, labels, _) = c_arguments(x, (8, 12), False, 0.0, 1.0, "hwc8")
    packed[..., 5:] = 1e9
    twin.run("upsample_argmax", arguments)
    assert np.array_equal(labels, upsample_argmax(x, (8, 12))[0])


@pytest.mark.parametrize("classes", [1, 2, 33, 255, 256])
@pytest.mark.parametrize("align", [False, True])
def test_many_classes(twin, classes, align):
    x = draw((1, classes, 6, 5))
    labels, probability = upsample_argmax(x, (24, 31), align_corners=align)
    assert_matches(labels, probability, x, align)


@settings(max_examples=60)
@given(c=st.integers(2, 40), h=sides, w=sides, out_h=st.integers(1, 99), out_w=st.integers(1, 99), seed=st.integers(0, 99))
def test_labels_equal_native(twin, c, h, w, out_h, out_w, seed):
    x = draw((1, c, h, w), "float32", seed, regions=seed % 2 == 0)
    assert np.array_equal(upsample_argmax(x, (out_h, out_w))[0][0], native.upsample_argmax(x[0], (out_h, out_w)))


@given(h=sides, w=sides, out_h=sides, out_w=sides, seed=st.integers(0, 9), threshold=st.sampled_from([-0.5, 0.0, 0.3]))
def test_threshold_equals_native(twin, h, w, out_h, out_w, seed, threshold):
    x = draw((1, 1, h, w), "float32", seed)
    labels, _ = upsample_argmax(x, (out_h, out_w), threshold=threshold)
    assert np.array_equal(labels[0], native.upsample_threshold(x[0], (out_h, out_w), threshold))


@given(seed=st.integers(0, 99), share=st.floats(0, 1), value=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38]))
def test_nan_and_infinity_equal_native(twin, seed, share, value):
    x = draw((1, 4, 5, 6), "float32", seed)
    x[np.random.default_rng(seed).random(x.shape) < share] = value
    labels, probability = upsample_argmax(x, (11, 13))
    assert np.array_equal(labels[0], native.upsample_argmax(x[0], (11, 13)))
    assert np.isfinite(probability).all()


def test_nan_alone(twin):
    labels, probability = upsample_argmax(np.full((1, 3, 4, 5), np.nan, np.float16), (9, 9))
    assert not labels.any() and np.allclose(probability, 1 / 3)
    labels, probability = upsample_argmax(np.full((1, 1, 4, 5), np.nan, np.float32), (9, 9), threshold=-10.0)
    assert not labels.any() and not probability.any()


@pytest.mark.parametrize("dtype", TYPES)
def test_ties_go_to_the_lowest_class(twin, dtype):
    x = np.random.default_rng(0).integers(0, 3, (1, 6, 7, 9)).astype(dtype)
    # Small integers and weights of quarters: float32 is exact.
    assert np.array_equal(upsample_argmax(x, (14, 18))[0], upsample_argmax_reference(x, (14, 18))[0])


def test_empty_batch(twin):
    labels, probability = upsample_argmax(np.zeros((0, 3, 4, 5), np.float32), (8, 10))
    assert labels.shape == probability.shape == (0, 8, 10)


@pytest.mark.parametrize(
    ("x", "size", "scale", "message"),
    [
        (np.zeros((1, 257, 2, 2), np.float32), (4, 4), 1.0, "256 classes"),
        (np.zeros((1, 0, 2, 2), np.float32), (4, 4), 1.0, "256 classes"),
        (np.zeros((1, 3, 0, 2), np.float32), (4, 4), 1.0, "sides"),
        (np.zeros((1, 3, 2, 2), np.float32), (0, 4), 1.0, "sides"),
        (np.zeros((1, 3, 2, 2), np.int8), (4, 4), 0.0, "logit_scale"),
        (np.zeros((1, 3, 2, 2), np.int8), (4, 4), float("nan"), "logit_scale"),
        (np.zeros((1, 3, 2, 2), np.int32), (4, 4), 1.0, "float32, float16 or int8"),
        (np.zeros((3, 2, 2), np.float32), (4, 4), 1.0, "float32, float16 or int8"),
    ],
)
def test_wrong_arguments_are_refused(twin, x, size, scale, message):
    with pytest.raises(ValueError, match=message):
        upsample_argmax(x, size, logit_scale=scale)


# --- the kernel's source, on the host ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    c=st.sampled_from([1, 2, 5, 19, 32, 33, 70]), h=st.integers(1, 6), w=st.integers(1, 8),
    factor=st.sampled_from([1, 2, 3, 4, 8, 17]), more=st.tuples(st.integers(-1, 3), st.integers(-1, 5)),
    align=st.booleans(), regions=st.booleans(), probable=st.booleans(),
    dtype=st.sampled_from(TYPES), format=st.sampled_from(list(launch.FORMATS)), seed=st.integers(0, 99),
)  # fmt: skip
def test_kernel_equals_twin(twin, kernel, c, h, w, factor, more, align, regions, probable, dtype, format, seed):
    x = draw((1 + seed % 2, c, h, w), dtype, seed, regions)
    size = (max(1, h * factor + more[0]), max(1, w * factor + more[1]))
    results = []
    for library in (twin, kernel):
        arguments, (packed, labels, probability) = c_arguments(x, size, align, 0.1, scale_of(x), format)
        assert arguments.logits.data == packed.ctypes.data  # and alive
        labels[:], probability[:] = 77, -1
        if not probable:
            arguments.probability = None
        library.run("upsample_argmax", arguments, 1 if library is twin else None)
        results.append((labels, probability))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.abs(results[0][1] - results[1][1]).max() <= 1e-6


def test_kernel_over_several_blocks_with_special_values(twin, kernel):
    x = draw((1, 40, 3, 90), "float16")
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.inf
    arguments, arrays = c_arguments(x, (60, 450), False, 0.0, 1.0, "linear")
    arguments.probability = None
    kernel.run("upsample_argmax", arguments, None)
    assert np.array_equal(arrays[1], upsample_argmax(x, (60, 450))[0])


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize("align", [False, True])
def test_pytorch_operator(classes, align):
    torch = pytest.importorskip("torch", reason="the PyTorch operator needs the train extra")
    from edgeseg.ops.pytorch.upsample_argmax import upsample_argmax as operator

    x = draw((2, classes, 6, 9))
    labels = operator(torch.from_numpy(x), [23, 37], align, 0.2).numpy()
    assert labels.dtype == np.uint8
    assert_matches(labels, upsample_argmax_reference(x, (23, 37), align, 0.2)[1], x, align, 0.2)
    torch.library.opcheck(operator, (torch.from_numpy(x), [23, 37], align, 0.2))
    with pytest.raises(ValueError, match="expected"):
        operator(torch.zeros(3, 4, 4), [8, 8], False, 0.0)


# --- ONNX bodies ------------------------------------------------------------------------------------------------------


def graph(shape: tuple[int, ...], results: int, element: int = TensorProto.FLOAT, **attributes: object) -> onnx.ModelProto:
    outputs = {"labels": TensorProto.UINT8, "probability": TensorProto.FLOAT}
    node = helper.make_node("UpsampleArgmax", ["x"], list(outputs)[:results], domain=functions.DOMAIN, **attributes)
    plane = [shape[0], *attributes["size"]]
    values = [helper.make_tensor_value_info(name, kind, plane) for name, kind in list(outputs.items())[:results]]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(functions.DOMAIN, functions.VERSION)]
    made = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", element, list(shape))], values)
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


CASES = [
    ((2, 7, 6, 9), 1, {"size": [24, 36]}),
    ((1, 19, 6, 9), 2, {"size": [23, 40], "align_corners": 1}),
    ((1, 5, 12, 16), 2, {"size": [7, 9], "align_corners": 0}),
    ((2, 1, 6, 9), 2, {"size": [24, 35], "threshold": 0.25}),
]


def assert_body(outputs: list[np.ndarray], x: np.ndarray, attributes: dict) -> None:
    """As ``assert_matches``, with the room that the runtimes' float32 coordinates need."""
    align, threshold, size = bool(attributes.get("align_corners")), attributes.get("threshold", 0.0), attributes["size"]
    expected, likely = upsample_argmax_reference(x, size, align, threshold)
    scores = upsampled_reference(x, size, align)
    margins = np.abs(scores[:, 0] - threshold) if x.shape[1] == 1 else np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
    assert outputs[0].dtype == np.uint8 and np.array_equal(outputs[0][margins > 1e-3], expected[margins > 1e-3])
    if len(outputs) > 1:
        assert np.abs(outputs[1] - likely).max() <= 1e-3


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize(("shape", "results", "attributes"), CASES)
def test_bodies_on_onnx_runtime(kind, shape, results, attributes):
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    model = functions.attach(graph(shape, results, **attributes), kind)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = draw(shape)
    assert_body(session.run(None, {"x": x}), x, attributes)


def test_standard_body_takes_half_and_dynamic_shapes():
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    model = graph((1, 5, 4, 4), 2, TensorProto.FLOAT16, size=[16, 20])
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, "nchw", strict=True):
        dim.dim_param = name
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    session = ort.InferenceSession(functions.attach(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = draw((3, 6, 5, 7), "float16")
    assert_body(session.run(None, {"x": x}), x, {"size": [16, 20]})


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize(("shape", "results", "attributes"), CASES)
def test_bodies_on_openvino(kind, shape, results, attributes, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    from onnx import inliner

    model = inliner.inline_local_functions(functions.attach(graph(shape, results, **attributes), kind))
    onnx.save(model, tmp_path / "model.onnx")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(tmp_path / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = draw(shape)
    found = compiled([x])
    assert_body([np.asarray(found[output]) for output in compiled.outputs], x, attributes)


@pytest.mark.parametrize("kind", ["standard", "primitive"])
@pytest.mark.parametrize(("shape", "results", "attributes"), CASES)
def test_bodies_build_on_tensorrt_rtx(kind, shape, results, attributes, tmp_path):
    built = rtx.build(functions.attach(graph(shape, results, **attributes), kind), tmp_path)
    assert built.size > 1000 and built.outputs[0] == "uint8"
