"""FCN: grids, published sizes, weights from classifiers and coarser networks, what is frozen, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Architecture, ClassInfo, InputSpec, Manifest
from edgeseg.models.backbones.alexnet import AlexNet
from edgeseg.models.backbones.googlenet import GoogLeNet
from edgeseg.models.backbones.vgg import VGG16
from edgeseg.models.fcn import BACKBONES, FCN
from edgeseg.models.weights import load_weights
from edgeseg.training.config import TrainConfig
from edgeseg.training.optimiser import make_optimiser
from tests.models.detection_reference import detection
from tests.models.exported import check_export

SMALL = {"vgg16": 1 / 16, "vgg16_bn": 1 / 16, "alexnet": 1 / 16, "googlenet": 1 / 8}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def torchvision_models() -> Any:
    """The module ``torchvision.models``; skips the test where it is not to be had."""
    detection()
    return sys.modules["torchvision.models"]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(name: str = "vgg16", stride: int = 8, **options: Any) -> FCN:
    """A small network with scores, which start at zero, drawn."""
    network = FCN(3, stride, name, SMALL[name], **options).eval()
    for layer in (network.score, *network.skips):
        nn.init.normal_(layer.weight, std=0.1)
    return network


# --- published sizes ---------------------------------------------------------------------------------------------


def test_parameters_of_the_classifiers() -> None:
    with torch.device("meta"):
        vgg = count(VGG16()) + 7 * 7 * 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
        alexnet = count(AlexNet()) + 6 * 6 * 256 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
        googlenet = count(GoogLeNet()) + 1024 * 1000 + 1000
    assert (vgg, alexnet, googlenet) == (138_357_544, 61_100_840, 6_624_904)


def test_parameters_of_the_published_networks() -> None:
    """CVPR 2015, table 1: 57 M, 134 M and 6 M with 21 classes; upsampling that is fixed is no parameter there."""
    with torch.device("meta"):
        learning = {
            name: sum(p.numel() for p in FCN(21, 32, name).parameters() if p.requires_grad)
            for name in ("alexnet", "vgg16", "googlenet")
        }
        eight = FCN(21, 8)
    assert learning == {"alexnet": 57_089_877, "vgg16": 134_346_581, "googlenet": 5_621_429}
    assert round(count(eight) / 1e6, 1) == 134.5


# --- grids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_cells_lie_where_the_backbone_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field of one cell, which pools let through whole when they average, is centred on ``stride * cell + centre``."""
    network = FCN(2, 8, name, SMALL[name])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            module.eval()

    def mean(x: torch.Tensor, kernel: int, stride: int, padding: int = 0, ceil_mode: bool = False, **_: Any) -> torch.Tensor:
        return F.avg_pool2d(x, kernel, stride, padding, ceil_mode)

    monkeypatch.setattr(
        F, "max_pool2d", lambda x, kernel, stride=None, padding=0, dilation=1, **rest: mean(x, kernel, stride, padding)
    )
    x = torch.ones(1, 3, 512, 512, requires_grad=True)
    for pool, stride, centre in zip(network.backbone.pools(x), (8, 16, 32), network.backbone.centres, strict=True):
        cell = 256 // stride
        (field,) = torch.autograd.grad(pool[0, :, cell, cell].sum(), x, retain_graph=True)
        touched = field[0].sum(0).any(0).nonzero()
        # A max pool's window of an even side is centred between two pixels, which the mean shows as it is.
        assert abs(float(touched.min() + touched.max()) / 2 - (stride * cell + centre)) <= 0.5


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_upsampled_scores_lie_where_their_cells_are(name: str, stride: int) -> None:
    """Scores that say where their cell is come out as the pixel's place, as bilinear interpolation does with a ramp."""
    network = FCN(1, stride, name, SMALL[name], single=True).eval()
    centre = network.backbone.centres[(8, 16, 32).index(stride)]
    cells = torch.arange(9.0) * stride + centre
    with torch.inference_mode():
        ramp = network.up(cells.expand(1, 1, 9, 9))[0, 0]
    inside = torch.arange(2 * stride, 6 * stride)
    assert torch.allclose(ramp[4 * stride][inside], inside.float(), atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("stride", "single"), [(8, False), (32, False), (8, True), (16, True)])
