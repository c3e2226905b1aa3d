"""MaskFormer: the paper's sizes, what training and evaluation give, queries and positions, learning each task, export."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from torch import nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.queries import Attend, Attention, sine_positions
from tests.models.exported import check_export
from tests.models.painted import overfit, scene, semantic

SMALL: dict[str, Any] = {
    "backbone": "resnet18", "backbone_options": {"width": 16}, "dim": 16, "mask_dim": 16, "heads": 2, "hidden": 32, "queries": 6,
    "layers": 2, "dropout": 0.0,
}  # fmt: skip
OUTPUTS = ("class_logits", "mask_logits")


@pytest.fixture(autouse=True)
def _torch_seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "classes", "parameters"),
    [
        ({}, 150, 41_307_863),  # the paper: 41 M (table 1, R50)
        ({"backbone": "resnet101"}, 150, 60_299_991),  # 60 M (table 1, R101)
        ({"task": "panoptic", "things": [0], "encoder_layers": 6}, 133, 45_065_158),  # 45 M (table 3, R50 + 6 encoder layers)
    ],
)
def test_parameters_are_the_papers(options: dict[str, Any], classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(models.create("maskformer", classes, **options)) == parameters


# --- parts -------------------------------------------------------------------------------------------------------


def test_attention_is_torchs() -> None:
    own, reference = Attention(16, 4, 0.0), nn.MultiheadAttention(16, 4, batch_first=True)
    parts = (own.query, own.key, own.value)
    reference.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": own.out.weight,
            "out_proj.bias": own.out.bias,
        }
    )
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    blocked = torch.rand(2, 5, 9) > 0.6
    blocked[..., 0] = False
    with torch.no_grad():
        assert torch.allclose(own(query, key, value), reference(query, key, value, need_weights=False)[0], atol=1e-6)
        masked = reference(query, key, value, attn_mask=blocked.repeat_interleave(4, 0), need_weights=False)[0]
        assert torch.allclose(own(query, key, value, blocked), masked, atol=1e-6)


def test_what_is_blocked_has_no_influence() -> None:
    step = Attend(8, 2, 0.0).eval()
    x, memory, at, where = torch.randn(1, 3, 8), torch.randn(1, 6, 8), torch.randn(1, 3, 8), torch.randn(1, 6, 8)
    blocked = torch.zeros(1, 3, 6, dtype=torch.bool)
    blocked[..., 4:] = True
    changed = memory.clone()
    changed[:, 4:] += 3
    with torch.no_grad():
        assert torch.equal(step(x, memory, at, where, blocked), step(x, changed, at, where, blocked))
        assert not torch.equal(step(x, memory, at, where), step(x, changed, at, where))


def test_positions_against_loops() -> None:
    height, width, dim = 3, 5, 16
    found = sine_positions(height, width, dim, torch.device("cpu")).reshape(height, width, dim)
    for y in range(height):
        for x in range(width):
            for channel in range(dim):
                at = (y + 1) / height if channel < dim // 2 else (x + 1) / width
                place = channel % (dim // 2)
                angle = torch.tensor(2 * torch.pi * at / 10000 ** (2 * (place // 2) / (dim // 2)))
                wanted = angle.sin() if place % 2 == 0 else angle.cos()
                assert float(found[y, x, channel]) == pytest.approx(float(wanted), abs=1e-5)


# --- the network -------------------------------------------------------------------------------------------------


def test_evaluation_gives_classes_and_masks_at_stride_4() -> None:
    network = models.create("maskformer", 5, **SMALL).eval()
    assert (network.task, network.kind, network.own_loss) == ("semantic", "queries", True)
    for height, width in ((64, 96), (45, 70)):
        with torch.inference_mode():
            classes, masks = network(torch.randn(2, 3, height, width))
        assert classes.shape == (2, 6, 6)
        assert masks.shape == (2, 6, -(-height // 4), -(-width // 4))
        assert torch.isfinite(classes).all() and torch.isfinite(masks).all()


def test_training_gives_finite_losses_and_every_weight_a_gradient() -> None:
    image, target = scene()
    for options in ({}, {"encoder_layers": 1}):
        network = models.create("maskformer", 3, **SMALL, **options).train()
        losses = network(image.repeat(2, 1, 1, 1), [target, target])
        assert set(losses) == {"class", "mask", "dice", "auxiliary"}
        sum(losses.values()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_the_last_layer_alone_answers_in_evaluation() -> None:
    network = models.create("maskformer", 3, **SMALL).eval()
    image, _ = scene()
    with torch.inference_mode():
        features = network.backbone(image)
        every = network._decode(network.project(features[3]), network.pixels(features).embedding, every=True)
        assert len(every) == 2
        for one, other in zip(every[-1], network(image), strict=True):
            assert torch.equal(one, other)


def test_it_learns_a_label_map() -> None:
    image, target = scene()
    target.labels[:4] = 255
    network = models.create("maskformer", 3, **SMALL)
    losses = overfit(network, image, target, 50)
    assert losses[-1] < losses[0] / 3
    with torch.inference_mode():
        labels = semantic(network.eval()(image))[0]
    known = target.labels != 255
    assert float((labels == target.labels)[known].float().mean()) > 0.9


# --- export ------------------------------------------------------------------------------------------------------


def test_export_at_any_size() -> None:
    network = models.create("maskformer", 3, **{**SMALL, "layers": 1}, encoder_layers=1)
    check_export(network, OUTPUTS, (1, 3, 64, 64), [(1, 3, 64, 64), (2, 3, 75, 51)])


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maskformer", "mask2former"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"task": "depth"}, "semantic, instance, panoptic"),
        ({"task": "panoptic"}, "without things"),
        ({"task": "panoptic", "things": [3]}, "indices 0..2"),
        ({"backbone": "vit_tiny"}, "resnet18"),
        ({"dim": 30}, "a multiple of 4 and of the heads"),
        ({"layers": 0, "heads": 0}, "heads"),
        ({"width": 3}, "width"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(EdgesegError, match=told) as caught:
        models.create(name, 3, **options)
    assert "\n" not in str(caught.value)
