"""The training loop: model folder in the making, a checkpoint an epoch, the best weights on the validation split kept."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg import models
from edgeseg.data import open_dataset
from edgeseg.data.base import Dataset
from edgeseg.data.transforms import Augment
from edgeseg.errors import EdgesegError
from edgeseg.files import write_json
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Manifest
from edgeseg.metrics import FIGURES, TITLES, headline
from edgeseg.models.weights import load_weights
from edgeseg.training.batches import TrainBatches, Truth, normalise
from edgeseg.training.checkpoint import save_checkpoint
from edgeseg.training.config import TrainConfig
from edgeseg.training.distributed import World, join_world
from edgeseg.training.log import RunLog, write_picture
from edgeseg.training.losses import Loss, make_loss, median_frequency_weights, shrink_labels
from edgeseg.training.optimiser import WeightAverage, learning_rate, make_optimiser
from edgeseg.training.run_folder import (
    RUN,
    check_truth,
    checkpoint_path,
    claim,
    describe_network,
    open_run,
    save_weights,
    start_folder,
)
from edgeseg.training.validate import validate

Progress = Callable[[int, int, str], None]


def train(
    config: TrainConfig,
    directory: Path,
    weights: str | Path | None = None,
    trust: bool = False,
    resume: bool = False,
    command: str = "",
    progress: Progress = lambda done, total, text: None,
) -> ModelFolder:
    """Train as ``config`` says into the model folder ``directory``.

    Args:
        weights: what to start from: see ``load_weights``.
        trust: let ``weights`` run pickled code.
        resume: go on from the folder's checkpoint.
        command: what the user typed, kept in the manifest.
        progress: called with (steps done, steps in all, what happened).

    Raises:
        EdgesegError: the folder is in use by another run or holds one, cannot be written, the settings do not fit, or the
            loss is no longer finite. Nothing is written before the settings, the weights and the data have been checked.
    """
    with join_world() as world, contextlib.ExitStack() as held:
        torch.manual_seed(config.seed)
        manifest, state = open_run(config, directory, resume, command)
        assert manifest.architecture is not None
        network = models.create(config.arch, num_classes=len(manifest.classes), **manifest.architecture.options)
        models.check_size(network, manifest.input.height, manifest.input.width)
        if state is None:
            manifest = describe_network(manifest, network)
        if weights is not None and state is None:
            load_weights(network, weights, trust)
        folder = ModelFolder(directory)
        run = _Run(config, folder, manifest, world, network)
        if state is not None:
            run.restore(state)
        if world.leads:
            held.enter_context(claim(directory))
            if state is None:
                start_folder(config, manifest, directory)
        run.go(progress)
        world.barrier()
    return folder


class _Run:
    """The state of a run: network, optimiser, average, best figure."""

    def __init__(self, config: TrainConfig, folder: ModelFolder, manifest: Manifest, world: World, network: nn.Module) -> None:
        self.config, self.folder, self.manifest, self.world = config, folder, manifest, world
        self.layout = _memory_format(network)
        self.network = network.to(world.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.parallel = world.wrap(self.network)
        self.optimiser = make_optimiser(self.network, config)
        self.average = WeightAverage(self.network, config.ema) if config.ema else None
        self.train_set = open_dataset(config.data, config.split)
        self.val_set = open_dataset(config.data, config.val_split)
        self.own_loss = models.has_own_loss(network)
        check_truth(self.train_set, models.task_of(network))
        self.batches = self._make_batches()
        self.loss: Loss | None = None if self.own_loss else self._make_loss(len(manifest.classes))
        self.epoch, self.best = 0, -1.0

    def _make_batches(self) -> TrainBatches:
        config = self.config
        width, height = config.size
        augment = Augment(
            config.crop or (height, width),
            config.scale,
            colour=config.colour if self.train_set.modality != "hha" else 0.0,
            base=(height, width),
            keep_aspect=config.resize == "letterbox",
            elastic=config.elastic,
            keypoint_flip=self.train_set.keypoints.flip if self.train_set.keypoints else None,
        )
        world, paste = self.world, config.copy_paste
        return TrainBatches(
            self.train_set, augment, config.batch, config.seed, config.workers, world.rank, world.size, self.own_loss, paste
        )

    def _make_loss(self, num_classes: int) -> Loss:
        plain = make_loss(self.config.loss)  # an unknown name is told before labels are counted
        if not self.config.balance:
            return plain
        frequencies = median_frequency_weights(_label_maps(self.train_set), num_classes, self.config.balance)
        return make_loss(self.config.loss, torch.from_numpy(frequencies).to(self.world.device))

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that ``state`` holds."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
            self.average.steps = state["average_steps"]
        self.epoch, self.best = state["epoch"], state["best"]

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "epoch": self.epoch,
            "best": self.best,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.network.state_dict() if self.average else {},
            "average_steps": self.average.steps if self.average else 0,
        }

    def go(self, progress: Progress) -> None:
        """Run the epochs that are left."""
        log = RunLog(self.folder.path / RUN, self.epoch, FIGURES[self.manifest.task]) if self.world.leads else None
        try:
            while self.epoch < self.config.epochs:
                values = self._epoch(progress)
                self.epoch += 1
                if log is not None:
                    if self.epoch % self.config.eval_every == 0 or self.epoch == self.config.epochs:
                        values |= self._validate()
                    log.add(self.epoch, values)
                    save_checkpoint(checkpoint_path(self.folder.path), self.state())
                    told = _describe(self.epoch, values, self.best, headline(self.manifest))
                    progress(self.epoch * len(self.batches), self._total, told)
                self.world.barrier()
        finally:
            if log is not None:
                log.close()

    @property
    def _total(self) -> int:
        return self.config.epochs * len(self.batches)

    def _epoch(self, progress: Progress) -> dict[str, float]:
        # Seeded anew each epoch, so that dropout too is the same after an interruption.
        torch.manual_seed(self.config.seed * 1_000_003 + self.epoch * 1009 + self.world.rank)
        self.network.train()
        started, total = time.monotonic(), 0.0
        done = self.epoch * len(self.batches)
        for step, (frames, truth) in enumerate(self.batches.epoch(self.epoch)):
            rate = learning_rate(self.config, self.epoch + step / len(self.batches))
            loss = self._step(frames, truth, rate)
            total += loss
            progress(done + step + 1, self._total, f"epoch {self.epoch + 1}/{self.config.epochs} loss {loss:.3f}")
        seconds = time.monotonic() - started
        frames_seen = len(self.batches) * self.config.batch * self.world.size
        mean = self.world.mean(total / len(self.batches))
        return {"lr": rate, "loss": mean, "seconds": seconds, "frames_per_s": frames_seen / seconds}

    def _step(self, frames: Tensor, truth: Truth, rate: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        device = self.world.device
        x = normalise(frames.to(device), self.manifest.input).to(memory_format=self.layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
            if isinstance(truth, list):
                losses = self.parallel(x, [target.to(device) for target in truth])
            else:
                outputs = self.parallel(x)
        if isinstance(truth, list):
            loss = torch.stack([item.float() for item in losses.values()]).sum()
        else:
            loss = self._total_loss(outputs, truth.to(device).long())
        value = float(loss.detach())
        if not math.isfinite(value):
            raise EdgesegError(f"loss {value} in epoch {self.epoch + 1}", "a finite loss", "lower --lr, or resume with --no-bf16")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimiser.step()
        if self.average:
            self.average.update(self.network)
        return value

    def _total_loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        main, *extra = outputs if isinstance(outputs, list) else [outputs]
        assert self.loss is not None
        loss = self.loss(main, labels)
        for auxiliary in extra:
            loss = loss + self.config.aux_weight * self.loss(
                auxiliary, shrink_labels(labels, (auxiliary.shape[2], auxiliary.shape[3]))
            )
        return loss

    def _validate(self) -> dict[str, float]:
        network = self.average.network if self.average else self.network
        score, sheet = validate(network, self.val_set, self.manifest, self.world.device, self.config.bf16)
        write_picture(self.folder.path / RUN / "pictures" / f"epoch_{self.epoch:04d}.jpg", sheet)
        figures = score.summary()
        if figures[score.headline] > self.best:
            self.best = figures[score.headline]
            save_weights(network, self.folder)
            summary = {"epoch": self.epoch, "figure": score.headline, f"val_{score.headline}": self.best}
            write_json(self.folder.path / RUN / "summary.json", summary)
        return {f"val_{key}": value for key, value in figures.items() if math.isfinite(value)}


def _label_maps(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    stride = max(1, len(dataset) // 400)
    return (dataset[index].labels for index in range(0, len(dataset), stride))


def _describe(epoch: int, values: dict[str, float], best: float, figure: str) -> str:
    text = f"epoch {epoch}: loss {values['loss']:.3f}, {values['frames_per_s']:.1f} frames/s"
    if (value := values.get(f"val_{figure}")) is not None:
        text += f", val {TITLES[figure]} {value:.4f} (best {best:.4f})"
    return text


def _memory_format(network: nn.Module) -> torch.memory_format:
    """Channels last, which is fastest, unless torch's CPU backward would write out of bounds there.

    torch 2.13 does so for strided 1x1 convolutions of fewer than 16 channels.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels < 16:
            return torch.contiguous_format
    return torch.channels_last
