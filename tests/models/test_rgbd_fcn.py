"""FCNs on depth, on several label spaces and from image-level labels: shapes, weights, losses by hand, learning, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.fcn import FCN
from edgeseg.models.joint import JointFCN, masked_cross_entropy
from edgeseg.models.mil_fcn import MilFCN, classifier_loss, mil_loss
from edgeseg.models.rgbd_fcn import EarlyFCN, LateFCN, join_streams
from edgeseg.models.targets import Target
from edgeseg.models.weights import load_weights
from tests.models.exported import check_export

SMALL: dict[str, Any] = {"backbone": "vgg16_bn", "width": 1 / 16, "fc_channels": 16, "dropout": 0.0}


def shake(network: nn.Module) -> nn.Module:
    """Scores start at zero; tests want other ones."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "score" in name or "skips" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def target(labels: Tensor, *spaces: Tensor) -> Target:
    height, width = labels.shape
    empty = torch.zeros((0, height, width), dtype=torch.uint8)
    return Target(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), empty, torch.zeros(0, dtype=torch.bool), labels, spaces=list(spaces)
    )


@pytest.mark.parametrize(("fusion", "channels"), [("rgb", 3), ("hha", 3), ("early", 4), ("late", 6)])
def test_channels_follow_the_fusion_and_the_fusion_the_channels(fusion: str, channels: int) -> None:
    network = models.create("rgbd_fcn", 5, fusion=fusion, **SMALL).eval()
    assert network(torch.zeros(1, channels, 50, 70)).shape == (1, 5, 50, 70)
    other = models.create("rgbd_fcn", 5, in_channels=channels, **SMALL)
    assert type(other) is type(network)


def test_fusions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EdgesegError, match="'late' of 4 channels"):
        models.create("rgbd_fcn", 5, fusion="late", in_channels=4, **SMALL)
    with pytest.raises(EdgesegError, match="fusion 'both'"):
        models.create("rgbd_fcn", 5, fusion="both", **SMALL)


def test_depth_starts_with_the_mean_of_the_colours_weights(tmp_path: Path) -> None:
    colours = shake(FCN(5, **SMALL))
    save_file(colours.state_dict(), tmp_path / "colours.safetensors")
    network = models.create("rgbd_fcn", 5, fusion="early", **SMALL)
    load_weights(network, tmp_path / "colours.safetensors")
    assert isinstance(network, EarlyFCN)
    found = network.backbone.features[0].weight
    wanted = colours.backbone.features[0].weight
    assert torch.equal(found[:, :3], wanted) and torch.equal(found[:, 3], wanted.mean(dim=1))
    # On unknown depth, which is 0 here, nothing has changed.
    x = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        assert torch.allclose(network.eval()(torch.cat([x, torch.zeros(1, 1, 40, 56)], 1)), colours.eval()(x), atol=1e-5)
    save_file(network.state_dict(), tmp_path / "early.safetensors")
    load_weights(models.create("rgbd_fcn", 5, fusion="early", **SMALL), tmp_path / "early.safetensors")


def test_two_trained_networks_become_one_whose_scores_are_their_mean(tmp_path: Path) -> None:
    colours, geometry = (shake(FCN(5, **SMALL)).eval() for _ in range(2))
    with torch.no_grad():
        for parameter in geometry.parameters():
            parameter.mul_(1.1)
    save_file(join_streams(colours.state_dict(), geometry.state_dict()), tmp_path / "late.safetensors")
    network = models.create("rgbd_fcn", 5, fusion="late", **SMALL).eval()
    load_weights(network, tmp_path / "late.safetensors")
    x = torch.randn(2, 6, 48, 64)
    with torch.inference_mode():
        wanted = (colours(x[:, :3]) + geometry(x[:, 3:])) / 2
        assert torch.allclose(network(x), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_late_fusion_takes_one_networks_weights_for_both_streams(tmp_path: Path) -> None:
    colours = shake(FCN(5, **SMALL)).eval()
    save_file(colours.state_dict(), tmp_path / "one.safetensors")
    network = models.create("rgbd_fcn", 5, fusion="late", **SMALL).eval()
    load_weights(network, tmp_path / "one.safetensors")
    assert isinstance(network, LateFCN)
    x = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        assert torch.allclose(network(torch.cat([x, x], 1)), colours(x), atol=1e-4)


def test_joint_losses_are_one_cross_entropy_a_space() -> None:
    network = shake(JointFCN(4, [3], **SMALL)).train()
    x = torch.randn(2, 3, 32, 48)
    generator = torch.Generator().manual_seed(0)
    labels, space = (torch.randint(0, count, (2, 32, 48), generator=generator) for count in (4, 3))
    labels[:, :5], space[1] = 255, 255
    losses = network(x, [target(labels[i], space[i]) for i in range(2)])
    logits = network(x)
    assert logits.shape == (2, 7, 32, 48) and set(losses) == {"labels", "space_1"}
    assert torch.allclose(losses["labels"], F.cross_entropy(logits[:, :4], labels, ignore_index=255), atol=1e-5)
    assert torch.allclose(losses["space_1"], F.cross_entropy(logits[:, 4:], space, ignore_index=255), atol=1e-5)
    assert masked_cross_entropy(logits[:, :4], torch.full_like(labels, 255)) == 0


def test_joint_spaces_share_all_but_their_scores() -> None:
    plain, joint = FCN(4, **SMALL), JointFCN(4, [3, 2], **SMALL)
    differ = {name for name, value in joint.state_dict().items() if plain.state_dict()[name].shape != value.shape}
    assert differ == {name for name in joint.state_dict() if name.startswith(("score", "skips", "up"))}


def test_mil_loss_is_equation_1() -> None:
    scores = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    present = torch.tensor([[True, False, True, False], [True, True, True, True]])
    wanted = 0.0
    for image in range(2):
        p = np.exp(scores[image].numpy().astype(np.float64))
        p /= p.sum(axis=0)
        listed = [label for label in range(4) if present[image, label]]
        wanted -= sum(np.log(p[label].max()) for label in listed) / len(listed) / 2
    assert abs(float(mil_loss(scores, present)) - wanted) < 1e-5
    assert mil_loss(scores, torch.zeros(2, 4, dtype=torch.bool)) == 0


def test_mil_reads_only_which_classes_occur() -> None:
    network = shake(MilFCN(4, stride=8, **SMALL)).eval()
    x = torch.randn(1, 3, 64, 64)
    labels = torch.zeros(64, 64, dtype=torch.int64)
    labels[10:20], labels[40:50] = 2, 255
    shuffled = labels.flatten()[torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))].view(64, 64)
    losses = [network(x, [target(item)])["mil"] for item in (labels, shuffled)]
    assert torch.equal(losses[0], losses[1])
    present = torch.tensor([[True, False, True, False]])
    assert torch.allclose(losses[0], mil_loss(network.coarse_scores(x), present))
    without = shake(MilFCN(4, background=False, stride=8, **SMALL)).eval()
    only = torch.full((64, 64), 2)
    assert torch.allclose(without(x, [target(only)])["mil"], mil_loss(without.coarse_scores(x), present & torch.arange(4).ne(0)))


