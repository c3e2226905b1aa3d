"""Suppression in rounds against the plain greedy loop, and how many rounds it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="networks need the train extra")

from torch import Tensor  # noqa: E402

from edgeseg.models.detection.nms import ROUNDS, suppress  # noqa: E402


def greedy(boxes: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """(N) bool: the definition, box by box, best first."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in range(len(boxes)):
        low, high = torch.maximum(boxes[index, :2], boxes[kept, :2]), torch.minimum(boxes[index, 2:], boxes[kept, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        near = shared > threshold * (areas[index] + areas[kept] - shared)
        if labels is not None:
            near &= labels[kept] == labels[index]
        if not near.any():
            kept.append(index)
    result = torch.zeros(len(boxes), dtype=torch.bool)
    result[kept] = True
    return result


def some_boxes(count: int, seed: int, spread: float = 60.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    return torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=generator)], 1)


def everyone(boxes: Tensor) -> Tensor:
    return torch.ones(len(boxes), dtype=torch.bool)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_random_boxes_are_kept_as_by_the_loop(seed: int, threshold: float) -> None:
    boxes = some_boxes(200, seed)
    labels = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(seed))
    for given in (None, labels):
        wanted = greedy(boxes, threshold, given)
        assert 0 < wanted.sum() < 200
        assert torch.equal(suppress(boxes, everyone(boxes), threshold, given), wanted)
        assert torch.equal(suppress(boxes, everyone(boxes), threshold, given, rounds=None), wanted)


def test_boxes_that_are_not_valid_neither_stay_nor_suppress() -> None:
    boxes = some_boxes(100, 7)
    valid = torch.rand(100, generator=torch.Generator().manual_seed(1)) < 0.5
    found = suppress(boxes, valid, 0.5)
    assert not found[~valid].any()
    assert torch.equal(found[valid], greedy(boxes[valid], 0.5))


def test_no_boxes() -> None:
    assert suppress(torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), 0.5).shape == (0,)


def chain(length: int) -> Tensor:
    """Boxes each of which overlaps its neighbours alone above IoU 0.5: greedy suppression keeps every other one."""
    low = 3.0 * torch.arange(length)
    return torch.stack([low, torch.zeros(length), low + 10, torch.full((length,), 10.0)], 1)


def test_a_chain_takes_as_many_rounds_as_it_has_boxes_and_errs_on_a_known_side_before() -> None:
    boxes = chain(20)
    wanted = greedy(boxes, 0.5)
    assert torch.equal(wanted, torch.arange(20) % 2 == 0)
    assert not torch.equal(suppress(boxes, everyone(boxes), 0.5, rounds=10), wanted)
    assert torch.equal(suppress(boxes, everyone(boxes), 0.5, rounds=20), wanted)
    for rounds in range(1, 20):
        found = suppress(boxes, everyone(boxes), 0.5, rounds=rounds)
        # Of a chain, the first boxes are right, one more a round; even rounds keep too many, odd ones too few.
        assert torch.equal(found[:rounds], wanted[:rounds])
        assert bool((found >= wanted).all()) if rounds % 2 == 0 else bool((found <= wanted).all())
    assert ROUNDS % 2 == 0


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_real_objects_with_jitter_settle_in_the_default_rounds(shared_data: Path, threshold: float) -> None:
    """Twenty shaken copies of every object of a photo, as a detector proposes them, in the order of a score."""
    path = shared_data / "coco_subset/annotations/instances_val2017.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    by_picture: dict[int, list[list[float]]] = {}
    for item in json.loads(path.read_text())["annotations"]:
        by_picture.setdefault(item["image_id"], []).append(item["bbox"])
    generator = torch.Generator().manual_seed(0)
    for rows in list(by_picture.values())[:40]:
        x, y, width, height = torch.tensor(rows).repeat_interleave(20, 0).unbind(1)
        boxes = torch.stack([x, y, x + width, y + height], 1)
        size = torch.stack([width, height, width, height], 1)
        boxes = boxes + 0.15 * size * torch.randn(boxes.shape, generator=generator)
        boxes = boxes[torch.randperm(len(boxes), generator=generator)][:300]
        assert torch.equal(suppress(boxes, everyone(boxes), threshold), greedy(boxes, threshold))
