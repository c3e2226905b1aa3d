"""DeepLab v1 to v3+ and what they stand on: sizes by number, holes, multi-grid, ASPP, both output strides, torchvision, export."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.aspp import ASPP, TorchvisionASPP
from edgeseg.models.backbones.mobilenet_v2 import MobileNetV2
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.backbones.vgg import VGG16
from edgeseg.models.backbones.xception import Xception
from edgeseg.models.deeplab_v1 import AtrousVGG
from edgeseg.models.weights import load_weights
from tests.models.detection_reference import detection
from tests.models.exported import check_export
from tests.models.painted import scene

SMALL: dict[str, Any] = {"backbone": "resnet18", "backbone_options": {"width": 8}}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def vary(network: nn.Module) -> nn.Module:
    """Batch statistics that differ, which a trained network has."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("deeplab_v1", {}, 20_505_429),  # table 3: LargeFOV, 20.5 M
        ("deeplab_v2", {}, 44_048_532),
        ("deeplab_v2", {"backbone": "vgg16"}, 37_877_652),
        ("deeplab_v3", {}, 58_630_997),
        # torchvision states 42 004 074 with its auxiliary head of 2 365 205.
        ("deeplab_v3", {"backbone": "resnet50", "output_stride": 8, "multi_grid": None}, 42_004_074 - 2_365_205),
        ("deeplab_v3", {"backbone": "resnet101", "output_stride": 8, "multi_grid": None}, 60_996_202 - 2_365_205),
        ("deeplab_v3_plus", {"backbone": "xception65", "separable": True}, 41_055_413),
        ("deeplab_v3_plus", {"backbone": "resnet101"}, 59_344_309),
        ("deeplab_v3_plus", {"backbone": "mobilenet_v2"}, 5_816_053),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        assert count(models.create(name, 21, **options)) == parameters


# --- backbones ---------------------------------------------------------------------------------------------------


def test_xception_layout() -> None:
    with torch.device("meta"):
        network = Xception(16)
    assert count(network) == 37_867_312
    assert network.channels == [256, 256, 728, 2048]
    assert len(network.middle) == 16
    rates = [layer[0][0].dilation[0] for layer in (*network.leave.separable, *network.exit)]
    assert rates == [1, 1, 1, 2, 2, 2]
    assert not [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]


@pytest.mark.parametrize("width", [0.0, 1.4])
def test_widths_are_multiples_of_eight(width: float) -> None:
    for network in (MobileNetV2(width=width), Xception(width=max(width, 0.1), middle=1)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                assert module.out_channels % 8 == 0
                assert module.out_channels >= 8
    assert MobileNetV2(width=1.4).channels == [32, 48, 136, 448]  # torchvision's rule at 1.4


@pytest.mark.parametrize(
    "make",
    [
        lambda stride: ResNet("resnet18", stride, width=8),
        lambda stride: ResNet("resnet50", stride, width=8, deep_stem=True),
        lambda stride: MobileNetV2(stride, width=0.25),
        lambda stride: Xception(stride, 0.125, middle=2),
    ],
)
def test_dilated_features_pass_through_the_strided_ones(make: Any) -> None:
    """Holes compute the same function at more places: every second one is what the strided network finds."""
    torch.manual_seed(0)
    strided = vary(make(32))
    x = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        expected = strided(x)[3]
        for stride, step in ((16, 2), (8, 4)):
            dilated = make(stride).eval()
            dilated.load_state_dict(strided.state_dict())
            torch.testing.assert_close(dilated(x)[3][..., ::step, ::step], expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_multi_grid() -> None:
    def rates(stride: int, grid: tuple[int, ...] | None) -> list[int]:
        with torch.device("meta"):
            return [block.conv2.dilation[0] for block in ResNet("resnet50", stride, multi_grid=grid).layer4]

    # Section 3.2.1: rates 2 x (1, 2, 4) at output stride 16.
    assert rates(16, (1, 2, 4)) == [2, 4, 8]
    assert rates(8, (1, 2, 4)) == [4, 8, 16]
    assert rates(16, (1, 2)) == [2, 4, 2]
    assert rates(8, None) == [2, 4, 4]
    for wrong in ((), (0, 1)):
        with pytest.raises(EdgesegError, match="multi_grid"):
            ResNet("resnet18", multi_grid=wrong)


def test_deep_stem() -> None:
    with torch.device("meta"):
        network = ResNet("resnet50", deep_stem=True)
    kernels = [getattr(network, f"conv{index}").weight.shape for index in (1, 2, 3)]
    assert kernels == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert network.layer1[0].conv1.in_channels == 128


# --- v1, v2 ------------------------------------------------------------------------------------------------------


def test_atrous_vgg_has_vggs_weights_and_holes() -> None:
    network = AtrousVGG(width=0.125).eval()
    network.load_state_dict(VGG16(width=0.125).state_dict())
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in convolutions] == [1] * 10 + [2] * 3
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 67, 80)).shape == (1, 64, 9, 10)


