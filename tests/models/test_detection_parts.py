"""Boxes, anchors, assignment, sampling, pooling and losses of the detectors, by hand and by torch's own functions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need the train extra")

from edgeseg.models.detection.anchors import anchor_grid, cell_anchors  # noqa: E402
from edgeseg.models.detection.assign import IGNORED, NOTHING, assign, sample  # noqa: E402
from edgeseg.models.detection.boxes import covered, decode, encode, iou  # noqa: E402
from edgeseg.models.detection.keypoints import places_of, points_of  # noqa: E402
from edgeseg.models.detection.losses import delta_loss, keypoint_loss, mask_loss, objectness_loss  # noqa: E402
from edgeseg.models.detection.pooling import Pooling, crop_masks  # noqa: E402

NONE = torch.zeros(0, 4)


def test_overlaps_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20]])
    assert iou(boxes, boxes)[0, 1] == pytest.approx(50 / 150)
    assert iou(boxes, boxes)[2, 2] == 0
    assert covered(boxes, torch.tensor([[0.0, 0, 12, 10]])).tolist() == pytest.approx([1.0, 0.7, 0.0])
    assert covered(boxes, NONE).tolist() == [0, 0, 0]


def test_decoding_undoes_encoding_and_stays_in_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(50, 2, 2, generator=generator) * 60
    boxes, truth = torch.cat([low, low + 1 + 30 * torch.rand(50, 2, 2, generator=generator)], 2).unbind(1)
    weights = (10.0, 10.0, 5.0, 5.0)
    assert torch.allclose(decode(encode(truth, boxes, weights), boxes, weights, 100, 100), truth, atol=1e-3)
    wild = decode(torch.full((50, 4), 1e4), boxes, weights, 80, 90)
    assert wild.isfinite().all()
    assert (wild[:, 2] <= 90).all()
    assert (wild[:, 3] <= 80).all()


def test_anchors_have_their_area_and_ratio_and_lie_on_the_grid() -> None:
    cells = torch.tensor(cell_anchors(32))
    width, height = (cells[:, 2:] - cells[:, :2]).unbind(1)
    assert (height / width).tolist() == pytest.approx([0.5, 1, 2], rel=0.05)
    assert (height * width).sqrt().tolist() == pytest.approx([32] * 3, rel=0.02)
    grid = anchor_grid(torch.zeros(1, 8, 3, 5), 16, cells.tolist())
    assert grid.shape == (3 * 5 * 3, 4)
    # Row 2, column 4, ratio 1: around (64, 32).
    assert grid[(2 * 5 + 4) * 3 + 1].tolist() == [64 - 16, 32 - 16, 64 + 16, 32 + 16]


def test_assignment() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 5], [30, 30, 40, 40], [51, 54, 61, 64], [80, 80, 90, 90]])
    crowd = torch.tensor([[79.0, 79, 100, 100]])
    assert assign(boxes, objects, crowd, 0.3, 0.7, every=False).tolist() == [0, IGNORED, NOTHING, IGNORED, IGNORED]
    # The second object takes what overlaps it most.
    assert assign(boxes, objects, crowd, 0.3, 0.7, every=True).tolist() == [0, IGNORED, NOTHING, 1, IGNORED]
    assert assign(boxes, NONE, crowd, 0.3, 0.7, every=True).tolist() == [NOTHING] * 4 + [IGNORED]
    assert assign(boxes, NONE, NONE, 0.3, 0.7, every=True).tolist() == [NOTHING] * 5


def test_sampling_follows_torchs_seed_and_keeps_its_shares() -> None:
    match = torch.cat([torch.arange(100), torch.full((500,), NOTHING), torch.full((50,), IGNORED)])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(sample(match, 64, 0.25))
    (objects, others), again, different = drawn
    assert len(objects) == 16
    assert len(others) == 48
    assert (match[objects] >= 0).all()
    assert (match[others] == NOTHING).all()
    assert torch.equal(objects, again[0])
    assert torch.equal(others, again[1])
    assert not torch.equal(objects, different[0])
    few, rest = sample(match[98:], 64, 0.25)
    assert (len(few), len(rest)) == (2, 62)


def test_losses_of_nothing_are_zero_and_finite() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    logits = torch.randn(5, requires_grad=True)
    masks, points = torch.randn(0, 3, 28, 28, requires_grad=True), torch.randn(0, 2, 56, 56, requires_grad=True)
    losses = [
        objectness_loss(logits, none, none),
        delta_loss(logits[:0].view(0, 4), torch.zeros(0, 4), 0),
        mask_loss(masks, none, torch.zeros(0, 28, 28)),
        keypoint_loss(points, torch.zeros(0, 2, dtype=torch.int64)),
        keypoint_loss(torch.randn(3, 2, 56, 56, requires_grad=True), torch.full((3, 2), -1)),
    ]
    assert [float(loss.detach()) for loss in losses] == [0.0] * 5
    torch.stack(losses).sum().backward()
    assert not logits.grad.any()


def test_losses_by_torchs_own_functions() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(40, generator=generator)
    found = objectness_loss(logits, torch.tensor([1, 2]), torch.tensor([5, 6, 7]))
    truth = torch.tensor([1.0, 1, 0, 0, 0])
    assert found == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy_with_logits(logits[[1, 2, 5, 6, 7]], truth)), rel=1e-6
    )
    # The mask of another class has no say: half a bit a pixel wrong for the true one.
    masks = torch.zeros(2, 3, 4, 4)
    masks[:, 0] = 100
    assert float(mask_loss(masks, torch.tensor([1, 2]), torch.ones(2, 4, 4))) == pytest.approx(0.6931, abs=1e-4)
    points = torch.zeros(1, 2, 56, 56)
    assert float(keypoint_loss(points, torch.tensor([[3, -1]]))) == pytest.approx(float(torch.log(torch.tensor(3136.0))), rel=1e-5)


def test_masks_are_cropped_to_their_boxes() -> None:
    mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
    mask[0, 10:20, 10:30] = 1
    inside = crop_masks(mask, torch.tensor([[10.0, 10, 30, 20]]), 28)
    assert inside[0, 3:-3, 3:-3].min() == 1
    half = crop_masks(mask, torch.tensor([[0.0, 10, 20, 20]]), 28)[0]
    assert half[3:-3, :13].max() == 0
    assert half[3:-3, 15:].min() == 1
    assert crop_masks(mask[:0], NONE, 28).shape == (0, 28, 28)


def test_keypoints_travel_to_places_and_back_within_half_a_place() -> None:
    boxes = torch.tensor([[10.0, 20, 66, 132]])
    points = torch.tensor([[[11.2, 21.0, 2], [66.0, 132, 1], [40.3, 77.7, 0], [5.0, 50, 2]]])
    places = places_of(points, boxes, 56)
    assert places.tolist() == [[1, 55 * 56 + 55, -1, -1]]
    logits = torch.zeros(1, 2, 56, 56)
    logits.view(1, 2, -1)[0, [0, 1], places[0, :2]] = 20.0
    found = points_of(logits, boxes)[0]
    assert (found[:, :2] - points[0, :2, :2]).abs().max() <= 1.0
    assert found[0, :2].tolist() == pytest.approx([11.5, 21.0])
    assert (found[:, 2] > 0.99).all()


def test_boxes_are_read_from_the_level_of_their_size() -> None:
    levels = [torch.full((1, 2, 256 // stride, 256 // stride), float(stride)) for stride in (4, 8, 16, 32, 64)]
    boxes = torch.tensor([[10.0, 10, 60, 60], [10, 10, 130, 130], [0, 0, 224, 224], [-200, -200, 256, 256]])
    # Sides of 50, 120 and 224 px belong to P2, P3 and P4; 456 to P5, a part of which lies outside.
    pooled = Pooling(samples=1)(levels, [boxes], 7)
    assert pooled.shape == (4, 2, 7, 7)
    assert pooled[:, 0, -1, -1].tolist() == pytest.approx([4, 8, 16, 32], rel=1e-5)
    # ONNX's maximum is of weighted neighbours: between a quarter of equal pixels and the whole.
    share = Pooling(mode="max", samples=1)(levels, [boxes], 7)[:, 0, -1, -1] / pooled[:, 0, -1, -1]
    assert ((share >= 0.25) & (share <= 1)).all()
    assert Pooling(samples=1)(levels, [boxes[:0]], 7).shape == (0, 2, 7, 7)
