"""Small float networks for the calibration tests, built with onnx.helper: every structure that placement has a rule for."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


class Builder:
    """Appends operators with random weights; every method returns the name of its output tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.count = 0

    def constant(self, value: np.ndarray, name: str | None = None) -> str:
        self.count += 1
        name = name or f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], outputs: int = 1, **attributes: object) -> str:
        self.count += 1
        names = [f"t{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def weight(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:]))
        return self.constant((self.random.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32))

    def vector(self, channels: int, low: float = -0.3, high: float = 0.3) -> str:
        return self.constant(self.random.uniform(low, high, channels).astype(np.float32))

    def conv(self, x: str, cin: int, cout: int, k: int = 3, stride: int = 1, group: int = 1, bias: bool = False) -> str:
        inputs = [x, self.weight(cout, cin // group, k, k)] + ([self.vector(cout)] if bias else [])
        return self.op("Conv", inputs, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride] * 2, group=group)

    def deconv(self, x: str, cin: int, cout: int, group: int = 1, bias: bool = True) -> str:
        weight = self.constant((self.random.standard_normal((cin, cout // group, 2, 2)) * np.sqrt(1.0 / cin)).astype(np.float32))
        inputs = [x, weight] + ([self.vector(cout)] if bias else [])
        return self.op("ConvTranspose", inputs, kernel_shape=[2, 2], strides=[2, 2], group=group)

    def norm(self, x: str, channels: int) -> str:
        gamma, beta, mean = self.vector(channels, 0.5, 1.5), self.vector(channels), self.vector(channels)
        return self.op("BatchNormalization", [x, gamma, beta, mean, self.vector(channels, 0.5, 2.0)], epsilon=1e-3)

    def conv_norm_relu(self, x: str, cin: int, cout: int, k: int = 3, stride: int = 1, group: int = 1) -> str:
        return self.op("Relu", [self.norm(self.conv(x, cin, cout, k, stride, group), cout)])

    def residual(self, x: str, cin: int, cout: int, stride: int = 1) -> str:
        y = self.conv_norm_relu(x, cin, cout, 3, stride)
        y = self.norm(self.conv(y, cout, cout), cout)
        if stride != 1 or cin != cout:
            x = self.norm(self.conv(x, cin, cout, 1, stride), cout)
        return self.op("Relu", [self.op("Add", [y, x])])

    def upsample(self, x: str, mode: str = "linear") -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.op("Resize", [x, "", scales], mode=mode, coordinate_transformation_mode="half_pixel")

    def model(self, inputs: dict[str, list[int | str]], outputs: dict[str, int], opset: int = 17, check: bool = True) -> ModelProto:
        """``outputs``: tensor -> rank."""
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()]
        taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
        graph = helper.make_graph(self.nodes, "net", taken, made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if check:
            onnx.checker.check_model(model)
        return model


def unet(width: int = 16, size: tuple[int, int] = (64, 64), classes: int = 5, seed: int = 0, batch: int | str = 1) -> ModelProto:
    """A ResNet-like U-Net: residual blocks, max pooling, bilinear and transposed upsampling, skip concats, depthwise."""
    b = Builder(seed)
    w = width
    stem = b.conv_norm_relu("input", 3, w, 3, 2)
    pooled = b.op("MaxPool", [stem], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    one = b.residual(b.residual(pooled, w, w), w, w)
    two = b.residual(b.residual(one, w, 2 * w, 2), 2 * w, 2 * w)
    three = b.residual(b.residual(two, 2 * w, 4 * w, 2), 4 * w, 4 * w)
    up = b.op("Concat", [b.upsample(three), two], axis=1)
    up = b.conv_norm_relu(b.conv_norm_relu(up, 6 * w, 2 * w), 2 * w, 2 * w)
    up = b.op("Concat", [b.deconv(up, 2 * w, w), one], axis=1)
    up = b.conv_norm_relu(up, 2 * w, w)
    up = b.op("Concat", [b.upsample(up), stem], axis=1)
    up = b.conv_norm_relu(b.conv_norm_relu(up, 2 * w, 2 * w, 3, 1, 2 * w), 2 * w, w, 1)
    logits = b.conv(b.conv_norm_relu(up, w, w), w, classes, 1, bias=True)
    return b.model({"input": [batch, 3, *size]}, {b.upsample(logits): 4})


def transformer(dim: int = 32, size: int = 32, seed: int = 0) -> ModelProto:
    """A vision transformer's block on 8x8 patches: layer norms, a head of attention, GELU, ReLU; six biased linear layers."""
    b = Builder(seed)
    patches = b.op("Conv", ["input", b.weight(dim, 3, 8, 8), b.vector(dim)], kernel_shape=[8, 8], strides=[8, 8])
    tokens = b.op("Reshape", [patches, b.constant(np.array([0, dim, -1]))])
    x = b.op("Transpose", [tokens], perm=[0, 2, 1])

    def norm(x: str) -> str:
        return b.op("LayerNormalization", [x, b.vector(dim, 0.5, 1.5), b.vector(dim)], axis=-1)

    def linear(x: str, cin: int, cout: int) -> str:
        weight = b.constant((b.random.standard_normal((cin, cout)) / np.sqrt(cin)).astype(np.float32))
        return b.op("Add", [b.op("MatMul", [x, weight]), b.vector(cout)])

    three = linear(norm(x), dim, 3 * dim)
    b.nodes.append(helper.make_node("Split", [three], ["query", "key", "value"], axis=-1, num_outputs=3))
    scores = b.op("MatMul", ["query", b.op("Transpose", ["key"], perm=[0, 2, 1])])
    scores = b.op("Softmax", [b.op("Mul", [scores, b.constant(np.float32(dim**-0.5))])], axis=-1)
    x = b.op("Add", [x, linear(b.op("MatMul", [scores, "value"]), dim, dim)])
    hidden = linear(norm(x), dim, 4 * dim)
    inner = b.op("Add", [b.op("Erf", [b.op("Mul", [hidden, b.constant(np.float32(0.5**0.5))])]), b.constant(np.float32(1))])
    hidden = b.op("Mul", [b.op("Mul", [hidden, inner]), b.constant(np.float32(0.5))])
    x = b.op("Add", [x, linear(hidden, 4 * dim, dim)])
    x = b.op("Add", [x, linear(b.op("Relu", [linear(norm(x), dim, dim)]), dim, dim)])
    return b.model({"input": [1, 3, size, size]}, {norm(x): 3}, opset=18)


def joined_tokens(dim: int = 16, size: int = 32, seed: int = 0) -> ModelProto:
    """Patches of 8 and of 16 pixels as tokens (N, L, dim), one behind the other, through one linear layer."""
    b, parts = Builder(seed), []
    for patch, bound in ((8, "Sigmoid"), (16, "Tanh")):  # ranges that differ
        y = b.op("Conv", ["input", b.weight(dim, 3, patch, patch), b.vector(dim)], kernel_shape=[patch] * 2, strides=[patch] * 2)
        tokens = b.op("Reshape", [b.op(bound, [y]), b.constant(np.array([0, dim, -1]))])
        parts.append(b.op("Transpose", [tokens], perm=[0, 2, 1]))
    weight = b.constant((b.random.standard_normal((dim, dim)) / np.sqrt(dim)).astype(np.float32))
    product = b.op("MatMul", [b.op("Concat", parts, axis=1), weight])
    return b.model({"input": [1, 3, size, size]}, {b.op("Add", [product, b.vector(dim)]): 3}, opset=18)


def batches(model: ModelProto, count: int = 4, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Random smooth pictures, normalised, for the first input of ``model``."""
    random = np.random.default_rng(seed)
    value = model.graph.input[0]
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    coarse = [1 if d < 8 else 8 for d in shape[2:]]
    made = []
    for _ in range(count):
        x = random.standard_normal([*shape[:2], *(d // c for d, c in zip(shape[2:], coarse, strict=True))])
        for axis, c in enumerate(coarse, start=2):
            x = np.repeat(x, c, axis)
        made.append({value.name: (x + 0.2 * random.standard_normal(shape)).astype(np.float32)})
    return made
