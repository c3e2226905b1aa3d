"""SegNet and SegNet-Basic: published sizes, indices that come back where they were, export."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import numpy as np
import onnxruntime
import torch
from torch import nn

from edgeseg import models
from edgeseg.engines.lowering import lower_for_openvino
from edgeseg.errors import EdgesegError
from edgeseg.export.torch_onnx import to_onnx
from edgeseg.models.segnet import _encode_decode

SMALL: list[tuple[str, dict[str, Any]]] = [("segnet", {"width": 1 / 16}), ("segnet_basic", {"features": 6})]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def drawn(name: str, options: dict[str, Any]) -> nn.Module:
    """A network whose batch normalisation has statistics of its own."""
    network = models.create(name, 4, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network


def test_parameters_are_published() -> None:
    """PAMI 2017: SegNet has 29.45 M; SegNet-Basic 1.425 M, of which its text explains 1.416 M."""
    with torch.device("meta"):
        segnet, basic = models.create("segnet", 11), models.create("segnet_basic", 11)
    assert round(count(segnet) / 1e6, 2) == 29.45
    layers = 3 * 64 * 49 + 7 * 64 * 64 * 49 + 8 * 2 * 64 + 64 * 11 + 11
    assert count(basic) == layers == 1_416_075


def test_the_layers_are_the_papers() -> None:
    with torch.device("meta"):
        segnet, basic = models.create("segnet", 11), models.create("segnet_basic", 11)
    encoder = [module for module in segnet.backbone.modules() if isinstance(module, nn.Conv2d)]
    decoder = [module for module in segnet.decoder.modules() if isinstance(module, nn.Conv2d)] + [segnet.classifier]
    assert len(encoder) == len(decoder) == 13
    convolutions = [module for module in basic.modules() if isinstance(module, nn.Conv2d)]
    assert [(item.out_channels, item.kernel_size[0], item.bias is None) for item in convolutions[:8]] == [(64, 7, True)] * 8
    assert not any(isinstance(module, nn.ReLU) for module in basic.decoder.modules())
    assert sum(isinstance(module, nn.ReLU) for module in basic.encoder.modules()) == 4


def test_maxima_come_back_where_they_were() -> None:
    """With stages that change nothing, the decoder gives each 2x2 window's maximum at its place and zeros elsewhere."""
    x = torch.rand(1, 2, 8, 6)
    found = _encode_decode(x, [nn.Identity()], [nn.Identity()])
    for top in range(0, 8, 2):
        for left in range(0, 6, 2):
            for channel in range(2):
                window, got = x[0, channel, top : top + 2, left : left + 2], found[0, channel, top : top + 2, left : left + 2]
                assert torch.equal(got, torch.where(window == window.max(), window, 0))


@pytest.mark.parametrize(
    ("name", "options", "operators", "size"), [(*SMALL[0], "edgeseg", (32, 64)), (*SMALL[1], "standard", (37, 51))]
)
def test_export_agrees(name: str, options: dict[str, Any], operators: str, size: tuple[int, int]) -> None:
    """At fixed sizes; dynamic graphs of two levels are in tests/export, as the tracer takes long for five."""
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    network, x = drawn(name, options), torch.randn(1, 3, *size)
    model = to_onnx(network, tuple(x.shape), "image", "logits", dynamic=False, operators=operators)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    core = openvino.Core()
    lowered = core.read_model(lower_for_openvino(model).SerializeToString())
    compiled = core.compile_model(lowered, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    with torch.inference_mode():
        expected = network(x).numpy()
    for found in (session.run(None, {"image": x.numpy()})[0], compiled([x.numpy()])[0]):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_wrong_options_are_told() -> None:
    for name, options, told in (
        ("segnet", {"width": 0}, "width 0"),
        ("segnet_basic", {"kernel": 4}, "odd"),
        ("segnet", {"depth": 3}, "depth"),
    ):
        with pytest.raises(EdgesegError, match=told):
            models.create(name, 3, **options)
