"""PAN: sizes by number, attention by hand, and export."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.pan import PAN, FeaturePyramidAttention, GlobalAttentionUpsample
from tests.models.exported import check_export

SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 8, "backbone_options": {"width": 8}}


def up(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    # The paper counts no parameters; these are its layers added up: ResNet-101's 42 500 160 and 5 483 926 of attention,
    # upsampling and classifier.
    ("options", "parameters"),
    [({}, 47_984_086), ({"maps": 256}, 81_244_501), ({"backbone": "resnet50"}, 28_991_958)],
)
def test_parameter_counts(options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = PAN(21, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_pyramid_kernels_and_output_stride() -> None:
    with torch.device("meta"):
        network = PAN(21)
    assert [layer[0].kernel_size[0] for layer in network.attention.down] == [7, 5, 3]
    assert [layer[0].kernel_size[0] for layer in network.attention.across] == [7, 5, 3]
    # Section 4.1: the last stage is dilated, its output is at stride 16.
    assert [block.conv2.dilation[0] for block in network.backbone.layer4] == [1, 2, 2]
    assert network.backbone.layer4[0].conv2.stride == (1, 1)


@pytest.mark.parametrize("maps", [1, 4])
@pytest.mark.parametrize("size", [(16, 24), (5, 3), (1, 1)])
def test_pyramid_attention_by_hand(maps: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = FeaturePyramidAttention(6, 4, maps).eval()
    x = torch.randn(2, 6, *size)
    with torch.inference_mode():
        levels, level = [], x
        for down in module.down:
            level = down(F.max_pool2d(level, 3, 2, 1))
            levels.append(level)
        third = module.across[2](levels[2])
        second = module.across[1](levels[1]) + up(third, levels[1].shape[2:])
        first = module.across[0](levels[0]) + up(second, levels[0].shape[2:])
        expected = module.features(x) * up(first, size) + module.image(x.mean((2, 3), keepdim=True))
        assert levels[2].shape[2:] == (-(-size[0] // 8), -(-size[1] // 8))
        torch.testing.assert_close(module(x), expected)


def test_coarse_features_decide_which_fine_channels_count() -> None:
    module = GlobalAttentionUpsample(3, 4).eval()
    fine, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 4, 4)
    with torch.inference_mode():
        weights = module.weights(coarse.mean((2, 3), keepdim=True))
        torch.testing.assert_close(module(fine, coarse), module.fine(fine) * weights + up(coarse, (8, 8)))


def test_one_frame_cannot_be_trained_on() -> None:
    with pytest.raises(EdgesegError, match="raise --batch"):
        models.create("pan", 3, **SMALL).train()(torch.zeros(1, 3, 64, 64))


def test_export_at_any_size() -> None:
    torch.manual_seed(0)
    network = models.create("pan", 4, **SMALL)
    shapes = [(1, 3, 64, 96), (2, 3, 37, 51), (1, 3, 160, 16)]
    check_export(network, ("logits",), shapes[0], shapes)
