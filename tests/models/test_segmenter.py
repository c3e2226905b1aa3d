"""Segmenter: the papers' parameter counts, timm's names, position embeddings at other sizes, padding, export and INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.vit import LAYOUTS, Block, DropPath, VisionTransformer
from edgeseg.models.segmenter import Segmenter, _span
from edgeseg.models.weights import load_weights
from tests.models.exported import check_export

SMALL: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "patch": 8, "decoder_layers": 1, "image_size": [32, 48]}


@pytest.fixture(autouse=True)
def _torch_seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- sizes and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classifier"),
    [("vit_tiny", 5_717_416), ("vit_small", 22_050_664), ("vit_base", 86_567_656), ("vit_large", 304_326_632)],
)
def test_backbones_have_the_published_parameters_but_for_the_head(name: str, classifier: int) -> None:
    """The published figures are of classifiers of 1000 classes at 224 px."""
    with torch.device("meta"):
        dim, depth, heads = LAYOUTS[name]
        assert count(VisionTransformer(dim, depth, heads, 16, (224, 224))) == classifier - 1000 * (dim + 1)


@pytest.mark.parametrize(
    ("backbone", "linear", "mask"),
    [("vit_tiny", 5.6, 6.6), ("vit_small", 21.9, 25.9), ("vit_base", 86.2, 102.2), ("vit_large", 303.8, 332.2)],
)
def test_segmenters_have_the_papers_sizes(backbone: str, linear: float, mask: float) -> None:
    """Table 1 of the paper lists 5.7, 22, 86 and 307 M for the backbones with a classifier; here with 150 classes instead."""
    with torch.device("meta"):
        for decoder, millions in (("linear", linear), ("mask", mask)):
            assert count(models.create("segmenter", 150, backbone=backbone, decoder=decoder)) / 1e6 == pytest.approx(
                millions, abs=0.05
            )


def test_a_mask_decoder_is_two_blocks_three_projections_and_a_token_for_each_class() -> None:
    dim, classes = 384, 150
    norm, linear = 2 * dim, dim * dim
    block = 2 * norm + 3 * linear + 3 * dim + linear + dim + 2 * 4 * linear + 4 * dim + dim
    with torch.device("meta"):
        decoder = models.create("segmenter", classes, backbone="vit_small").decoder
    assert count(decoder) == 2 * block + norm + (linear + dim) + 2 * linear + classes * dim + 2 * classes


def test_names_are_timms() -> None:
    linear = [
        f"{name}.{part}"
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
        for part in ("weight", "bias")
    ]
    expected = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    expected |= {f"blocks.{index}.{name}" for index in range(12) for name in linear}
    with torch.device("meta"):
        network = VisionTransformer(*LAYOUTS["vit_tiny"], 16, (384, 384))
    state = network.state_dict()
    assert set(state) == expected
    assert state["pos_embed"].shape == (1, 577, 192)
    assert state["blocks.0.attn.qkv.weight"].shape == (576, 192)


def test_weights_of_a_classifier_load_as_the_backbone(tmp_path: Path) -> None:
    source = models.create("segmenter", 3, **SMALL).backbone
    state = source.state_dict() | {"head.weight": torch.zeros(1000, 16), "head.bias": torch.zeros(1000)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "vit.safetensors")
    torch.manual_seed(1)
    network = models.create("segmenter", 3, **SMALL)
    load_weights(network, tmp_path / "vit.safetensors")
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name


# --- what is computed --------------------------------------------------------------------------------------------


def test_attention_is_torchs() -> None:
    block = Block(16, 4).eval()
    own = block.attn
    reference = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    reference.load_state_dict(
        {
            "in_proj_weight": own.qkv.weight,
            "in_proj_bias": own.qkv.bias,
            "out_proj.weight": own.proj.weight,
            "out_proj.bias": own.proj.bias,
        }
    )
    x = torch.randn(2, 7, 16)
    with torch.no_grad():
        assert torch.allclose(own(x), reference(x, x, x, need_weights=False)[0], atol=1e-6)


def test_positions_are_the_stored_ones_at_their_size_and_interpolated_at_others() -> None:
    network = VisionTransformer(4, 1, 1, 8, (32, 48))
    assert torch.equal(network._positions(4, 6), network.pos_embed[:, 1:])
    # A plane that rises by 1 a row rises by 1/2 a row on a grid twice as fine.
    with torch.no_grad():
        network.pos_embed[0, 1:] = torch.arange(4.0)[:, None, None].expand(4, 6, 4).reshape(24, 4)
        finer = network._positions(8, 12).reshape(8, 12, 4)
    assert torch.allclose(finer[1:-1], (torch.arange(1, 7) / 2 - 0.25)[:, None, None].expand(6, 12, 4), atol=1e-6)


def test_drop_path_keeps_the_mean_and_drops_whole_items() -> None:
    drop, x = DropPath(0.25).train(), torch.ones(4000, 1, 2)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y[:, :, 0], y[:, :, 1])
    assert float(y.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_patches_that_hold_the_same_swap_their_logits_without_positions(decoder: str) -> None:
    """A transformer without positions knows patches by what they hold: permuting them permutes the logits."""
    network = models.create("segmenter", 4, decoder=decoder, **SMALL).eval()
    nn.init.zeros_(network.backbone.pos_embed)
    x = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        expected = network(x).flip(3)
        flipped = x.reshape(1, 3, 32, 6, 8).flip(3).reshape(1, 3, 32, 48)
        assert torch.allclose(network(flipped), expected, atol=1e-5)


def test_logits_of_a_padded_picture_span_the_picture_alone() -> None:
    """Coarse logits that hold the pixel each cell is centred on hold, resampled, the pixels the new cells are centred on."""
    patch, height, width = 8, 27, 44
    y, x = (torch.arange(4) + 0.5) * patch, (torch.arange(6) + 0.5) * patch
    logits = torch.stack([y[:, None].expand(4, 6), x[None].expand(4, 6)])[None]
    found = _span(logits, height, width, patch)[0]
    assert torch.allclose(found[0], ((torch.arange(4) + 0.5) * height / 4).clamp(min=4)[:, None].expand(4, 6), atol=1e-4)
    assert torch.allclose(found[1], ((torch.arange(6) + 0.5) * width / 6).clamp(min=4)[None].expand(4, 6), atol=1e-4)
    assert _span(logits, 32, 48, patch) is logits


def test_what_is_beyond_the_edge_is_black_after_normalising() -> None:
    network = models.create("segmenter", 4, **SMALL).eval()
    x = torch.randn(1, 3, 27, 44)
    with torch.inference_mode():
        padded = network(F.pad(x, (0, 4, 0, 5)))
        assert torch.allclose(network(x), _span(padded, 27, 44, 8), atol=1e-6)


def test_it_learns() -> None:
    """Left and right halves of different colours are told apart after a few steps."""
    for decoder in ("linear", "mask"):
        network = models.create("segmenter", 3, decoder=decoder, drop_path=0.0, decoder_dropout=0.0, **SMALL).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        labels = torch.zeros(1, 4, 6, dtype=torch.int64)
        labels[:, :, 3:] = 1
        labels[:, 2:, 3:] = 2
        colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
        x = F.interpolate(colours[labels].permute(0, 3, 1, 2), scale_factor=8)
        losses = []
        for _ in range(40):
            loss = F.cross_entropy(network(x), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        with torch.inference_mode():
            assert torch.equal(network.eval()(x).argmax(1), labels)
        assert losses[-1] < losses[0] / 3


# --- export ------------------------------------------------------------------------------------------------------


def test_linear_export_at_one_size() -> None:
    network = models.create("segmenter", 4, decoder="linear", **SMALL)
    check_export(network, ("logits",), (1, 3, 32, 48), [(1, 3, 32, 48)])


def test_mask_export_at_any_size() -> None:
    network = models.create("segmenter", 4, decoder="mask", **SMALL)
    check_export(network, ("logits",), (1, 3, 32, 48), [(1, 3, 32, 48), (2, 3, 45, 51), (1, 3, 64, 40)])


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone": "resnet18"}, "vit_small"),
        ({"decoder": "upernet"}, "linear or mask"),
        ({"dim": 30, "heads": 4}, "a multiple of the heads"),
        ({"image_size": 100}, "multiples of the patch, 16"),
        ({"patch": 0}, "multiples of the patch"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"width": 3}, "width"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(EdgesegError, match=told) as caught:
        models.create("segmenter", 3, **options)
    assert "\n" not in str(caught.value)


def test_one_class_has_nothing_to_be_normalised_against() -> None:
    with pytest.raises(EdgesegError, match="two or more"):
        models.create("segmenter", 1, **SMALL)
    assert isinstance(models.create("segmenter", 1, decoder="linear", **SMALL), Segmenter)


def test_mask_scores_are_normalised_over_the_classes() -> None:
    network = models.create("segmenter", 5, **SMALL).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 32, 48))
    assert np.allclose(logits.mean(1), 0, atol=1e-5)
