"""Matching against every permutation, the losses of queries against plain loops, and what is matched for each task."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
from torch import Tensor

from edgeseg.errors import EdgesegError
from edgeseg.models.losses_queries import (
    DenseComparison,
    PointComparison,
    QueryLoss,
    cross_entropy_terms,
    dice_loss,
    focal_terms,
    mean_loss,
    pairwise_dice,
    pairwise_mean,
    sample_points,
    uncertain_points,
)
from edgeseg.models.matching import match
from edgeseg.models.segment_truth import SegmentTruth, segment_truth
from edgeseg.models.targets import Target


@pytest.fixture(autouse=True)
def _torch_seed() -> None:
    torch.manual_seed(0)


# --- matching ----------------------------------------------------------------------------------------------------


def least_cost(cost: np.ndarray) -> float:
    """The least total over every way to give each of the fewer a partner of its own."""
    few = cost if cost.shape[0] <= cost.shape[1] else cost.T
    choices = itertools.permutations(range(few.shape[1]), few.shape[0])
    return min(sum(few[row, column] for row, column in enumerate(choice)) for choice in choices)


@pytest.mark.parametrize(("queries", "segments"), [(1, 1), (6, 3), (5, 5), (3, 6), (7, 2)])
def test_no_permutation_costs_less(queries: int, segments: int) -> None:
    for _ in range(5):
        cost = torch.randn(queries, segments)
        chosen, given = match(cost)
        assert len(chosen) == min(queries, segments)
        assert len(set(chosen.tolist())) == len(set(given.tolist())) == len(chosen)
        assert float(cost[chosen, given].sum()) == pytest.approx(least_cost(cost.numpy()), abs=1e-5)


def test_a_greedy_choice_is_not_enough() -> None:
    chosen, given = match(torch.tensor([[1.0, 2.0], [1.5, 9.0]]))
    assert dict(zip(chosen.tolist(), given.tolist(), strict=True)) == {0: 1, 1: 0}


def test_nothing_to_match() -> None:
    chosen, given = match(torch.zeros(4, 0))
    assert len(chosen) == len(given) == 0
    assert chosen.dtype == given.dtype == torch.int64


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cost_that_is_no_number_is_told(value: float) -> None:
    with pytest.raises(EdgesegError, match=r"1 of 6 matching costs.*lower --lr"):
        match(torch.tensor([[0.0, 1.0], [value, 0.0], [0.0, 0.0]]))


# --- losses ------------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def naive_focal(logit: float, truth: float) -> float:
    p = sigmoid(logit)
    return -(0.25 * (1 - p) ** 2 * truth * math.log(p) + 0.75 * p**2 * (1 - truth) * math.log(1 - p))


def naive_cross_entropy(logit: float, truth: float) -> float:
    p = sigmoid(logit)
    return -(truth * math.log(p) + (1 - truth) * math.log(1 - p))


def naive_mean(terms: Any, logits: Tensor, truth: Tensor, weight: Tensor) -> float:
    total = sum(float(w) * terms(float(x), float(t)) for x, t, w in zip(logits, truth, weight, strict=True))
    return total / max(1.0, float(weight.sum()))


def naive_dice(logits: Tensor, truth: Tensor, weight: Tensor) -> float:
    both = size = 0.0
    for x, t, w in zip(logits, truth, weight, strict=True):
        p, g = sigmoid(float(x)) * float(w), float(t) * float(w)
        both += p * g
        size += p + g
    return 1 - (2 * both + 1) / (size + 1)


TERMS = [(focal_terms, naive_focal), (cross_entropy_terms, naive_cross_entropy)]


@pytest.mark.parametrize(("terms", "naive"), TERMS)
def test_mask_losses_against_loops(terms: Any, naive: Any) -> None:
    logits, truth, weight = torch.randn(3, 20) * 3, (torch.rand(3, 20) > 0.6).float(), (torch.rand(3, 20) > 0.2).float()
    means, dices = mean_loss(terms(logits), truth, weight), dice_loss(logits, truth, weight)
    for index in range(3):
        row = logits[index], truth[index], weight[index]
        assert float(means[index]) == pytest.approx(naive_mean(naive, *row), rel=1e-4)
        assert float(dices[index]) == pytest.approx(naive_dice(*row), rel=1e-4)


@pytest.mark.parametrize(("terms", "naive"), TERMS)
def test_costs_of_all_pairs_against_loops(terms: Any, naive: Any) -> None:
    logits, truth, weight = torch.randn(4, 15) * 3, (torch.rand(3, 15) > 0.5).float(), (torch.rand(15) > 0.3).float()
    means, dices = pairwise_mean(terms(logits), truth, weight), pairwise_dice(logits, truth, weight)
    assert means.shape == dices.shape == (4, 3)
    for query, segment in itertools.product(range(4), range(3)):
        row = logits[query], truth[segment], weight
        assert float(means[query, segment]) == pytest.approx(naive_mean(naive, *row), rel=1e-4)
        assert float(dices[query, segment]) == pytest.approx(naive_dice(*row), rel=1e-4)


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = mean_loss(focal_terms(logits), torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx((0.75 + 0.25) * 200 / 2)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("comparison", [DenseComparison(), PointComparison(200)])
def test_unknown_pixels_do_not_count(comparison: Any) -> None:
    logits = torch.randn(2, 8, 12, requires_grad=True)
    truth, valid = (torch.rand(2, 16, 24) > 0.5).float(), torch.ones(2, 16, 24)
    valid[:, :, 12:] = 0
    mask, dice = comparison.loss(logits, truth, valid)
    (mask.sum() + dice.sum()).backward()
    # Bilinear sampling reaches half a cell over the border at column 6.
    assert logits.grad[:, :, :6].abs().sum() > 0
    assert not logits.grad[:, :, 7:].any()
    cost = comparison.cost(logits.detach(), SegmentTruth(torch.tensor([0, 1]), truth, valid[0]))
    torch.manual_seed(1)
    changed = logits.detach().clone()
    changed[:, :, 7:] += 5
    torch.manual_seed(1)
    first = comparison.cost(logits.detach(), SegmentTruth(torch.tensor([0, 1]), truth, valid[0]))
    torch.manual_seed(1)
    second = comparison.cost(changed, SegmentTruth(torch.tensor([0, 1]), truth, valid[0]))
    assert cost[0].shape == (2, 2)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_points_are_read_bilinearly_at_their_pixels() -> None:
    planes = torch.randn(1, 1, 5, 7)
    x, y = 3.25, 1.75  # in pixels, whose centres lie at 0.5
    found = float(sample_points(planes, torch.tensor([[[x / 7, y / 5]]])))
    column, row = x - 0.5, y - 0.5
    left, top = int(column), int(row)
    across, down = column - left, row - top
    wanted = sum(
        float(planes[0, 0, top + dy, left + dx]) * (across if dx else 1 - across) * (down if dy else 1 - down)
        for dx, dy in itertools.product((0, 1), (0, 1))
    )
    assert found == pytest.approx(wanted, rel=1e-4)


def test_most_points_lie_where_the_mask_is_uncertain() -> None:
    # A mask whose border is the middle column: uncertainty is the distance to it.
    logits = (torch.linspace(-10, 10, 64)).expand(3, 64, 64)
    points = uncertain_points(logits, 400)
    assert points.shape == (3, 400, 2)
    assert float(points.min()) >= 0 and float(points.max()) <= 1
    distance = (points[..., 0] - 0.5).abs()
    chosen, rest = distance[:, :300], distance[:, 300:]
    assert float(chosen.max()) < 0.2  # the nearest 300 of 1200 uniform ones lie within 0.125 on the average
    assert 0.2 < float(rest.mean()) < 0.3


def naive_query_loss(loss: QueryLoss, classes: Tensor, masks: Tensor, truths: list[SegmentTruth]) -> dict[str, float]:
    """Every assignment is tried, every loss is a loop; masks are compared at the predictions' own size."""
    nothing = classes.shape[2] - 1
    entropy = weights = mask = dice = 0.0
    count = 0
    for item, truth in enumerate(truths):
        weight = truth.valid.flatten()
        flat = masks[item].flatten(1)
        probability = classes[item].softmax(-1)

        def cost(query: int, segment: int, flat: Tensor = flat, probability: Tensor = probability, truth: SegmentTruth = truth,
                 weight: Tensor = weight) -> float:  # fmt: skip
            row = flat[query], truth.masks[segment].flatten(), weight
            value = loss.mask_weight * naive_mean(naive_focal, *row) + loss.dice_weight * naive_dice(*row)
            return value - loss.class_cost * float(probability[query, truth.classes[segment]])

        segments = range(len(truth.classes))
        table = [[cost(query, segment) for segment in segments] for query in range(classes.shape[1])]
        best = min(
            itertools.permutations(range(classes.shape[1]), len(segments)),
            key=lambda choice, table=table: sum(table[query][segment] for segment, query in enumerate(choice)),
        )
        wanted = dict(zip(best, truth.classes.tolist(), strict=True))
        for query in range(classes.shape[1]):
            label = wanted.get(query, nothing)
            factor = loss.no_object if label == nothing else 1.0
            entropy -= factor * math.log(float(probability[query, label]))
            weights += factor
        for segment, query in enumerate(best):
            row = flat[query], truth.masks[segment].flatten(), weight
            mask, dice, count = mask + naive_mean(naive_focal, *row), dice + naive_dice(*row), count + 1
    return {
        "class": loss.class_weight * entropy / weights,
        "mask": loss.mask_weight * mask / count,
        "dice": loss.dice_weight * dice / count,
    }


