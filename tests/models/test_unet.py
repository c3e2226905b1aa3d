"""U-Net as published: sizes, mirrored borders, the weight map against plain loops, what it learns from, export."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.targets import Target
from edgeseg.models.unet_published import (
    UNetPublished,
    border_weights,
    class_weights,
    instance_map,
    weighted_cross_entropy,
)
from tests.models.exported import check_export

SMALL = [2, 3, 4]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def small(**options: Any) -> UNetPublished:
    return UNetPublished(3, **{"widths": SMALL, **options})


def target(labels: Tensor, masks: Tensor | None = None) -> Target:
    height, width = labels.shape
    masks = torch.zeros(0, height, width, dtype=torch.uint8) if masks is None else masks
    count = len(masks)
    return Target(torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64), masks, torch.zeros(count, dtype=torch.bool), labels)


# --- figure 1 ----------------------------------------------------------------------------------------------------


def test_the_published_network() -> None:
    with torch.device("meta"):
        network = UNetPublished(2, mirror=False, in_channels=1).eval()
        logits = network(torch.empty(1, 1, 572, 572))
    assert logits.shape == (1, 2, 388, 388)
    assert network.output_size(572, 572) == (388, 388)
    assert network.margin == 92
    assert sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in network.modules()) == 23
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658


def test_deviation_of_the_first_weights() -> None:
    """Section 3: sqrt(2 / 576) where 64 channels meet a 3x3 convolution."""
    network = UNetPublished(2)
    assert float(network.encoder[0][2].weight.detach().std()) == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert float(network.up[0].weight.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.02)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_valid_sizes_are_those_that_every_pooling_halves(levels: int) -> None:
    network = small(widths=[2] * levels, mirror=False).eval()
    valid = []
    for side in range(2 * network.margin, 2 * network.margin + 30):
        size, halves = side - 4, True
        for _ in range(levels - 1):
            halves &= size % 2 == 0
            size = size // 2 - 4
        for _ in range(levels - 1):
            size = 2 * size - 4
            halves &= size > 0
        if halves:
            valid.append(side)
            network.check_size(side, side)
            with torch.inference_mode():
                assert network(torch.zeros(1, 3, side, side)).shape[2:] == network.output_size(side, side)
        else:
            with pytest.raises(EdgesegError):
                network.check_size(side, side)
    assert len(valid) >= 2


@pytest.mark.parametrize(
    ("height", "width", "told"),
    [(500, 572, "572x492 or 572x508"), (572, 580, "572x572 or 588x572"), (20, 20, "188x188"), (573, 573, "572x572 or 588x588")],
)
def test_a_size_between_names_its_neighbours(height: int, width: int, told: str) -> None:
    with torch.device("meta"):
        network = UNetPublished(2, mirror=False)
    with pytest.raises(EdgesegError, match=told) as caught:
        models.check_size(network, height, width)
    assert "\n" not in str(caught.value)


def test_mirrored_borders_need_something_to_mirror() -> None:
    with torch.device("meta"):
        network = UNetPublished(2)
    models.check_size(network, 108, 108)
    with pytest.raises(EdgesegError, match="at least 320x108"):
        models.check_size(network, 100, 320)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (37, 51)])
def test_mirroring_is_valid_convolution_of_the_mirrored_picture(height: int, width: int) -> None:
    """The overlap-tile strategy of figure 2 with one tile, whatever the size."""
    inside, outside = small(mirror=True).eval(), small(mirror=False).eval()
    outside.load_state_dict(inside.state_dict())
    x, margin = torch.randn(1, 3, height, width), inside.margin
    more = [(4 - side) % 4 for side in (height, width)]  # up to the next valid size
    padded = F.pad(x, (margin, margin + more[1], margin, margin + more[0]), mode="reflect")
    outside.check_size(padded.shape[2], padded.shape[3])
    with torch.inference_mode():
        assert torch.allclose(inside(x), outside(padded)[..., :height, :width], atol=1e-5)


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    """Two overlapping valid tiles give the logits of one picture, seam or not."""
    network = small(mirror=False).eval()
    x, margin = torch.randn(1, 3, 60, 92), network.margin
    width = 92 - 2 * margin
    with torch.inference_mode():
        whole = network(x)
        left, right = network(x[..., :60]), network(x[..., 32:])
    assert torch.allclose(whole[..., : 60 - 2 * margin], left, atol=1e-5)
    assert torch.allclose(whole[..., width - (60 - 2 * margin) :], right, atol=1e-5)


# --- equations 1 and 2 -------------------------------------------------------------------------------------------


def by_loops(instances: NDArray[np.int32], w0: float, sigma: float) -> NDArray[np.float64]:
    found = np.zeros(instances.shape)
    places = {number: np.argwhere(instances == number) for number in np.unique(instances) if number}
    for y in range(instances.shape[0]):
        for x in range(instances.shape[1]):
            distances = sorted(np.hypot(*(cells - (y, x)).T).min() for cells in places.values())
            if len(distances) > 1:
                found[y, x] = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_border_weights_are_equation_2(count: int) -> None:
    rng = np.random.default_rng(count)
    instances = np.zeros((17, 23), np.int32)
    for number in range(1, count + 1):
        y, x = rng.integers(0, 14), rng.integers(0, 20)
        instances[y : y + 4, x : x + 4] = number * 7
    weights = border_weights(instances, 10, 5)
    assert weights.dtype == np.float32
    assert np.allclose(weights, by_loops(instances, 10, 5), atol=1e-4)
    assert (weights.max() > 0) == (count > 1)


def test_border_weights_at_known_distances() -> None:
    instances = np.zeros((1, 9), np.int32)
    instances[0, 0], instances[0, 8] = 1, 2
    # At every pixel between two cells d1 + d2 is their distance.
    assert np.allclose(border_weights(instances), 10 * np.exp(-64 / 50))


def test_class_weights_balance() -> None:
    labels = torch.tensor([[[0, 0, 0, 1], [255, 0, 0, 0]]])
    full = class_weights(labels, 2, 1.0)[0]
    assert float(full[0, :3].sum() + full[1, 1:].sum()) == pytest.approx(float(full[0, 3]))
    counted = labels[0] != 255
    assert float(full[counted].mean()) == pytest.approx(1)
    assert torch.equal(class_weights(labels, 2, 0.0)[0][counted], torch.ones(7))


def test_weighted_cross_entropy_is_the_weighted_mean() -> None:
    logits, labels = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 2], [255, 1]]])
    weights = torch.tensor([[[1.0, 2.0], [100.0, 0.5]]])
    each = -logits.log_softmax(1)
    expected = (1 * each[0, 0, 0, 0] + 2 * each[0, 2, 0, 1] + 0.5 * each[0, 1, 1, 1]) / 3.5
    assert float(weighted_cross_entropy(logits, labels, weights)) == pytest.approx(float(expected), rel=1e-5)
    assert float(weighted_cross_entropy(logits, torch.full((1, 2, 2), 255), weights)) == 0


def test_later_masks_lie_over_earlier_ones() -> None:
    masks = torch.zeros(2, 2, 3, dtype=torch.uint8)
    masks[0, :, :2] = 1
    masks[1, :, 1] = 1
    assert instance_map(target(torch.zeros(2, 3, dtype=torch.int64), masks)).tolist() == [[1, 2, 0]] * 2


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"border_weight": True}, {"mirror": False}, {"mirror": False, "border_weight": True}])
def test_its_own_loss_falls(options: dict[str, Any]) -> None:
    network = small(widths=[4, 8, 8], dropout=0.0, **options).train()
    assert models.has_own_loss(network)
    image = torch.zeros(1, 3, 60, 60)
    masks = torch.zeros(2, 60, 60, dtype=torch.uint8)
    masks[0, 22:38, 21:29] = 1
    masks[1, 22:38, 31:39] = 1
    labels = masks.amax(0).long()
    image[0, :, labels > 0] = 2
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(15):
        loss = network(image, [target(labels, masks)])["segmentation"]
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_the_gap_between_two_cells_weighs_more() -> None:
    masks = torch.zeros(2, 40, 40, dtype=torch.uint8)
    masks[0, 10:30, 10:19] = 1
    masks[1, 10:30, 21:30] = 1
    labels = masks.amax(0).long()
    network = small(border_weight=True, class_balance=0.0)
    logits = torch.stack([-torch.log(torch.full((40, 40), 3.0))] * 3)[None].requires_grad_()
    network._loss(logits, [target(labels, masks)]).backward()
    assert logits.grad is not None
    strength = logits.grad[0].abs().sum(0)
    assert strength[20, 19] > 5 * strength[20, 2]


def test_without_a_weight_map_it_learns_as_others_do() -> None:
    assert not models.has_own_loss(small())
    assert small().train()(torch.zeros(1, 3, 40, 40)).shape == (1, 3, 40, 40)


@pytest.mark.parametrize(("options", "told"), [({"widths": [4]}, "two levels"), ({"sigma": 0}, "sigma"), ({"w0": -1}, "w0")])
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told):
        models.create("unet_published", 2, **options)


# --- export ------------------------------------------------------------------------------------------------------


def test_export_agrees_at_a_size_it_was_not_traced_with() -> None:
    check_export(small(), ("logits",), (2, 3, 40, 56), [(2, 3, 40, 56), (1, 3, 37, 75)])


def test_export_of_valid_sizes() -> None:
    check_export(small(mirror=False), ("logits",), (1, 3, 60, 76), [(1, 3, 60, 76)])
