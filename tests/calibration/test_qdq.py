"""Q/DQ by target profile: near the float graph, by the target's rules, and run in INT8 by the runtimes themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, numpy_helper

from calibration import CalibrationError, Ranges, collect, prepare, quantize
from calibration.profiles import PROFILES
from calibration.qdq import activation_scale, weight_scales
from tests.calibration import nets, runtimes

ALL = sorted(PROFILES)


@pytest.fixture(scope="module")
def net() -> ModelProto:
    return prepare(nets.unet(16, (64, 64)))


@pytest.fixture(scope="module")
def ranges(net: ModelProto) -> Ranges:
    return collect(net, nets.batches(net, 4), "minmax")


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def nodes(model: ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - want) ** 2)) / want.std())


@pytest.mark.parametrize("profile", ALL)
def test_int8_is_near_float_on_onnxruntime(net: ModelProto, ranges: Ranges, profile: str) -> None:
    quantised = quantize(net, ranges, profile)
    onnx.checker.check_model(quantised, full_check=True)
    batch = nets.batches(net, 1)[0]
    error = relative_error(runtimes.ort_output(quantised, batch), runtimes.ort_output(net, batch))
    assert 0 < error < (0.15 if profile == "tensorrt" else 0.1)


@pytest.mark.parametrize("profile", ["x86", "openvino"])
def test_int8_is_near_float_on_openvino(net: ModelProto, ranges: Ranges, profile: str) -> None:
    batch = nets.batches(net, 1)[0]
    got = next(iter(runtimes.openvino_model(quantize(net, ranges, profile))(batch).values()))
    assert 0 < relative_error(got, runtimes.ort_output(net, batch)) < 0.1


def test_onnxruntime_runs_every_conv_in_int8(net: ModelProto, ranges: Ranges, tmp_path: Path) -> None:
    convs = len(nodes(net, "Conv"))
    kernels = runtimes.ort_kernels(quantize(net, ranges, "x86"), tmp_path)
    assert (kernels["QLinearConv"], kernels["Conv"], kernels["FusedConv"]) == (convs, 0, 0)
    assert kernels["QLinearAdd"] == len(nodes(net, "Add"))
    assert kernels["QLinearConcat"] == len(nodes(net, "Concat"))
    kernels = runtimes.ort_kernels(quantize(net, ranges, "arm"), tmp_path, signed=True)
    assert (kernels["QLinearConv"], kernels["Conv"], kernels["FusedConv"]) == (convs, 0, 0)


@pytest.mark.parametrize("profile", ["x86", "openvino"])
def test_openvino_runs_every_conv_in_int8(net: ModelProto, ranges: Ranges, profile: str) -> None:
    layers = runtimes.openvino_layers(quantize(net, ranges, profile))
    assert layers["Convolution", "u8"] == len(nodes(net, "Conv"))
    assert layers["Convolution", "f32"] == 0
    assert layers["Deconvolution", "u8"] == len(nodes(net, "ConvTranspose"))
    assert layers["Concatenation", "u8"] == len(nodes(net, "Concat"))
    # Every residual Add runs inside its convolution, and no layer stands alone to requantise.
    assert layers["Eltwise", "f32"] + layers["Eltwise", "u8"] == 0
    if profile == "openvino":
        assert layers["Subgraph", "u8"] == 0


@pytest.mark.parametrize("profile", ALL)
def test_signs_and_zero_points(net: ModelProto, ranges: Ranges, profile: str) -> None:
    quantised, rules = quantize(net, ranges, profile), PROFILES[profile]
    held = constants(quantised)
    zeros = [held[node.input[2]] for node in nodes(quantised, "QuantizeLinear")]
    assert {z.dtype for z in zeros} == {np.dtype(np.uint8 if rules.unsigned else np.int8)}
    assert any(z != 0 for z in zeros) != rules.symmetric
    after_relu = [node for node in nodes(quantised, "QuantizeLinear") if node.input[0] == nodes(net, "Relu")[2].output[0]]
    lowest = 0 if rules.unsigned or rules.symmetric else -128
    assert [int(held[node.input[2]]) for node in after_relu] == [lowest]


@pytest.mark.parametrize("profile", ALL)
def test_weights_are_int8_per_channel_with_zero_point_zero(net: ModelProto, ranges: Ranges, profile: str) -> None:
    quantised = quantize(net, ranges, profile)
    held, makers = constants(quantised), {node.output[0]: node for node in quantised.graph.node}
    floats = constants(net)
    for node in [*nodes(net, "Conv"), *nodes(net, "ConvTranspose")]:
        twin = next(n for n in quantised.graph.node if n.name == node.name)
        dequantise = makers[twin.input[1]]
        codes, scales, zeros = (held[name] for name in dequantise.input)
        axis = onnx.helper.get_node_attr_value(dequantise, "axis")
        assert axis == (1 if node.op_type == "ConvTranspose" else 0)
        assert codes.dtype == np.int8
        assert scales.shape == (codes.shape[axis],)
        assert not zeros.any()
        shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
        weight = floats[node.input[1]]
        assert (np.abs(codes * scales.reshape(shape) - weight) <= 0.501 * scales.reshape(shape)).all()


@pytest.mark.parametrize("profile", ALL)
def test_bias_follows_the_profile(net: ModelProto, ranges: Ranges, profile: str) -> None:
    quantised = quantize(net, ranges, profile)
    wide = [t for t in quantised.graph.initializer if t.data_type == TensorProto.INT32]
    if not PROFILES[profile].int32_bias:
        assert not wide
        return
    held = constants(quantised)
    makers = {node.output[0]: node for node in quantised.graph.node}
    for node in nodes(quantised, "Conv"):
        x, weight, bias = (makers[name] for name in node.input)
        np.testing.assert_allclose(held[bias.input[1]], held[x.input[1]] * held[weight.input[1]], rtol=1e-6)
    assert len(wide) >= len(nodes(quantised, "Conv"))


@pytest.mark.parametrize("profile", ["openvino", "tensorrt"])
def test_concat_inputs_share_one_scale(net: ModelProto, ranges: Ranges, profile: str) -> None:
    quantised = quantize(net, ranges, profile)
    makers = {node.output[0]: node for node in quantised.graph.node}
    for node in nodes(quantised, "Concat"):
        parents = [makers[name] for name in node.input]
        parents = [makers[p.input[0]] if p.op_type == "Resize" else p for p in parents]
        assert {p.op_type for p in parents} == {"DequantizeLinear"}
        assert len({tuple(p.input[1:]) for p in parents}) == 1


def test_concat_shares_unless_relu_meets_signed(net: ModelProto, ranges: Ranges) -> None:
    quantised = quantize(net, ranges, "x86")
    makers = {node.output[0]: node for node in quantised.graph.node}
    scales = [{makers[name].input[1] for name in node.input} for node in nodes(quantised, "Concat")]
    assert [len(s) for s in scales] == [1, 2, 1]  # the second joins a transposed convolution with no ReLU


def test_tensorrt_leaves_the_fused_branch_of_an_add_alone(net: ModelProto, ranges: Ranges) -> None:
    quantised = quantize(net, ranges, "tensorrt")
    makers = {node.output[0]: node for node in quantised.graph.node}
    for node in nodes(quantised, "Add"):
        parents = [makers[name] for name in node.input]
        parents = [makers[p.input[0]] if p.op_type == "MaxPool" else p for p in parents]
        assert sorted(p.op_type for p in parents) == ["Conv", "DequantizeLinear"]


@pytest.mark.parametrize("profile", ALL)
def test_nodes_kept_in_float_stay_float(net: ModelProto, ranges: Ranges, profile: str) -> None:
    last, depthwise = nodes(net, "Conv")[-1].name, nodes(net, "Conv")[-4].name
    kept = Ranges(ranges.graph_sha256, "minmax", 4, tensors=ranges.tensors, float_nodes=[last])
    quantised = quantize(net, kept, profile, skip=[depthwise])
    held = constants(quantised)
    for name in (last, depthwise):
        node = next(n for n in quantised.graph.node if n.name == name)
        assert held[node.input[1]].dtype == np.float32
    with pytest.raises(CalibrationError, match=r"'nowhere' to keep in float is not in the graph"):
        quantize(net, ranges, profile, skip=["nowhere"])


def test_unknown_profile_and_missing_range_are_told(net: ModelProto, ranges: Ranges) -> None:
    with pytest.raises(CalibrationError, match=r"profile 'gpu'.*arm|x86"):
        quantize(net, ranges, "gpu")
    partial = Ranges(ranges.graph_sha256, "minmax", 4, tensors={"input": (0.0, 1.0)})
    with pytest.raises(CalibrationError, match="has no range"):
        quantize(net, partial, "x86")


@pytest.mark.parametrize("profile", ALL)
def test_a_quantised_graph_output_keeps_its_name(profile: str) -> None:
    b = nets.Builder()
    x = b.conv_norm_relu("input", 3, 8)
    model = prepare(b.model({"input": [1, 3, 16, 16]}, {b.conv(x, 8, 4, 1, bias=True): 4, x: 4}))
    ranges = collect(model, nets.batches(model, 2), "minmax")
    quantised = quantize(model, ranges, profile)
    assert [v.name for v in quantised.graph.output] == [v.name for v in model.graph.output]
    batch = nets.batches(model, 1)[0]
    assert relative_error(runtimes.ort_output(quantised, batch), runtimes.ort_output(model, batch)) < 0.1


def test_matmul_gemm_and_unpooling_run(tmp_path: Path) -> None:
    b = nets.Builder()
    x = b.conv_norm_relu("input", 3, 8)
    pooled, codes = b.op("MaxPool", [x], 2, kernel_shape=[2, 2], strides=[2, 2]), ""
    codes = b.nodes[-1].output[1]
    x = b.op("MaxUnpool", [b.conv_norm_relu(pooled, 8, 8), codes], kernel_shape=[2, 2], strides=[2, 2])
    x = b.op("GlobalAveragePool", [b.conv_norm_relu(x, 8, 16)])
    x = b.op("Gemm", [b.op("Flatten", [x]), b.weight(12, 16), b.vector(12)], transB=1)
    x = b.op("Softmax", [b.op("MatMul", [x, b.weight(12, 6)])])
    model = prepare(b.model({"input": [1, 3, 16, 16]}, {x: 2}))
    ranges = collect(model, nets.batches(model, 3), "percentile")
    batch = nets.batches(model, 1)[0]
    for profile in ALL:
        quantised = quantize(model, ranges, profile)
        got = runtimes.ort_output(quantised, batch)
        np.testing.assert_allclose(got, runtimes.ort_output(model, batch), atol=0.1)
    kernels = runtimes.ort_kernels(quantize(model, ranges, "x86"), tmp_path)
    assert kernels["QLinearConv"] == 3
    assert kernels["Conv"] == kernels["Gemm"] == kernels["MatMul"] == 0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans(), st.booleans())
def test_scales_cover_the_range_and_keep_zero(low: float, width: float, unsigned: bool, symmetric: bool) -> None:
    if symmetric and unsigned:
        return
    high = low + width
    code = activation_scale(low, high, unsigned, symmetric)
    bottom, top = (0, 255) if unsigned else (-128, 127)
    assert bottom <= int(code.zero_point) <= top
    assert np.isfinite(code.scale)
    assert code.scale > 0
    reach = [(end - int(code.zero_point)) * float(code.scale) for end in (bottom, top)]
    slack = 0.51 * float(code.scale)
    assert reach[0] <= min(low, 0.0) + slack
    assert reach[1] >= max(high, 0.0) - slack


def test_a_dead_channel_keeps_its_bias() -> None:
    b = nets.Builder()
    weight = b.random.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weight[1], weight[2] = 0, 1e-12
    inputs = ["input", b.constant(weight), b.constant(np.array([0.1, 1.0, 10.0, 0], np.float32))]
    model = prepare(b.model({"input": [1, 3, 8, 8]}, {b.op("Conv", inputs): 4}))
    ranges = collect(model, nets.batches(model, 2), "minmax")
    batch = nets.batches(model, 1)[0]
    for profile in ALL:
        got = runtimes.ort_output(quantize(model, ranges, profile), batch)
        np.testing.assert_allclose(got[:, 1:3], runtimes.ort_output(model, batch)[:, 1:3], atol=0.1)
    assert weight_scales(weight, 0)[1] == pytest.approx(1 / 127)


# --- transformers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def block() -> ModelProto:
    return prepare(nets.transformer())


@pytest.fixture(scope="module")
def block_ranges(block: ModelProto) -> Ranges:
    return collect(block, nets.batches(block, 4), "minmax")


@pytest.mark.parametrize("profile", ALL)
def test_a_transformer_is_near_float(block: ModelProto, block_ranges: Ranges, profile: str) -> None:
    batch = nets.batches(block, 1)[0]
    quantised = quantize(block, block_ranges, profile)
    want = runtimes.ort_output(block, batch)
    assert 0 < relative_error(runtimes.ort_output(quantised, batch), want) < 0.1
    if profile in ("x86", "openvino"):
        assert 0 < relative_error(next(iter(runtimes.openvino_model(quantised)(batch).values())), want) < 0.1


def test_onnxruntime_runs_every_linear_layer_in_int8(block: ModelProto, block_ranges: Ranges, tmp_path: Path) -> None:
    kernels = runtimes.ort_kernels(quantize(block, block_ranges, "x86"), tmp_path)
    assert kernels["QGemm"] == 6
    assert kernels["QLinearMatMul"] + kernels["MatMulIntegerToFloat"] == 2  # attention's two products
    assert not kernels["Gemm"] and not kernels["MatMul"]
    assert kernels["Softmax"] == 1


def test_openvino_runs_every_linear_layer_in_int8(block: ModelProto, block_ranges: Ranges) -> None:
    layers = runtimes.openvino_layers(quantize(block, block_ranges, "openvino"))
    assert layers["FullyConnected", "u8"] == 6


@pytest.mark.parametrize("profile", ALL)
def test_the_residual_stream_stays_float(block: ModelProto, block_ranges: Ranges, profile: str) -> None:
    quantised = quantize(block, block_ranges, profile)
    sums = [node.output[0] for node in nodes(quantised, "Add") if not set(node.input) & set(constants(quantised))]
    assert len(sums) == 3
    coded = {node.input[0] for node in nodes(quantised, "QuantizeLinear")}
    assert not coded & set(sums)


@pytest.mark.parametrize("kept", ["Add", "MatMul"])
def test_a_linear_layer_kept_in_float_has_no_coded_output(block: ModelProto, block_ranges: Ranges, kept: str) -> None:
    # The layer before GELU: nothing but the profile asks for codes there.
    constant = set(constants(block))
    add = next(node for node in nodes(block, "Add") if set(node.input) & constant and _readers(block, node) == ["Mul", "Mul"])
    product = next(node for node in block.graph.node if node.output[0] in add.input)
    skip = {"Add": add.name, "MatMul": product.name}[kept]
    for quantised, expected in (
        (quantize(block, block_ranges, "x86"), True),
        (quantize(block, block_ranges, "x86", [skip]), False),
    ):
        assert (add.output[0] in {node.input[0] for node in nodes(quantised, "QuantizeLinear")}) is expected


def test_a_product_of_joined_tokens_stays_float_on_openvino_alone(tmp_path: Path) -> None:
    net = prepare(nets.joined_tokens())
    found, batch = collect(net, nets.batches(net, 4), "minmax"), nets.batches(net, 1)[0]
    want = runtimes.ort_output(net, batch)
    for profile, runs in (("x86", runtimes.ort_output), ("openvino", _openvino_output)):
        assert 0 < relative_error(runs(quantize(net, found, profile), batch), want) < 0.1
    assert runtimes.ort_kernels(quantize(net, found, "x86"), tmp_path)["QGemm"] == 1
    layers = runtimes.openvino_layers(quantize(net, found, "openvino"))
    assert layers["Convolution", "u8"] == 2
    assert layers["FullyConnected", "f32"] == 1


def _openvino_output(model: ModelProto, batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(next(iter(runtimes.openvino_model(model)(batch).values())))


def _readers(model: ModelProto, node: onnx.NodeProto) -> list[str]:
    return [other.op_type for other in model.graph.node for name in other.input if name == node.output[0]]