def test_the_whole_loss_against_loops() -> None:
    classes, masks = torch.randn(2, 5, 4), torch.randn(2, 5, 4, 6) * 2
    owner = torch.randint(0, 4, (2, 4, 6))
    truths = []
    for item, kinds in enumerate(([2, 0, 2], [1, 0])):
        planes = torch.stack([(owner[item] == index).float() for index in range(len(kinds))])
        truths.append(SegmentTruth(torch.tensor(kinds), planes, (owner[item] < 3).float()))
    loss = QueryLoss(DenseComparison(), class_weight=2.0, mask_weight=20.0, dice_weight=1.0, class_cost=1.0)
    found = loss([(classes, masks)], truths)
    assert set(found) == {"class", "mask", "dice"}
    for name, value in naive_query_loss(loss, classes, masks, truths).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name
    # Deep supervision: the same loss of each earlier prediction, in one sum.
    deep = loss([(classes, masks), (classes, masks), (classes, masks)], truths)
    assert float(deep["auxiliary"]) == pytest.approx(2 * sum(float(value) for value in found.values()), rel=1e-4)


def test_a_batch_without_segments_teaches_no_object_alone() -> None:
    classes, masks = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    empty = SegmentTruth(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8), torch.ones(8, 8))
    for comparison in (DenseComparison(), PointComparison(10)):
        found = QueryLoss(comparison, 1.0, 1.0, 1.0, 1.0)([(classes, masks)], [empty, empty])
        assert float(found["mask"].detach()) == float(found["dice"].detach()) == 0
        expected = -classes.detach().log_softmax(-1)[..., 3].mean()
        assert float(found["class"].detach()) == pytest.approx(float(expected), rel=1e-5)
        sum(found.values()).backward()
        assert not masks.grad.any()


