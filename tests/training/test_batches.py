"""Order and content of batches: functions of seed, epoch and frame; and normalisation as the device does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data import open_dataset
from edgeseg.data.transforms import Augment
from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec
from edgeseg.preprocess import Preprocessor
from edgeseg.training.batches import TrainBatches, epoch_order, normalise
from tests.training.scenes import write_scenes


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_processes_share_an_epoch_without_overlap(count: int, batch: int, world: int, seed: int, epoch: int) -> None:
    orders = [epoch_order(count, batch, seed, epoch, rank, world) for rank in range(world)]
    seen = [index for order in orders for step in order for index in step]
    assert len(seen) == len(set(seen)) == count // (batch * world) * batch * world
    assert set(seen) <= set(range(count))
    assert {len(order) for order in orders} == {count // (batch * world)}
    assert all(len(step) == batch for order in orders for step in order)


def test_order_changes_with_epoch_and_seed_alone() -> None:
    assert epoch_order(40, 4, 1, 2) == epoch_order(40, 4, 1, 2)
    assert len({str(epoch_order(40, 4, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_batches_do_not_depend_on_workers_or_on_what_ran_before(tmp_path: Path) -> None:
    dataset = open_dataset(f"folder:{write_scenes(tmp_path, {'train': 6})}", "train")

    def make(workers: int) -> TrainBatches:
        return TrainBatches(dataset, Augment((24, 32)), 2, 5, workers)

    first, second = make(1), make(0)
    assert len(first) == 3
    list(first.epoch(0))
    before = torch.random.get_rng_state()
    pairs = list(zip(first.epoch(1), second.epoch(1), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)  # dropout draws from it
    assert len(pairs) == 3
    for (frames, labels), (same_frames, same_labels) in pairs:
        assert frames.shape == (2, 24, 32, 3)
        assert labels.shape == (2, 24, 32)
        assert torch.equal(frames, same_frames)
        assert torch.equal(labels, same_labels)
    with pytest.raises(DataError, match="lower --batch"):
        TrainBatches(dataset, Augment((24, 32)), 4, 0, 0, rank=0, world=2)


@pytest.mark.parametrize("order", ["rgb", "bgr", "grey"])
def test_normalise_is_the_devices_preprocessing(order: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    mean, std = ((0.45,), (0.25,)) if order == "grey" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    spec = InputSpec(width=17, height=13, channels=len(mean), colour_order=order, mean=mean, std=std)
    found = normalise(torch.from_numpy(frame)[None], spec).numpy()
    expected = Preprocessor(spec)(frame)
    assert found.shape == expected.shape
    # OpenCV's grey is rounded to whole levels, of which one is 1 / 255 / std.
    assert np.abs(found - expected).max() < (0.51 / 255 / 0.25 if order == "grey" else 1e-5)
