"""Pasting, merging and the choice among queries against float64 numpy that spells out the definitions, at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.native import reference, scene

sides = st.integers(1, 40)
seeds = st.integers(0, 10**6)


# --- pasting -------------------------------------------------------------------------------------------------------


def pasted_values(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every pixel's value (H, W) float64: bilinear between the cells' centres, zeros around the mask."""
    padded = np.pad(mask.astype(np.float64), 1)

    def taps(low: float, high: float, cells: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.clip((np.arange(pixels) + 0.5 - low) / (high - low) * cells - 0.5, -1, cells)
        first = np.minimum(np.floor(at), cells - 1)
        return first.astype(int) + 1, at - first

    x1, y1, x2, y2 = box.astype(np.float64)
    row, way = taps(y1, y2, mask.shape[0], size[0])
    column, along = taps(x1, x2, mask.shape[1], size[1])
    rows = padded[row] * (1 - way)[:, None] + padded[row + 1] * way[:, None]
    return rows[:, column] * (1 - along) + rows[:, column + 1] * along


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Also smaller than a pixel, and reaching out of the picture."""
    height, width = size
    corner = rng.uniform(-0.5, 1.2, (count, 2)) * (width, height)
    extent = rng.choice([0.02, 0.3, 1.5], (count, 2)) * rng.uniform(0.5, 1, (count, 2)) * (width, height)
    return np.concatenate([corner, corner + extent], axis=1).astype(np.float32)


@given(m=st.sampled_from([(28, 28), (1, 1), (7, 3)]), H=sides, W=sides, threshold=st.sampled_from([0.0, 0.2, 0.5, 0.9]), seed=seeds)
def test_pasting_matches_the_reference_but_for_rounding(m, H, W, threshold, seed):
    rng = np.random.default_rng(seed)
    masks, boxes = rng.random((4, *m)).astype(np.float32), random_boxes(rng, 4, (H, W))
    got = scene.paste_masks(masks, boxes, (H, W), threshold)
    assert got.shape == (4, H, W) and got.dtype == np.uint8
    for mask, box, found in zip(masks, boxes, got, strict=True):
        values = pasted_values(mask, box, (H, W))
        clear = np.abs(values - threshold) > 2e-6
        assert np.array_equal(found[clear], (values > threshold)[clear])
        assert not found[values == 0].any()


def test_pasting_matches_grid_sample():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    size, count = (120, 160), 30
    masks, boxes = rng.random((count, 28, 28)).astype(np.float32), random_boxes(rng, count, size)
    theirs = []
    for mask, (x1, y1, x2, y2) in zip(torch.from_numpy(masks), torch.from_numpy(boxes), strict=True):
        x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        theirs.append(torch.nn.functional.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] > 0.5)
    different = scene.paste_masks(masks, boxes, size) != torch.stack(theirs).numpy()
    assert different.sum() <= 10, "pixels of 576 000 whose value rounds to the other side of the threshold"


def test_a_full_mask_fills_its_box():
    masks = np.ones((3, 28, 28), np.float32)
    boxes = np.array([[2, 1, 6, 4], [-5, -5, 3, 2], [0, 0, 8, 5]], np.float32)
    got = scene.paste_masks(masks, boxes, (5, 8))
    for mask, (x1, y1, x2, y2) in zip(got, boxes.clip(0).astype(int), strict=True):
        assert mask[y1:y2, x1:x2].all() and mask.sum() == (min(y2, 5) - y1) * (min(x2, 8) - x1)


@pytest.mark.parametrize(
    "box",
    [(3, 3, 3, 6), (5, 5, 2, 9), (np.nan, 0, 4, 4), (0, 0, np.inf, 4), (-np.inf, 0, 4, 4), (20, 20, 30, 30), (-9, -9, -2, -2)],
)
def test_boxes_without_pixels_give_empty_masks(box):
    assert not scene.paste_masks(np.ones((1, 28, 28), np.float32), np.array([box], np.float32), (10, 10)).any()


def test_extreme_boxes_and_values_are_defined():
    masks = np.ones((4, 4, 4), np.float32)
    masks[1], masks[2, :2], masks[3] = np.nan, np.inf, -np.inf
    boxes = np.array([[-1e30, -1e30, 1e30, 1e30], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], np.float32)
    got = scene.paste_masks(masks, boxes, (9, 9))
    assert got[0].all() and not got[1].any() and got[2, :3].all() and not got[3].any()


def test_no_masks_are_no_masks():
    assert scene.paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (6, 7)).shape == (0, 6, 7)


@pytest.mark.parametrize("threads", [2, 5, 64])
def test_threads_paste_the_same(threads):
    rng = np.random.default_rng(1)
    masks, boxes = rng.random((9, 28, 28)).astype(np.float32), random_boxes(rng, 9, (203, 99))
    assert np.array_equal(scene.paste_masks(masks, boxes, (203, 99), threads=threads), scene.paste_masks(masks, boxes, (203, 99)))


@pytest.mark.parametrize(
    ("masks", "boxes", "size", "threshold", "threads"),
    [
        (np.zeros((2, 4, 4), np.float64), np.zeros((2, 4), np.float32), (5, 5), 0.5, 1),
        (np.zeros((2, 4, 4), np.float32), np.zeros((3, 4), np.float32), (5, 5), 0.5, 1),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float64), (5, 5), 0.5, 1),
        (np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32), (5, 5), 0.5, 1),
        (np.zeros((2, 0, 4), np.float32), np.zeros((2, 4), np.float32), (5, 5), 0.5, 1),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32), (0, 5), 0.5, 1),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32), (5, 5), 1.5, 1),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32), (5, 5), 0.5, 0),
    ],
)
def test_wrong_arguments_are_refused(masks, boxes, size, threshold, threads):
    with pytest.raises(ValueError, match="expected"):
        scene.paste_masks(masks, boxes, size, threshold, threads=threads)


# --- merging -------------------------------------------------------------------------------------------------------


def merged_by_loops(masks, boxes, semantic, stuff, threshold, overlap, stuff_area):
    """The three steps of the paper on whole masks."""
    ids, last = np.zeros(semantic.shape, np.int32), 0
    things, others = [0] * len(masks), [0] * stuff
    for i, mask in enumerate(scene.paste_masks(masks, boxes, semantic.shape, threshold).astype(bool)):
        free = mask & (ids == 0)
        if free.any() and free.sum() >= overlap * mask.sum():
            last += 1
            ids[free], things[i] = last, last
    rest = ids == 0
    for s in range(1, stuff + 1):
        region = rest & (semantic == s)
        if region.any() and region.sum() >= stuff_area:
            last += 1
            ids[region], others[s - 1] = last, last
    return ids, things, others


@given(
    count=st.integers(0, 12), stuff=st.integers(0, 5), H=sides, W=sides, overlap=st.sampled_from([0.0, 0.5, 0.8, 1.0]), seed=seeds
)
def test_merging_matches_loops(count, stuff, H, W, overlap, seed):
    rng = np.random.default_rng(seed)
    masks = (rng.random((count, 4, 4)) + 0.3).astype(np.float32)
    boxes = random_boxes(rng, count, (H, W))
    semantic = rng.integers(0, stuff + 1, (H, W)).astype(np.uint8)
    area = int(rng.integers(0, H * W // 2 + 1))
    got = scene.merge_panoptic(masks, boxes, semantic, stuff, threshold=0.5, overlap=overlap, stuff_area=area, threads=3)
    ids, things, others = merged_by_loops(masks, boxes, semantic, stuff, 0.5, overlap, area)
    assert np.array_equal(got.ids, ids)
    assert (got.things, got.stuff) == (things, others)


def test_a_hidden_thing_is_dropped_and_what_is_left_is_stuff():
    masks = np.ones((3, 28, 28), np.float32)
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 5], [0, 2, 8, 6]], np.float32)  # the second is 80 % hidden
    semantic = np.full((6, 8), 2, np.uint8)
    semantic[0, 6:] = 1
    semantic[1, 7] = 0
    got = scene.merge_panoptic(masks, boxes, semantic, 2, threshold=0.5, overlap=0.5, stuff_area=5)
    assert (got.things, got.stuff) == ([1, 0, 2], [0, 3])
    assert got.ids.tolist() == [
        [1, 1, 1, 1, 3, 3, 0, 0],  # two pixels of the first stuff class are too few
        [1, 1, 1, 1, 3, 3, 3, 0],
        [1, 1, 1, 1, 2, 2, 2, 2],
        [1, 1, 1, 1, 2, 2, 2, 2],
        [2, 2, 2, 2, 2, 2, 2, 2],
        [2, 2, 2, 2, 2, 2, 2, 2],
    ]


def test_labels_beyond_the_stuff_classes_are_void():
    none = np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32)
    got = scene.merge_panoptic(*none, np.array([[0, 1, 2, 255]], np.uint8), 1, threshold=0.5, overlap=0.5, stuff_area=0)
    assert got.ids.tolist() == [[0, 1, 0, 0]]


def test_wrong_merges_are_refused():
    masks, boxes = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4), np.float32)
    options = {"threshold": 0.5, "overlap": 0.5, "stuff_area": 0}
    with pytest.raises(ValueError, match="semantic"):
        scene.merge_panoptic(masks, boxes, np.zeros((4, 4), np.int64), 1, **options)
    with pytest.raises(ValueError, match="stuff"):
        scene.merge_panoptic(masks, boxes, np.zeros((4, 4), np.uint8), 256, **options)


# --- queries -------------------------------------------------------------------------------------------------------


def upsampled(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return reference.resize_bilinear(logits.astype(np.float64), size)


def even(logits: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    return logits.shape[1] / size[0], logits.shape[2] / size[1]


def random_logits(rng: np.random.Generator, count: int, h: int, w: int) -> np.ndarray:
    return (rng.standard_normal((count, h, w)) * rng.choice([0.5, 4, 40], (count, 1, 1))).astype(np.float32)


@given(count=st.integers(0, 5), h=sides, w=sides, H=sides, W=sides, cut=st.sampled_from([0.0, -1.0, 2.0]), seed=seeds)
def test_masks_of_queries_match_the_reference(count, h, w, H, W, cut, seed):
    logits = random_logits(np.random.default_rng(seed), count, h, w)
    got = scene.query_masks(logits, (H, W), even(logits, (H, W)), cut, threads=2)
    values = upsampled(logits, (H, W))
    clear = np.abs(values - cut) > 1e-4
    assert np.array_equal(got.masks[clear], (values > cut)[clear])
    probabilities = 1 / (1 + np.exp(-values))
    for mask, area, box, confidence, p in zip(got.masks, got.areas, got.boxes, got.confidence, probabilities, strict=True):
        assert area == mask.sum()
        rows, columns = np.nonzero(mask)
        assert box.tolist() == ([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if area else [0, 0, 0, 0])
        assert confidence == pytest.approx(p[mask > 0].mean() if area else 0, rel=1e-5)


@given(count=st.integers(1, 6), h=sides, w=sides, H=sides, W=sides, cut=st.sampled_from([0.0, 1.0]), seed=seeds)
def test_the_best_query_of_each_pixel_matches_the_reference(count, h, w, H, W, cut, seed):
    rng = np.random.default_rng(seed)
    logits, scores = random_logits(rng, count, h, w), rng.uniform(0.1, 1, count).astype(np.float32)
    got = scene.query_argmax(logits, scores, (H, W), even(logits, (H, W)), cut, threads=3)
    values = upsampled(logits, (H, W))
    worth = scores[:, None, None] / (1 + np.exp(-np.clip(values, -80, 80)))
    best = worth.argmax(axis=0)
    second = np.sort(worth, axis=0)[-2] if count > 1 else np.zeros((H, W))
    edge = np.abs(np.take_along_axis(values, best[None], 0)[0] - cut) < 1e-4
    clear = (worth.max(axis=0) > second * (1 + 1e-5)) & ~edge
    inside = np.take_along_axis(values, best[None], 0)[0] > cut
    assert np.array_equal(got.winners[clear], np.where(inside, best + 1, 0)[clear])
    assert got.won.sum() == H * W
    assert got.kept.tolist() == [(got.winners == q + 1).sum() for q in range(count)]
    unsure = (np.abs(values - cut) < 1e-4).sum(axis=(1, 2))
    assert (np.abs(got.covered - (values > cut).sum(axis=(1, 2))) <= unsure).all()


def test_steps_reach_less_than_the_map():
    # A letterboxed frame of 8 x 6 px under a map of 4 x 4 cells that covers 8 x 8 px of input.
    logits = np.full((1, 4, 4), -5, np.float32)
    logits[0, 3] = 50  # padding
    got = scene.query_masks(logits, (6, 8), (0.5, 0.5))
    assert got.masks[0].any(axis=1).tolist() == [False] * 5 + [True], "the last row lies between the third and fourth cells"
    assert not scene.query_masks(logits, (5, 8), (0.5, 0.5)).areas.any()


def test_equal_queries_go_to_the_first():
    logits = np.ones((3, 5, 5), np.float32)
    assert (scene.query_argmax(logits, np.full(3, 0.5, np.float32), (9, 9), even(logits, (9, 9))).winners == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_extreme_logits_are_defined(value):
    logits = np.zeros((2, 4, 4), np.float32)
    logits[1] = value
    steps = even(logits, (8, 8))
    winners = scene.query_argmax(logits, np.array([0.9, 0.9], np.float32), (8, 8), steps, -1.0).winners
    assert (winners == (2 if value > 0 else 1)).all()
    masks = scene.query_masks(logits, (8, 8), steps)
    assert masks.areas.tolist() == [0, 64 if value > 0 else 0]
    assert masks.confidence[1] == pytest.approx(1 if value > 0 else 0)


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_choose_the_same(threads):
    rng = np.random.default_rng(2)
    logits, scores = random_logits(rng, 5, 20, 30), rng.uniform(0.1, 1, 5).astype(np.float32)
    size = (117, 91)
    one, more = (scene.query_argmax(logits, scores, size, even(logits, size), threads=n) for n in (1, threads))
    assert all(np.array_equal(getattr(one, name), getattr(more, name)) for name in ("winners", "won", "covered", "kept"))
    first, second = (scene.query_masks(logits, size, even(logits, size), threads=n) for n in (1, threads))
    assert np.array_equal(first.masks, second.masks) and np.array_equal(first.confidence, second.confidence)


def test_wrong_queries_are_refused():
    logits, scores = np.zeros((2, 4, 4), np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="scores"):
        scene.query_argmax(logits, scores[:1], (8, 8), (0.5, 0.5))
    with pytest.raises(ValueError, match="one query"):
        scene.query_argmax(logits[:0], scores[:0], (8, 8), (0.5, 0.5))
    with pytest.raises(ValueError, match="steps"):
        scene.query_argmax(logits, scores, (8, 8), (0.0, 0.5))
    with pytest.raises(ValueError, match="logits"):
        scene.query_masks(logits.astype(np.float64), (8, 8), (0.5, 0.5))
    with pytest.raises(ValueError, match="threads"):
        scene.query_masks(logits, (8, 8), (0.5, 0.5), threads=0)