def test_large_fov() -> None:
    with torch.device("meta"):
        classifier = models.create("deeplab_v1", 21).classifier
    six, seven, eight = (layer for layer in classifier if isinstance(layer, nn.Conv2d))
    assert (six.kernel_size, six.dilation, six.padding, six.out_channels) == ((3, 3), (12, 12), (12, 12), 1024)
    assert seven.weight.shape == (1024, 1024, 1, 1)
    assert eight.weight.shape == (21, 1024, 1, 1)


def test_scores_of_all_rates_are_added() -> None:
    network = models.create("deeplab_v2", 3, **SMALL).eval()
    assert [branch.dilation[0] for branch in network.classifier] == [6, 12, 18, 24]
    x = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        features = network.backbone(x)[3]
        torch.testing.assert_close(network(x), sum(branch(features) for branch in network.classifier))


def test_the_maximum_over_scales_counts() -> None:
    network = models.create("deeplab_v2", 3, scales=[1, 0.5], **SMALL).eval()
    x = torch.randn(2, 3, 48, 64)

    def resized(y: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(y, (height, width), mode="bilinear", align_corners=False)

    with torch.inference_mode():
        whole = network._scores(x)
        half = resized(network._scores(resized(x, 24, 32)), 6, 8)
        torch.testing.assert_close(network(x), torch.maximum(whole, half))
        assert (half > whole).any()
        assert (half < whole).any()
    fused, coarse, fine = network.train()(x)
    assert fused.shape == fine.shape == (2, 3, 6, 8)
    assert coarse.shape == (2, 3, 3, 4)


# --- v3, v3+ -----------------------------------------------------------------------------------------------------


def test_both_forms_of_aspp_are_one_function() -> None:
    torch.manual_seed(0)
    theirs, ours = vary(TorchvisionASPP(6, 4, (2, 4), 0.1)), ASPP(6, 4, (2, 4), 0.1).eval()
    names = {f"branches.{index}.": f"convs.{index}." for index in range(3)} | {"project.0.": "project."}
    state = {name: theirs.state_dict()[_renamed(name, names)] for name in ours.state_dict()}
    ours.load_state_dict(state)
    x = torch.randn(2, 6, 9, 12)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


def _renamed(name: str, names: dict[str, str]) -> str:
    if name.startswith("image."):
        return name.replace("image.0.", "convs.3.1.").replace("image.1.", "convs.3.2.")
    old = next(start for start in names if name.startswith(start))
    return name.replace(old, names[old], 1)


@pytest.mark.parametrize("name", ["deeplab_v3", "deeplab_v3_plus"])
def test_rates_double_at_stride_8(name: str) -> None:
    for stride, rates in ((16, [1, 6, 12, 18]), (8, [1, 12, 24, 36])):
        with torch.device("meta"):
            network = models.create(name, 3, output_stride=stride, **SMALL)
        branches = network.aspp.branches if name == "deeplab_v3_plus" else network.classifier[0].convs[:4]
        assert [branch[0].dilation[0] for branch in branches] == rates


def test_separable_decoder_and_aspp() -> None:
    with torch.device("meta"):
        network = models.create("deeplab_v3_plus", 3, separable=True, **SMALL)
    wide = [m for m in (*network.aspp.modules(), *network.head.modules()) if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(wide) == 5
    assert all(layer.groups == layer.in_channels for layer in wide)


def test_one_frame_cannot_be_trained_on() -> None:
    with pytest.raises(EdgesegError, match="raise --batch"):
        models.create("deeplab_v3", 3, width=8, **SMALL).train()(torch.zeros(1, 3, 32, 32))


def test_trained_at_stride_16_it_works_at_8_with_the_same_weights() -> None:
    torch.manual_seed(0)
    options = {**SMALL, "width": 16, "dropout": 0.0, "multi_grid": None}
    coarse, fine = (models.create("deeplab_v3", 3, output_stride=stride, **options) for stride in (16, 8))
    image, target = scene()
    x = torch.cat([image, image.flip(3)]).repeat_interleave(3, 2).repeat_interleave(3, 3)
    labels = torch.stack([target.labels, target.labels.flip(1)]).repeat_interleave(3, 1).repeat_interleave(3, 2)

    def whole(network: nn.Module) -> Tensor:
        return F.interpolate(network(x), labels.shape[1:], mode="bilinear", align_corners=False)

    optimiser = torch.optim.AdamW(coarse.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(whole(coarse), labels).backward()
        optimiser.step()
    fine.load_state_dict(coarse.state_dict())
    with torch.inference_mode():
        accuracy = [(whole(network.eval()).argmax(1) == labels).float().mean().item() for network in (coarse, fine)]
        assert coarse(x).shape[2:] == (9, 14)
        assert fine(x).shape[2:] == (18, 27)
    assert accuracy[0] > 0.9
    assert accuracy[1] > 0.85
    # And back: fine-tuned at 8, its weights are those of the network at 16.
    coarse.load_state_dict(fine.state_dict())


# --- torchvision -------------------------------------------------------------------------------------------------


def torchvision(module: str) -> Any:
    """torchvision's ``module``; skips the test where its sources are not to be had."""
    detection()
    return importlib.import_module(f"torchvision.{module}")


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    theirs = vary(getattr(torchvision("models"), name)(weights=None))
    ours = ResNet(name).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith(ours.HEAD)})
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for index, found in enumerate(ours(x), 1):
            y = getattr(theirs, f"layer{index}")(y)
            assert_same(found, y)


def test_mobilenet_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = vary(torchvision("models").mobilenet_v2(weights=None, width_mult=0.75))
    ours = MobileNetV2(width=0.75).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith(ours.HEAD)})
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert_same(ours(x)[3], theirs.features[:18](x))


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_deeplab_v3_is_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    make = getattr(torchvision("models.segmentation"), f"deeplabv3_{name}")
    theirs = vary(make(weights=None, weights_backbone=None, num_classes=5))
    ours = models.create("deeplab_v3", 5, backbone=name, output_stride=8, multi_grid=None).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        found = F.interpolate(ours(x), x.shape[2:], mode="bilinear", align_corners=False)
        assert_same(found, theirs(x)["out"])