def test_every_pixel_sees_a_cell(name: str, stride: int, single: bool) -> None:
    network = FCN(2, stride, name, SMALL[name], single=single).eval()
    nn.init.ones_(network.score.bias)
    with torch.inference_mode():
        for height, width in ((32, 64), (33, 47), (37, 51), (97, 123)):
            logits = network(torch.zeros(1, 3, height, width))
            assert logits.shape == (1, 2, height, width)
            assert (logits > 0).all()


def test_the_smallest_sizes() -> None:
    network = FCN(2, 8, "googlenet", SMALL["googlenet"]).eval()
    models.check_size(network, 5, 5)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 5, 5)).shape == (1, 2, 5, 5)
        assert small("alexnet")(torch.zeros(1, 3, 1, 1)).shape == (1, 3, 1, 1)
    with pytest.raises(EdgesegError, match="use 64x5"):
        models.check_size(network, 4, 64)


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layers", "window"), [("vgg16", (0, 3), 7), ("alexnet", (1, 4), 6)])
def test_a_classifier_becomes_convolutions(tmp_path: Path, name: str, layers: tuple[int, int], window: int) -> None:
    """On a picture whose last pool is one window, fc7 of the middle cell is the classifier's."""
    network = FCN(2, 32, name, 1 / 16, fc_channels=16).eval()
    channels = network.fc6.in_channels
    features = {f"features.{key}": value for key, value in _fresh_backbone(name).features.state_dict().items()}
    first, second = nn.Linear(channels * window**2, 16), nn.Linear(16, 16)
    state = {**features, **_prefixed(f"classifier.{layers[0]}.", first), **_prefixed(f"classifier.{layers[1]}.", second)}
    save_file({**state, "classifier.6.weight": torch.zeros(9, 16)}, tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors")
    for key, value in features.items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    pool = torch.rand(1, channels, window, window)
    with torch.inference_mode():
        expected = torch.relu(second(torch.relu(first(pool.flatten(1)))))
        found = network._head(pool)
    at = (window - 1) // 2
    assert torch.allclose(found[0, :, at, at], expected[0], atol=1e-5)


def _fresh_backbone(name: str) -> VGG16 | AlexNet:
    return VGG16(width=1 / 16) if name == "vgg16" else AlexNet(1 / 16)


def _prefixed(prefix: str, layer: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in layer.state_dict().items()}


def test_a_classifier_of_another_width_is_told(tmp_path: Path) -> None:
    network = FCN(2, 32, "vgg16", 1 / 16, fc_channels=16)
    state = {f"features.{key}": value for key, value in network.backbone.features.state_dict().items()}
    state |= _prefixed("classifier.0.", nn.Linear(8 * 49, 16)) | _prefixed("classifier.3.", nn.Linear(16, 16))
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EdgesegError, match=r"fc6\.weight \(16, 392\) for \(16, 32, 7, 7\)"):
        load_weights(network, tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["vgg16_bn", "alexnet", "googlenet"])
@pytest.mark.parametrize(("coarse", "fine"), [(32, 16), (16, 8), (32, 8)])
def test_a_finer_network_goes_on_where_the_coarser_one_stopped(tmp_path: Path, name: str, coarse: int, fine: int) -> None:
    donor = small(name, coarse)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    network = FCN(3, fine, name, SMALL[name]).eval()
    load_weights(network, tmp_path / "w.safetensors")
    have = len(donor.skips)
    assert all(torch.equal(network.skips[i].weight, donor.skips[i].weight) for i in range(have))
    assert not any(skip.weight.any() for skip in network.skips[have:])
    x = torch.randn(1, 3, 160, 192)
    with torch.inference_mode():
        first, second = donor(x)[..., 48:-48, 48:-48], network(x)[..., 48:-48, 48:-48]
    # Bilinear twice is bilinear once but for where the slope changes.
    assert (first - second).abs().mean() < 0.1 * first.abs().mean()


def test_a_coarser_networks_model_folder_is_a_start(tmp_path: Path) -> None:
    donor = small("alexnet", 32)
    classes = [ClassInfo(name=f"class {index}", colour=(index, 0, 0)) for index in range(3)]
    spec = InputSpec(width=64, height=64, mean=(0.5,) * 3, std=(0.2,) * 3)
    Manifest(name="coarse", classes=classes, input=spec, architecture=Architecture(name="fcn32s")).save(tmp_path / "model.json")
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    ModelFolder(tmp_path).register("model.safetensors")
    network = FCN(3, 8, "alexnet", SMALL["alexnet"])
    load_weights(network, tmp_path)
    assert torch.equal(network.fc6.weight, donor.fc6.weight)
    assert torch.equal(network.score.weight, donor.score.weight)


