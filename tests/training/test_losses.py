"""Losses, class weights, schedule and weight average against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
import torch
from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.training.config import TrainConfig
from edgeseg.training.losses import cross_entropy, dice, make_loss, median_frequency_weights, ohem, shrink_labels
from edgeseg.training.optimiser import WeightAverage, learning_rate, make_optimiser


def logits_for(probabilities: list[list[float]]) -> torch.Tensor:
    """(1, C, 1, n) logits whose softmax is, pixel by pixel, the rows given."""
    return torch.tensor(probabilities).log().T[None, :, None]


# --- class weights -----------------------------------------------------------------------------------------------


def test_median_frequencies_count_only_pictures_that_have_the_class() -> None:
    first = np.array([[0, 0, 0, 1]], np.uint8)  # class 0: 3 of 4, class 1: 1 of 4
    second = np.array([[0, 2, 255, 255]], np.uint8)  # of 2 labelled pixels: class 0 one, class 2 one
    # Shares: 0: 4 / 6, 1: 1 / 4, 2: 1 / 2; the median is 1 / 2; class 3 is never seen.
    expected = [0.5 / (4 / 6), 0.5 / 0.25, 1, 1]
    assert median_frequency_weights([first, second], 4) == pytest.approx(expected)
    assert median_frequency_weights([first, second], 4, power=0.5) == pytest.approx(np.sqrt(expected))


# --- losses ------------------------------------------------------------------------------------------------------


def test_cross_entropy_by_hand() -> None:
    logits, labels = logits_for([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]]), torch.tensor([[[0, 0, 255]]])
    plain = -(math.log(0.7) + math.log(0.4)) / 2
    assert float(cross_entropy(logits, labels)) == pytest.approx(plain, rel=1e-5)
    labels = torch.tensor([[[0, 1, 255]]])
    weighted = -(3 * math.log(0.7) + 1 * math.log(0.6)) / 4
    assert float(cross_entropy(logits, labels, torch.tensor([3.0, 1.0]))) == pytest.approx(weighted, rel=1e-5)


def test_ohem_keeps_the_hard_pixels() -> None:
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    logits = logits_for([[0.99, 0.01], [0.69, 0.31], [0.2, 0.8], [0.9, 0.1]])
    expected = -(math.log(0.69) + math.log(0.2)) / 2  # below 0.7
    assert float(ohem(logits, labels)) == pytest.approx(expected, rel=1e-5)
    # Where all are easy, the hardest share of them counts.
    easy = logits_for([[0.99, 0.01], [0.95, 0.05], [0.9, 0.1], [0.8, 0.2]])
    assert float(ohem(easy, labels, keep=0.5)) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, rel=1e-5)


def test_ohem_chooses_by_probability_and_then_weighs() -> None:
    logits, labels = logits_for([[0.5, 0.5], [0.01, 0.99]]), torch.tensor([[[0, 1]]])
    assert float(ohem(logits, labels, torch.tensor([2.0, 100.0]))) == pytest.approx(-2 * math.log(0.5), rel=1e-5)


def test_dice_by_hand() -> None:
    logits, labels = logits_for([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]]), torch.tensor([[[0, 1, 255]]])
    first = (2 * 0.8 + 1) / (0.8**2 + 0.3**2 + 1 + 1)
    second = (2 * 0.6 + 1) / (0.1**2 + 0.6**2 + 1 + 1)
    assert float(dice(logits, labels)) == pytest.approx(1 - (first + second) / 2, rel=1e-5)  # class 2 is not there


@pytest.mark.parametrize("name", ["ce", "ohem", "dice", "ce+dice", "ohem+dice"])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_nothing_labelled_gives_zero_and_finite_gradients(name: str, weights: torch.Tensor | None) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = make_loss(name, weights)(logits, torch.full((2, 8, 8), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_terms_add_up_and_coarse_logits_are_enlarged() -> None:
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 8, 8))
    large = nn.functional.interpolate(logits, size=(8, 8), mode="bilinear")
    assert float(make_loss("ce")(logits, labels)) == pytest.approx(float(cross_entropy(large, labels)))
    both = make_loss("ce+dice")(logits, labels)
    assert float(both) == pytest.approx(float(make_loss("ce")(logits, labels) + make_loss("dice")(logits, labels)))


@pytest.mark.parametrize("name", ["", "focal", "ce+", "ce+focal"])
def test_unknown_loss(name: str) -> None:
    with pytest.raises(EdgesegError, match="ce, ohem, dice"):
        make_loss(name)


def test_labels_shrink_to_the_pixels_at_the_cells_centres() -> None:
    labels = torch.arange(64).view(1, 8, 8)
    assert shrink_labels(labels, (2, 2))[0].tolist() == [[18, 22], [50, 54]]
    assert shrink_labels(torch.full((1, 6, 6), 255), (3, 3)).unique().tolist() == [255]


# --- schedule, optimiser, average --------------------------------------------------------------------------------


def test_poly_schedule_with_warm_up() -> None:
    config = TrainConfig("unet", "streets", epochs=10, lr=0.1, power=0.9, warmup=2)
    assert learning_rate(config, 0) < 1e-3 * config.lr
    assert learning_rate(config, 1) == pytest.approx(0.1 * (1.001 / 2) * 0.9**0.9)
    assert learning_rate(config, 5) == pytest.approx(0.1 * 0.5**0.9)
    assert learning_rate(config, 10) == 0
    falling = [learning_rate(config, step / 4) for step in range(8, 41)]
    assert falling == sorted(falling, reverse=True)
    assert learning_rate(TrainConfig("unet", "streets", epochs=10, lr=0.1, warmup=0), 0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_and_normalisation_are_not_decayed(name: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimiser = make_optimiser(network, TrainConfig("unet", "streets", optimiser=name, weight_decay=0.3))
    groups = {group["weight_decay"]: [tuple(p.shape) for p in group["params"]] for group in optimiser.param_groups}
    assert groups == {0.3: [(4, 3, 1, 1)], 0.0: [(4,), (4,), (4,)]}


def test_weight_average() -> None:
    network = nn.BatchNorm2d(1)
    average = WeightAverage(network, 0.9)
    value, weight = 1.0, 1.0
    for step in range(1, 31):
        with torch.no_grad():
            network.weight.fill_(step)
            network.num_batches_tracked.fill_(step)
        average.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * step
        weight = float(average.network.weight)
        assert weight == pytest.approx(value, rel=1e-5)
    assert int(average.network.num_batches_tracked) == 30
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