# --- what is matched ---------------------------------------------------------------------------------------------


@pytest.fixture
def target() -> Target:
    """Classes 0 and 1 are stuff, 2 and 3 things; a crowd of class 2 in the last column, an unlabelled pixel at the origin."""
    labels = torch.zeros(4, 6, dtype=torch.int64)
    labels[2:] = 1
    masks = torch.zeros(4, 4, 6, dtype=torch.uint8)
    masks[0, 1, 1:3] = 1
    masks[1, 3, 2:4] = 1
    masks[2, :, 5] = 1
    classes = torch.tensor([2, 3, 2, 3])  # the last was cropped away
    for mask, label in zip(masks, classes.tolist(), strict=True):
        labels[mask > 0] = label
    labels[0, 0] = 255
    return Target(torch.zeros(4, 4), classes, masks, torch.tensor([False, False, True, False]), labels)


def test_semantic_segments_are_the_classes_of_the_labels(target: Target) -> None:
    truth = segment_truth(target, "semantic", ())
    assert truth.classes.tolist() == [0, 1, 2, 3]
    for label, mask in zip(truth.classes, truth.masks, strict=True):
        assert torch.equal(mask, (target.labels == label).float())
    assert torch.equal(truth.valid, (target.labels != 255).float())


def test_instance_segments_are_objects_and_crowds_are_unknown(target: Target) -> None:
    truth = segment_truth(target, "instance", ())
    assert truth.classes.tolist() == [2, 3]
    assert torch.equal(truth.masks, target.masks[:2].float())
    assert not truth.valid[:, 5].any() and truth.valid[:, :5].all()


def test_panoptic_segments_partition_what_is_known(target: Target) -> None:
    truth = segment_truth(target, "panoptic", [2, 3])
    assert truth.classes.tolist() == [2, 3, 0, 1]
    assert torch.equal(truth.masks.sum(0), truth.valid)
    assert not truth.valid[0, 0] and not truth.valid[:, 5].any()
    assert int(truth.valid.sum()) == 4 * 6 - 4 - 1


def test_a_picture_of_nothing_known_has_no_segments() -> None:
    none = torch.zeros(0, 3, 3, dtype=torch.uint8)
    blank = Target(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), none, torch.zeros(0, dtype=torch.bool), torch.full((3, 3), 255)
    )
    for task in ("semantic", "panoptic"):
        truth = segment_truth(blank, task, [0])
        assert truth.masks.shape == (0, 3, 3)
        assert not truth.valid.any()