def test_a_finer_network_does_not_become_coarser(tmp_path: Path) -> None:
    save_file(small("vgg16", 8).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(EdgesegError, match=r"unknown \(skips\.1"):
        load_weights(FCN(3, 16, "vgg16", SMALL["vgg16"]), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_single_pool_needs_no_deeper_layers(tmp_path: Path, name: str) -> None:
    whole = FCN(3, 8, name, SMALL[name])
    sizes = [count(FCN(3, stride, name, SMALL[name], single=True).backbone) for stride in (8, 16, 32)]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == count(whole.backbone)
    network = FCN(3, 8, name, SMALL[name], single=True)
    save_file(dict(whole.backbone.state_dict()), tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors")
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, whole.backbone.state_dict()[key])


# --- training ----------------------------------------------------------------------------------------------------


def test_a_frozen_backbone_stays_as_it_is() -> None:
    network = small("vgg16_bn", freeze_backbone=True).train()
    fixed = ("backbone.", "fc6.", "fc7.", "up.")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimiser = make_optimiser(network, TrainConfig("fcn8s", "streets", weight_decay=0.5))
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimiser.step()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if not key.startswith(fixed)}


def test_the_last_upsampling_is_fixed_and_those_between_learn() -> None:
    network = FCN(3, 8, "vgg16", SMALL["vgg16"])
    assert not network.up.weight.requires_grad
    assert all(up.weight.requires_grad for up in network.ups)


def test_scales_of_the_skips() -> None:
    plain, scaled = small(), small(skip_scales=(0.5, 0.25))
    scaled.load_state_dict(plain.state_dict())
    for index, scale in enumerate((0.5, 0.25)):
        nn.init.zeros_(plain.skips[index].bias)
        nn.init.zeros_(scaled.skips[index].bias)
        with torch.no_grad():
            plain.skips[index].weight.mul_(scale)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(plain(x), scaled(x), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone": "vgg19"}, "googlenet"),
        ({"skip_scales": [1.0]}, "two factors"),
        ({"width": 0}, "width 0"),
        ({"width": 99}, "width"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told):
        models.create("fcn8s", 3, **options)


# --- export and torchvision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg16_bn", "alexnet", "googlenet"])
def test_export_agrees_at_sizes_it_was_not_traced_with(name: str) -> None:
    check_export(small(name, skip_scales=(0.5, 1.0)), ("logits",), (2, 3, 64, 96), [(2, 3, 64, 96), (1, 3, 77, 131)])


@pytest.mark.parametrize(("stride", "single"), [(32, False), (16, True)])
def test_export_of_a_fixed_size(stride: int, single: bool) -> None:
    check_export(small("vgg16", stride, single=single), ("logits",), (1, 3, 60, 80), [(1, 3, 60, 80)])


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "alexnet", "googlenet"])
def test_backbones_agree_with_torchvision(name: str, tmp_path: Path) -> None:
    theirs = getattr(torchvision_models(), name)(weights=None).eval()
    ours: nn.Module = {"alexnet": AlexNet, "googlenet": GoogLeNet}.get(name, VGG16)(*([True] if name == "vgg16_bn" else [])).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    holder = nn.Module()
    holder.backbone = ours
    load_weights(holder, tmp_path / "w.pth")
    x = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        found = ours(x) if name == "googlenet" else ours.features(x)
        if name == "googlenet":
            kept: list[torch.Tensor] = []
            theirs.inception5b.register_forward_hook(lambda module, inputs, output: kept.append(output))
            theirs(x)
            expected = kept[0]
        else:
            expected = theirs.features(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1)


def test_alexnet_takes_torchvisions_classifier_whole() -> None:
    theirs = torchvision_models().alexnet(weights=None).eval()
    network = FCN(21, 32, "alexnet").eval()
    network.load_state_dict(network.convert_state(theirs.state_dict()))
    pool = torch.rand(1, 256, 6, 6)
    with torch.inference_mode():
        expected = theirs.classifier[:-1](pool.flatten(1))
        assert torch.allclose(network._head(pool)[0, :, 2, 2], expected[0], atol=1e-4)