def test_torchvisions_auxiliary_head_is_left_out(tmp_path: Path) -> None:
    ours, saved = (models.create("deeplab_v3", 2, width=8, **SMALL) for _ in range(2))
    path = tmp_path / "deeplab.pth"
    torch.save({**saved.state_dict(), "aux_classifier.0.weight": torch.zeros(4, 4, 3, 3)}, path)
    load_weights(ours, path)
    assert all(torch.equal(found, wanted) for found, wanted in zip(ours.parameters(), saved.parameters(), strict=True))


# --- export ------------------------------------------------------------------------------------------------------

FIXED = [(1, 3, 64, 96)]
DYNAMIC = [(1, 3, 64, 96), (2, 3, 37, 51)]


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("deeplab_v1", {"width": 0.125, "fc_channels": 16}, DYNAMIC),
        ("deeplab_v2", {**SMALL, "scales": [0.5, 1]}, DYNAMIC),
        ("deeplab_v3", {**SMALL, "width": 16}, DYNAMIC),
        (
            "deeplab_v3_plus",
            {"backbone": "xception65", "separable": True, "width": 8, "backbone_options": {"width": 0.125, "middle": 1}},
            FIXED,
        ),
    ],
)
def test_export(name: str, options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    check_export(vary(models.create(name, 4, **options)), ("logits",), shapes[0], shapes)
