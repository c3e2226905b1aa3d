"""Frames to batches. Order and augmentation depend on (seed, epoch, frame) alone: not on workers, and not on interruptions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data.base import Dataset
from edgeseg.data.transforms import Augment
from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec

_CACHE_BYTES = 1 << 30


class _Frames(TorchDataset[tuple[Tensor, Tensor]]):
    """Augmented frames by (epoch, index); small data sets stay decoded in memory."""

    def __init__(self, dataset: Dataset, augment: Augment, seed: int) -> None:
        self._dataset, self._augment, self._seed = dataset, augment, seed
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room = _CACHE_BYTES

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, labels = self._augment(*self._read(index), np.random.default_rng((self._seed, epoch, index)))
        return torch.from_numpy(image), torch.from_numpy(labels)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self._cache:
            sample = self._dataset[index]
            pair = sample.image, sample.labels
            size = pair[0].nbytes + pair[1].nbytes
            if size > self._room:
                return pair
            self._room -= size
            self._cache[index] = pair
        return self._cache[index]


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
    """Batches of (frames (N, h, w, 3) uint8 BGR, labels (N, h, w) uint8) for one process of ``world``.

    Raises:
        DataError: fewer frames than one step needs.
    """

    def __init__(
        self, dataset: Dataset, augment: Augment, batch: int, seed: int, workers: int, rank: int = 0, world: int = 1
    ) -> None:
        if len(dataset) < batch * world:
            raise DataError(
                f"{dataset.name} {dataset.split}: {len(dataset)} frames", f"at least {batch * world}, one step's", "lower --batch"
            )
        self._order = _Order(len(dataset), batch, seed, rank, world)
        self._loader = DataLoader(
            _Frames(dataset, augment, seed),
            batch_sampler=self._order,  # type: ignore[arg-type]
            num_workers=workers,
            persistent_workers=workers > 0,
            # Without one of its own it draws from the global generator, once a start: a resumed run would differ in dropout.
            generator=torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        self._order.epoch = number
        return iter(self._loader)


def normalise(frames: Tensor, spec: InputSpec) -> Tensor:
    """(N, H, W, 3) uint8 BGR to (N, C, H, W) float32: what ``Preprocessor`` does where nothing is resized."""
    pixels = frames.permute(0, 3, 1, 2).float()
    if spec.colour_order == "rgb":
        pixels = pixels.flip(1)
    elif spec.colour_order == "grey":
        pixels = (pixels * pixels.new_tensor([0.114, 0.587, 0.299]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (pixels * spec.scale - mean) / std
