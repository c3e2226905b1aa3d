"""Frames to batches. Order and augmentation depend on (seed, epoch, frame) alone: not on workers, and not on interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data.base import Dataset, Sample
from edgeseg.data.copy_paste import copy_paste
from edgeseg.data.transforms import Augment
from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec
from edgeseg.models.targets import Target
from edgeseg.training.targets import make_target

_CACHE_BYTES = 1 << 30
Truth = Tensor | list[Target]
"""What a batch is compared with: labels (N, h, w) uint8, or a target for each picture."""


class _Frames(TorchDataset[tuple[Tensor, Tensor | Target]]):
    """Augmented frames by (epoch, index); small data sets stay decoded in memory."""

    def __init__(self, dataset: Dataset, augment: Augment, seed: int, targets: bool, paste: float) -> None:
        self._dataset, self._augment, self._seed = dataset, augment, seed
        self._targets, self._paste = targets, paste
        self._cache: dict[int, Sample] = {}
        self._room = _CACHE_BYTES

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor | Target]:
        epoch, index = key
        rng = np.random.default_rng((self._seed, epoch, index))
        sample = self._augment.view(self._read(index), rng)
        if self._paste and rng.random() < self._paste:
            other = self._read(int(rng.integers(len(self._dataset))))
            sample = copy_paste(sample, self._augment.view(other, rng), rng)
        truth = make_target(sample) if self._targets else torch.from_numpy(sample.labels)
        return torch.from_numpy(sample.image), truth

    def _read(self, index: int) -> Sample:
        if index not in self._cache:
            sample = self._needed(self._dataset[index])
            size = _bytes(sample)
            if size > self._room:
                return sample
            self._room -= size
            self._cache[index] = sample
        return self._cache[index]

    def _needed(self, sample: Sample) -> Sample:
        """Without what is not trained on: masks of objects take more memory than the picture."""
        instances = sample.instances if self._targets or self._paste else None
        return Sample(sample.image, sample.labels, sample.id, instances, None, sample.spaces)


def _bytes(sample: Sample) -> int:
    masks = sample.instances.masks if sample.instances is not None else None
    return sample.image.nbytes + sample.labels.nbytes + (masks.nbytes if masks is not None else 0)


def _collate(items: list[tuple[Tensor, Any]]) -> tuple[Tensor, Truth]:
    frames, truths = [item[0] for item in items], [item[1] for item in items]
    return torch.stack(frames), truths if isinstance(truths[0], Target) else torch.stack(truths)


def epoch_order(count: int, batch: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The frame indices of every step of an epoch for process ``rank`` of ``world``; the last, partial step is dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    steps = count // (batch * world)
    used = order[: steps * batch * world].reshape(steps, world, batch)
    return [[int(index) for index in step] for step in used[:, rank]]


class _Order:
    """Batch sampler whose epoch is set from outside, so that worker processes (and their caches) live on."""

    def __init__(self, count: int, batch: int, seed: int, rank: int, world: int) -> None:
        self._arguments = count, batch, seed
        self._rank, self._world = rank, world
        self.epoch = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in epoch_order(*self._arguments, self.epoch, self._rank, self._world):
            yield [(self.epoch, index) for index in step]

    def __len__(self) -> int:
        count, batch, _ = self._arguments
        return count // (batch * self._world)


class TrainBatches:
    """Batches of (frames (N, h, w, C) uint8, labels (N, h, w) uint8 or N targets) for one process of ``world``.

    Args:
        targets: give targets, which networks with losses of their own learn from.
        paste: share of the frames that get objects of another one (copy-paste).

    Raises:
        DataError: fewer frames than one step needs.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        batch: int,
        seed: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        targets: bool = False,
        paste: float = 0.0,
    ) -> None:
        if len(dataset) < batch * world:
            raise DataError(
                f"{dataset.name} {dataset.split}: {len(dataset)} frames", f"at least {batch * world}, one step's", "lower --batch"
            )
        self._order = _Order(len(dataset), batch, seed, rank, world)
        self._loader = DataLoader(
            _Frames(dataset, augment, seed, targets, paste),
            batch_sampler=self._order,  # type: ignore[arg-type]
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_collate,
            # Without one of its own it draws from the global generator, once a start: a resumed run would differ in dropout.
            generator=torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Truth]]:
        self._order.epoch = number
        return iter(self._loader)


def normalise(frames: Tensor, spec: InputSpec) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float32: what ``Preprocessor`` does where nothing is resized."""
    pixels = frames.permute(0, 3, 1, 2).float()
    if spec.colour_order == "rgb":
        pixels = torch.cat([pixels[:, :3].flip(1), pixels[:, 3:]], dim=1)
    elif spec.colour_order == "grey":
        pixels = (pixels * pixels.new_tensor([0.114, 0.587, 0.299]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (pixels * spec.scale - mean) / std