def test_the_baseline_classifies_images_and_lets_background_score_zero() -> None:
    network = shake(MilFCN(4, baseline=True, stride=8, **SMALL)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert not network(x)[:, 0].any() and network(x)[:, 1:].any()
        labels = torch.full((64, 64), 3)
        loss = network(x, [target(labels)])["classifier"]
        mean = network.coarse_scores(x)[:, 1:].mean(dim=(2, 3))
    assert torch.allclose(loss, F.binary_cross_entropy_with_logits(mean, torch.tensor([[0.0, 0.0, 1.0]])))
    assert classifier_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3)).item() == pytest.approx(np.log(2))


def test_mil_starts_from_a_classifiers_last_layer(tmp_path: Path) -> None:
    options = {**SMALL, "fc_channels": 16}
    network = MilFCN(4, init_from_classifier=[None, 7, 0, 9], **options)
    own = network.state_dict()
    classifier = {name.removeprefix("backbone."): tensor for name, tensor in own.items() if name.startswith("backbone.")}
    generator = torch.Generator().manual_seed(2)
    channels = own["fc6.weight"].shape[1]
    shapes = {"classifier.0": (16, channels * 49), "classifier.3": (16, 16), "classifier.6": (10, 16)}
    for name, shape in shapes.items():
        classifier[f"{name}.weight"] = torch.randn(shape, generator=generator)
        classifier[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    save_file(classifier, tmp_path / "classifier.safetensors")
    load_weights(network, tmp_path / "classifier.safetensors")
    weight, bias = classifier["classifier.6.weight"], classifier["classifier.6.bias"]
    assert not network.score.weight[0].any() and network.score.bias[0] == 0
    for label, row in ((1, 7), (2, 0), (3, 9)):
        assert torch.equal(network.score.weight[label, :, 0, 0], weight[row]) and network.score.bias[label] == bias[row]


def squares(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a square of either, both or none of two colours."""
    rng = np.random.default_rng(seed)
    images, labels = rng.normal(0, 0.3, (count, 3, 48, 48)), np.zeros((count, 48, 48), np.int64)
    for image, truth in zip(images, labels, strict=True):
        for kind in (1, 2):
            if rng.random() < 0.5:
                y, x = rng.integers(0, 28, 2)
                image[:, y : y + 20, x : x + 20] = rng.normal(0, 0.3, (3, 20, 20))
                image[kind - 1, y : y + 20, x : x + 20] += 1.5
                truth[y : y + 20, x : x + 20] = kind
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


def mean_iou(network: nn.Module, classes: int) -> float:
    images, labels = squares(32, 999)
    with torch.inference_mode():
        found = network.eval()(images).argmax(1)
    network.train()
    pairs = [((found == c), (labels == c)) for c in range(classes)]
    return float(np.mean([float((a & b).sum() / (a | b).sum()) for a, b in pairs]))


def test_mil_places_classes_better_than_the_classifier_that_it_starts_from() -> None:
    torch.manual_seed(0)
    network = MilFCN(3, stride=8, classifier_batches=80, **SMALL).train()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    told = []
    for step in range(102):
        if step == 80:
            network.baseline = True
            baseline = mean_iou(network, 3)
            network.baseline = False
            optimiser.param_groups[0]["lr"] = 1e-3
        images, labels = squares(8, step)
        ((name, loss),) = network(images, [target(item) for item in labels]).items()
        told.append(name)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert told == ["classifier"] * 80 + ["mil"] * 22
    assert mean_iou(network, 3) > baseline + 0.08


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("rgbd_fcn", {"fusion": "early"}, 4),
        ("rgbd_fcn", {"fusion": "late"}, 6),
        ("joint_fcn", {"extra_classes": [3]}, 3),
        ("mil_fcn", {"stride": 32, "baseline": True, "classifier_batches": 5}, 3),
    ],
)
def test_exports_agree(name: str, options: dict[str, Any], channels: int) -> None:
    small = {**SMALL, "backbone": "alexnet"}
    network = shake(models.create(name, 5, **options, **small))
    check_export(network, ("logits",), (1, channels, 64, 96), [(1, channels, 64, 96), (1, channels, 72, 88)])
