"""Mask2Former: the paper's sizes, deformable and masked attention against loops, learning each task, export."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.deformable import DeformableAttention, cell_centres
from edgeseg.models.mask2former import Mask2Former, outside
from edgeseg.models.queries import Attention, draw_masks
from tests.models.exported import check_export
from tests.models.painted import found_objects, iou, overfit, scene, semantic

SMALL: dict[str, Any] = {
    "backbone": "resnet18", "backbone_options": {"width": 16}, "dim": 16, "mask_dim": 16, "heads": 2, "hidden": 32, "queries": 6,
    "layers": 3, "encoder_layers": 1, "encoder_hidden": 32, "points": 256,
}  # fmt: skip
FPN = {**SMALL, "pixel_decoder": "fpn"}
OUTPUTS = ("class_logits", "mask_logits")


@pytest.fixture(autouse=True)
def _torch_seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def make(**options: Any) -> Mask2Former:
    network = models.create("mask2former", 3, **{**SMALL, **options})
    assert isinstance(network, Mask2Former)
    return network


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "classes", "parameters"),
    [
        ({}, 133, 44_036_998),  # the paper: 44 M (R50; panoptic, instance and semantic alike)
        ({"task": "instance"}, 80, 44_023_377),
        ({"backbone": "resnet101"}, 133, 63_029_126),  # 63 M (R101)
    ],
)
def test_parameters_are_the_papers(options: dict[str, Any], classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = models.create("mask2former", classes, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# --- deformable attention ----------------------------------------------------------------------------------------


def bilinear(plane: Tensor, x: float, y: float) -> Tensor:
    """(C): plane (C, h, w) at a place in cells, whose centres are whole numbers; zero beyond the edge."""
    total = torch.zeros(plane.shape[0])
    left, top = math.floor(x), math.floor(y)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
            total += plane[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def naive_deformable(attention: DeformableAttention, query: Tensor, tokens: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """Equation 3 of Zhu et al. for one picture, place by place: (L, dim)."""
    dim, heads, points = tokens.shape[1], attention.heads, attention.points
    values = attention.value(tokens)
    planes, start = [], 0
    for height, width in sizes:
        planes.append(values[start : start + height * width].T.reshape(dim, height, width))
        start += height * width
    offsets = attention.offsets(query).reshape(len(query), heads, len(sizes), points, 2)
    weights = attention.weights(query).reshape(len(query), heads, -1).softmax(-1).reshape(len(query), heads, len(sizes), points)
    places = [((c + 0.5) / w, (r + 0.5) / h) for h, w in sizes for r in range(h) for c in range(w)]
    result = torch.zeros(len(query), dim)
    part = dim // heads
    for token, (x, y) in enumerate(places):
        for head in range(heads):
            for level, (height, width) in enumerate(sizes):
                for point in range(points):
                    dx, dy = offsets[token, head, level, point].tolist()
                    plane = planes[level][head * part : (head + 1) * part]
                    seen = bilinear(plane, x * width - 0.5 + dx, y * height - 0.5 + dy)
                    result[token, head * part : (head + 1) * part] += weights[token, head, level, point] * seen
    return attention.out(result)


def test_deformable_attention_against_loops() -> None:
    sizes = [(1, 2), (2, 3), (4, 5)]
    attention = DeformableAttention(8, 2, 3, 2)
    attention.reset()
    for layer in (attention.offsets, attention.weights):
        nn.init.normal_(layer.weight, std=0.5)
    tokens, query = torch.randn(2, 28, 8), torch.randn(2, 28, 8)
    with torch.no_grad():
        found = attention(query, tokens, cell_centres(sizes, tokens.device), sizes)
        for item in range(2):
            assert torch.allclose(found[item], naive_deformable(attention, query[item], tokens[item], sizes), atol=1e-5)


def test_heads_start_by_looking_outwards() -> None:
    attention = DeformableAttention(16, 8, 3, 4)
    attention.reset()
    offsets = attention.offsets.bias.detach().reshape(8, 3, 4, 2)
    assert torch.allclose(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]), atol=1e-6)  # to the right
    assert torch.allclose(offsets[2, 1, :, 1], torch.arange(1.0, 5), atol=1e-6)  # down
    assert torch.allclose(offsets[5, 2, 0], torch.tensor([-1.0, -1]), atol=1e-5)  # up and left
    assert not attention.offsets.weight.any() and not attention.weights.weight.any()


# --- masked attention --------------------------------------------------------------------------------------------


def test_queries_look_inside_their_masks_and_everywhere_where_these_are_empty() -> None:
    logits = torch.tensor([[[1.0, -1.0, 0.0, -3.0], [-1.0, -2.0, -0.1, -5.0], [2.0, 1.0, 3.0, 1.0]]])
    expected = [[False, True, False, True], [False] * 4, [False] * 4]
    assert outside(logits)[0].tolist() == expected
    probability = logits.sigmoid()
    assert torch.equal(outside(logits)[0, 0], (probability < 0.5)[0, 0])


def test_no_row_is_ever_blocked_as_a_whole() -> None:
    for _ in range(50):
        logits = torch.randn(2, 7, 11) * 5 - 6
        assert not outside(logits).all(-1).any()


def test_masked_attention_is_never_nan() -> None:
    attention = Attention(8, 2, 0.0)
    x, memory = torch.randn(1, 4, 8, requires_grad=True), torch.randn(1, 6, 8)
    for logits in (torch.full((1, 4, 6), -50.0), torch.full((1, 4, 6), 50.0), torch.randn(1, 4, 6)):
        y = attention(x, memory, memory, outside(logits))
        y.sum().backward()
        assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    half = attention.bfloat16()
    blocked = outside(torch.tensor([[[-1.0, 1, -1, -1, -1, -1]] * 4]))
    assert torch.isfinite(half(x.bfloat16(), memory.bfloat16(), memory.bfloat16(), blocked)).all()


def test_a_network_whose_masks_are_all_empty_still_answers() -> None:
    network = make().eval()
    with torch.no_grad():
        for layer, value in ((network.head.embedding[-1], 1.0), (network.pixels.embedding, -1.0)):
            layer.weight.zero_()
            layer.bias.fill_(value)
        classes, masks = network(torch.randn(1, 3, 64, 64))
    assert float(masks.max()) < 0
    assert torch.isfinite(classes).all()


def test_masks_of_the_resized_embedding_are_the_masks_resized() -> None:
    embedding, pixels = torch.randn(2, 5, 8), torch.randn(2, 8, 16, 24)
    for size in ((2, 3), (5, 7), (8, 12)):
        small = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        expected = F.interpolate(draw_masks(embedding, pixels), size=size, mode="bilinear", align_corners=False)
        assert torch.allclose(draw_masks(embedding, small), expected, atol=1e-5)


# --- the network -------------------------------------------------------------------------------------------------


def test_layers_go_round_the_scales_from_coarse_to_fine() -> None:
    network, seen = make(layers=4).eval(), []
    for layer in network.layers:
        layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1].shape[1]))
    with torch.inference_mode():
        network(torch.randn(1, 3, 64, 96))
    assert seen == [2 * 3, 4 * 6, 8 * 12, 2 * 3]


@pytest.mark.parametrize("options", [SMALL, FPN, {**SMALL, "layers": 0}])
def test_evaluation_gives_classes_and_masks_at_stride_4(options: dict[str, Any]) -> None:
    network = make(**options).eval()
    assert (network.task, network.kind, network.own_loss) == ("semantic", "queries", True)
    for height, width in ((64, 96), (45, 70)):
        with torch.inference_mode():
            classes, masks = network(torch.randn(2, 3, height, width))
        assert classes.shape == (2, 6, 4)
        assert masks.shape == (2, 6, -(-height // 4), -(-width // 4))
        assert torch.isfinite(classes).all() and torch.isfinite(masks).all()


def test_every_layer_and_the_queries_alone_are_supervised() -> None:
    network = make().train()
    image, target = scene()
    pixels = network.pixels(network.backbone(image.repeat(2, 1, 1, 1)))
    assert len(network._decode(pixels.scales, pixels.embedding, every=True)) == 1 + 3
    assert len(network._decode(pixels.scales, pixels.embedding, every=False)) == 1
    losses = network(image.repeat(2, 1, 1, 1), [target, target])
    assert set(losses) == {"class", "mask", "dice", "auxiliary"}
    sum(losses.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_it_learns_segments_of_things_and_stuff() -> None:
    image, target = scene()
    network = make(task="panoptic", things=[2])
    losses = overfit(network, image, target, 50)
    assert losses[-1] < losses[0] / 2
    with torch.inference_mode():
        outputs = network.eval()(image)
    assert float((semantic(outputs)[0] == target.labels).float().mean()) > 0.9
    found = found_objects(outputs, 2)
    for mask in target.masks:  # two objects of one class, told apart
        assert max(iou(mask > 0, other) for other in found) > 0.8


def test_it_learns_objects_alone_with_a_pyramid() -> None:
    image, target = scene()
    network = make(**FPN, task="instance")
    overfit(network, image, target, 50)
    with torch.inference_mode():
        outputs = network.eval()(image)
    found = found_objects(outputs, 2)
    for mask in target.masks:
        assert max(iou(mask > 0, other) for other in found) > 0.8
    assert not found_objects(outputs, 0) and not found_objects(outputs, 1)


# --- export ------------------------------------------------------------------------------------------------------


def test_export_at_one_size() -> None:
    check_export(make(), OUTPUTS, (1, 3, 64, 64), [(1, 3, 64, 64)])


@pytest.mark.slow  # torch's symbolic shapes take most of a minute for each layer: here one of every kind
def test_export_at_any_size() -> None:
    network = make(layers=1, encoder_layers=1)
    check_export(network, OUTPUTS, (1, 3, 64, 64), [(1, 3, 64, 64), (2, 3, 75, 51)])


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"), [({"pixel_decoder": "bifpn"}, "deformable or fpn"), ({"points": 0}, "1 or more"), ({"layer": 3}, "layer")]
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(EdgesegError, match=told):
        models.create("mask2former", 3, **options)
