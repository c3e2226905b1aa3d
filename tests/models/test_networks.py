"""Every network of the registry: shapes, strides, parameter counts and names, and what its constructor refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from torch import nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.mobilenet_v2 import MobileNetV2
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.backbones.vgg import VGG16
from edgeseg.models.backbones.xception import Xception
from edgeseg.models.blocks import bilinear_kernel
from edgeseg.models.fcn import FCN, _bilinear_up

TINY = {"width": 0.125, "middle": 1}  # Xception

# Network, options, stride of its logits.
NETWORKS: list[tuple[str, dict[str, Any], int]] = [
    ("deeplab_v3_plus", {"backbone": "resnet18", "width": 16, "low_width": 8}, 4),
    ("deeplab_v3_plus", {"backbone": "mobilenet_v2", "width": 16, "low_width": 8, "output_stride": 8}, 4),
    ("deeplab_v3_plus", {"backbone": "xception65", "separable": True, "width": 16, "low_width": 8, "backbone_options": TINY}, 4),
    ("deeplab_v1", {"width": 0.125, "fc_channels": 16}, 8),
    ("deeplab_v2", {"backbone": "resnet18", "backbone_options": {"width": 8}}, 8),
    ("deeplab_v2", {"backbone": "vgg16", "fc_channels": 8, "scales": [0.5, 1], "backbone_options": {"width": 0.125}}, 8),
    ("deeplab_v3", {"backbone": "resnet18", "width": 16, "backbone_options": {"width": 8}}, 16),
    ("deeplab_v3", {"backbone": "resnet50", "width": 16, "output_stride": 8, "backbone_options": {"width": 8}}, 8),
    ("fcn32s", {"width": 0.125}, 1),
    ("fcn16s", {"width": 0.125}, 1),
    ("fcn8s", {"width": 0.125}, 1),
    ("pan", {"backbone": "resnet18", "width": 16, "backbone_options": {"width": 8}}, 4),
    ("pspnet", {"backbone": "resnet18", "width": 16, "backbone_options": {"width": 8, "deep_stem": True}}, 8),
    ("refinenet", {"backbone": "resnet18", "width": 16, "backbone_options": {"width": 8}}, 4),
    ("segmenter", {"dim": 16, "depth": 1, "heads": 2, "patch": 16, "decoder": "linear", "image_size": 64}, 16),
    ("segmenter", {"dim": 16, "depth": 1, "heads": 2, "patch": 8, "decoder_layers": 1, "image_size": [32, 64]}, 8),
    ("fcn8s", {"backbone": "vgg16_bn", "width": 0.125}, 1),
    ("fcn8s", {"backbone": "alexnet", "width": 0.125}, 1),
    ("fcn8s", {"backbone": "googlenet", "width": 0.125}, 1),
    ("fcn_pool3", {"width": 0.125}, 1),
    ("fcn_pool4", {"width": 0.125}, 1),
    ("fcn_pool5", {"width": 0.125}, 1),
    ("segnet", {"width": 0.125}, 1),
    ("segnet_basic", {"features": 8}, 1),
    ("unet", {"widths": [4, 8, 8, 16]}, 1),
    ("unet", {"widths": [4, 8, 8, 16], "depths": [0, 1, 1, 2], "block": "residual", "stem_stride": 2, "upsample": "bilinear"}, 2),
    ("unet_published", {"widths": [4, 4, 8]}, 1),
]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "options", "stride"), NETWORKS)
def test_logits_have_the_stated_stride_at_even_and_odd_sizes(name: str, options: dict[str, Any], stride: int) -> None:
    network = models.create(name, num_classes=5, **options).eval()
    for height, width in ((32, 64), (37, 51)):
        with torch.inference_mode():
            logits = network(torch.randn(1, 3, height, width))
        assert logits.shape == (1, 5, -(-height // stride), -(-width // stride))
        assert torch.isfinite(logits).all()


def test_every_registry_entry_is_covered() -> None:
    """Here, or, where it gives no logits of a label map, in another file of this folder that is called by it or makes it."""
    listed = {name for name, _, _ in NETWORKS}
    assert listed <= set(models.REGISTRY)
    others = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)}
    for name in set(models.REGISTRY) - listed:
        assert f"test_{name}" in others or any(f'"{name}"' in text for text in others.values()), name


# --- backbones ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
        ("resnet152", 58_143_808),
    ],
)
def test_resnet_parameter_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(ResNet(name)) == parameters


def test_vgg_and_mobilenet_parameter_counts() -> None:
    with torch.device("meta"):
        assert count(VGG16()) == 14_714_688
        assert count(VGG16(batch_norm=True)) == 14_723_136
        last = 320 * 1280 + 2 * 1280  # torchvision's features.18, which belongs to the classifier
        assert count(MobileNetV2()) == 2_223_872 - last


def bn(name: str) -> list[str]:
    return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def resnet_names(depths: tuple[int, ...], convs: int) -> list[str]:
    names = ["conv1.weight", *bn("bn1")]
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            for number in range(1, convs + 1):
                names += [f"{at}.conv{number}.weight", *bn(f"{at}.bn{number}")]
            if block == 0 and (stage > 1 or convs == 3):
                names += [f"{at}.downsample.0.weight", *bn(f"{at}.downsample.1")]
    return names


def mobilenet_names() -> list[str]:
    names = ["features.0.0.weight", *bn("features.0.1")]
    names += ["features.1.conv.0.0.weight", *bn("features.1.conv.0.1"), "features.1.conv.1.weight", *bn("features.1.conv.2")]
    for index in range(2, 18):
        at = f"features.{index}.conv"
        names += [f"{at}.0.0.weight", *bn(f"{at}.0.1"), f"{at}.1.0.weight", *bn(f"{at}.1.1"), f"{at}.2.weight", *bn(f"{at}.3")]
    return names


def vgg_names(convs: tuple[int, ...], batch_norm: bool) -> list[str]:
    names = []
    for index in convs:
        names += [f"features.{index}.weight", f"features.{index}.bias", *(bn(f"features.{index + 1}") if batch_norm else [])]
    return names


def test_names_are_torchvisions() -> None:
    with torch.device("meta"):
        assert set(ResNet("resnet18").state_dict()) == set(resnet_names((2, 2, 2, 2), 2))
        assert set(ResNet("resnet50").state_dict()) == set(resnet_names((3, 4, 6, 3), 3))
        assert set(MobileNetV2().state_dict()) == set(mobilenet_names())
        plain = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
        normed = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
        assert set(VGG16().state_dict()) == set(vgg_names(plain, False))
        assert set(VGG16(batch_norm=True).state_dict()) == set(vgg_names(normed, True))


@pytest.mark.parametrize(("stride", "sizes"), [(32, (16, 8, 4, 2)), (16, (16, 8, 4, 4)), (8, (16, 8, 8, 8))])
def test_output_stride_trades_stride_for_dilation(stride: int, sizes: tuple[int, ...]) -> None:
    for backbone in (ResNet("resnet18", stride), MobileNetV2(stride), Xception(stride, 0.125, 1)):
        with torch.inference_mode():
            features = backbone.eval()(torch.zeros(1, 3, 64, 64))
        assert [(item.shape[1], item.shape[2]) for item in features] == list(zip(backbone.channels, sizes, strict=True))


def test_first_block_of_a_dilated_stage_keeps_the_dilation_of_what_it_reads() -> None:
    with torch.device("meta"):
        network = ResNet("resnet18", 8)
    rates = [[block.conv1.dilation[0] for block in getattr(network, f"layer{stage}")] for stage in (1, 2, 3, 4)]
    assert rates == [[1, 1], [1, 1], [1, 2], [2, 4]]


def test_deeplab_has_the_same_weights_at_both_output_strides() -> None:
    options = {"backbone": "mobilenet_v2", "width": 16, "low_width": 8}
    coarse = models.create("deeplab_v3_plus", 3, output_stride=16, **options).eval()
    fine = models.create("deeplab_v3_plus", 3, output_stride=8, **options).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        first, second = coarse(x), fine(x)
    assert first.shape == second.shape == (1, 3, 16, 16)
    assert not torch.equal(first, second)
    assert [branch[0].dilation[0] for branch in fine.aspp.branches] == [1, 12, 24, 36]


def test_deeplab_refuses_to_normalise_over_one_frame() -> None:
    network = models.create("deeplab_v3_plus", 2, backbone="mobilenet_v2", width=4, low_width=4).train()
    with pytest.raises(EdgesegError, match="raise --batch"):
        network(torch.zeros(1, 3, 32, 32))


# --- upsampling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 8, 16])
def test_transposed_convolutions_start_bilinear(factor: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    x = torch.stack([rows, 10 + 3 * columns])[None]
    with torch.inference_mode():
        y = _bilinear_up(2, factor)(x)[0].numpy()
    assert y.shape == (2, 5 * factor, 6 * factor)
    # Half-pixel centres: output pixel j looks at (j + 0.5) / factor - 0.5.
    where = [(np.arange(size * factor) + 0.5) / factor - 0.5 for size in (5, 6)]
    inside = slice(factor, -factor)
    assert np.allclose(y[0, inside, inside], np.broadcast_to(where[0][:, None], y[0].shape)[inside, inside], atol=1e-5)
    assert np.allclose(y[1, inside, inside], 10 + 3 * np.broadcast_to(where[1], y[1].shape)[inside, inside], atol=1e-4)


def test_bilinear_kernel_is_the_papers() -> None:
    assert np.allclose(bilinear_kernel(4)[0], np.array([1, 3, 3, 1]) / 16)
    assert np.allclose(bilinear_kernel(3)[1], [0.5, 1, 0.5])


def test_fcn_scores_start_at_zero() -> None:
    network = FCN(4, stride=8, fc_channels=8).eval()
    with torch.inference_mode():
        assert not network(torch.randn(1, 3, 32, 32)).any()
    assert [tuple(up.weight.shape[2:]) for up in (*network.ups, network.up)] == [(4, 4), (4, 4), (16, 16)]


# --- options -----------------------------------------------------------------------------------------------------


def test_unet_published_layout_by_default() -> None:
    with torch.device("meta"):
        network = models.create("unet", 2)
    widths = [64, 128, 256, 512, 1024]
    assert [stage[-1][0].out_channels for stage in network.encoder] == widths
    assert [up.transposed.weight.shape for up in network.up] == [(2 * w, w, 2, 2) for w in widths[:-1]]


def test_unet_deep_supervision_only_in_training() -> None:
    network = models.create("unet", 3, widths=[4, 4, 4, 4], deep_supervision=True)
    x = torch.randn(2, 3, 32, 32)
    main, extra = network.train()(x)
    assert main.shape == (2, 3, 32, 32)
    assert extra.shape == (2, 3, 8, 8)
    assert isinstance(network.eval()(x), torch.Tensor)


def test_unet_dilations_repeat_over_the_last_level() -> None:
    with torch.device("meta"):
        network = models.create("unet", 2, widths=[4, 4, 8], depths=[1, 1, 4], block="residual", dilations=[1, 2])
    assert [block.conv2[0].dilation[0] for block in network.encoder[2]] == [1, 2, 1, 2]
    assert {block.conv2[0].dilation[0] for block in network.encoder[1]} == {1}


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("resnet", {}, "deeplab_v3_plus"),
        ("unet", {"colour": 3}, "colour"),
        ("unet", {"widths": "wide"}, "unet"),
        ("unet", {"widths": [8]}, "two levels"),
        ("unet", {"widths": [8, 0]}, "positive"),
        ("unet", {"depths": [1, 1]}, "a depth for each level"),
        ("unet", {"widths": [4, 4, 4], "depths": [1, 0, 1]}, "only the first may be 0"),
        ("unet", {"widths": [4, 4, 4], "deep_supervision": True}, "four levels"),
        ("unet", {"dilations": []}, "positive numbers"),
        ("unet", {"block": "dense"}, "plain or residual"),
        ("unet", {"upsample": "nearest"}, "transposed or bilinear"),
        ("unet", {"widths": [4, 4], "dropout": 2}, "dropout"),
        ("deeplab_v3_plus", {"backbone": "vgg16"}, "mobilenet_v2"),
        ("deeplab_v3_plus", {"output_stride": 32}, "8 or 16"),
        ("fcn8s", {"stride": 16}, "stride"),
        ("segnet", {"width": 30}, "width"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told) as caught:
        models.create(name, 3, **options)
    assert "\n" not in str(caught.value)


def test_no_classes() -> None:
    with pytest.raises(EdgesegError, match="at least 1"):
        models.create("unet", 0)


@pytest.mark.parametrize(
    "make", [lambda: FCN(2, stride=4), lambda: ResNet("resnet18", 4), lambda: MobileNetV2(64), lambda: Xception(4)]
)
def test_wrong_strides(make: Any) -> None:
    with pytest.raises(EdgesegError, match="8, 16 or 32"):
        make()
