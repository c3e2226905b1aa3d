"""PSPNet: sizes by number, regional averages against adaptive pooling, the auxiliary head, export and INT8."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from onnxruntime import InferenceSession

from calibration import collect, prepare, quantize
from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.export.torch_onnx import to_onnx
from edgeseg.models.pspnet import PSPNet, PyramidPooling
from tests.models.exported import check_export

SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 16, "backbone_options": {"width": 8}}


@pytest.mark.parametrize(
    ("classes", "options", "parameters"),
    [
        # Of these 2 366 228 are the auxiliary head's. Public reimplementations state 49.0 M and 68.0 M.
        (21, {}, 48_957_802),
        (21, {"auxiliary": False}, 46_592_597),
        (21, {"backbone": "resnet101"}, 67_949_930),
        (150, {"backbone": "resnet101"}, 68_049_260),
        (21, {"backbone_options": {"deep_stem": True}}, 49_081_578),
    ],
)
def test_parameter_counts(classes: int, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = PSPNet(classes, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_published_layout_by_default() -> None:
    with torch.device("meta"):
        network = PSPNet(21)
    # Channels quartered, so that the pyramid is as wide as what it looks at.
    assert [layer[0].weight.shape[:2] for layer in network.pyramid.reduce] == [(512, 2048)] * 4
    assert network.head[0][0].weight.shape == (512, 4096, 3, 3)
    assert network.auxiliary is not None
    assert network.auxiliary[0][0].weight.shape == (256, 1024, 3, 3)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (12, 18), (7, 13), (60, 45), (5, 4), (1, 2)])
def test_averages_are_those_of_adaptive_pooling(height: int, width: int) -> None:
    pyramid = PyramidPooling(8, (1, 2, 3, 6))
    x = torch.randn(2, 8, height, width)
    averages, start = pyramid.averages(x), 0
    assert averages.shape == (2, 8, 12, 12)
    for bins in pyramid.bins:
        own = averages[..., start : start + bins, start : start + bins]
        torch.testing.assert_close(own, torch.nn.functional.adaptive_avg_pool2d(x, bins))
        start += bins


def test_pyramid_is_concatenated_to_what_it_looks_at() -> None:
    pyramid = PyramidPooling(8, (1, 2)).eval()
    x = torch.randn(1, 8, 4, 6)
    with torch.inference_mode():
        y = pyramid(x)
        whole = pyramid.reduce[0](x.mean((2, 3), keepdim=True))
    assert y.shape == (1, 16, 4, 6)
    assert torch.equal(y[:, :8], x)
    torch.testing.assert_close(y[:, 8:12], whole.expand(-1, -1, 4, 6))


def test_auxiliary_logits_in_training_only() -> None:
    network = models.create("pspnet", 3, **SMALL)
    x = torch.randn(2, 3, 32, 48)
    main, extra = network.train()(x)
    assert main.shape == extra.shape == (2, 3, 4, 6)
    assert network.eval()(x).shape == (2, 3, 4, 6)
    assert isinstance(models.create("pspnet", 3, auxiliary=False, **SMALL).train()(x), torch.Tensor)


def test_one_frame_cannot_be_trained_on() -> None:
    with pytest.raises(EdgesegError, match="raise --batch"):
        models.create("pspnet", 3, **SMALL).train()(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "told"),
    [({"bins": []}, "bins"), ({"bins": [0]}, "bins"), ({"output_stride": 4}, "8 or 16"), ({"backbone": "vgg16"}, "xception65")],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told):
        models.create("pspnet", 3, **{**SMALL, **options})


def test_export_at_any_size() -> None:
    torch.manual_seed(0)
    network = models.create("pspnet", 4, **SMALL)
    shapes = [(1, 3, 64, 96), (2, 3, 33, 51), (1, 3, 120, 72)]
    check_export(network, ("logits",), shapes[0], shapes)


def test_export_at_one_size_is_plain() -> None:
    network = models.create("pspnet", 4, **SMALL)
    graph = to_onnx(network, (1, 3, 48, 64), "image", "logits", False)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found["MatMul"] == 2
    assert set(found) <= {"Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "MatMul", "Slice", "Resize", "Concat"}
    assert not [item.name for item in graph.graph.initializer if item.name.startswith("auxiliary")]


@pytest.mark.parametrize("profile", ["x86", "tensorrt"])
def test_averages_survive_int8(profile: str) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(16, (1, 2, 3, 6)).eval()
    graph = to_onnx(pyramid, (1, 16, 15, 20), "image", "features", False)
    # Smooth features, whose averages over regions differ.
    coarse = torch.randn(4, 1, 16, 3, 4).relu()
    frames = [{"image": torch.nn.functional.interpolate(item, (15, 20), mode="bilinear").numpy()} for item in coarse]
    prepared = prepare(graph)
    quantised = quantize(prepared, collect(prepared, frames, method="minmax"), profile)
    runs = [InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]) for model in (prepared, quantised)]
    for frame in frames:
        wanted, got = (run.run(None, frame)[0][:, 16:] for run in runs)
        assert wanted.std() > 0.1
        assert np.abs(got - wanted).mean() < 0.03 * wanted.std()
