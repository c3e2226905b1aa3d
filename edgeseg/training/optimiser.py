"""Optimiser, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeseg.training.config import TrainConfig


def make_optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over what is not frozen; biases and normalisation weights are not decayed."""
    learning = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in learning if p.ndim > 1]
    plain = [p for p in learning if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """The rate after ``progress`` epochs: linear warm-up times lr * (1 - progress / epochs) ** power (DeepLab's poly)."""
    warm = min(1.0, (progress + 1e-3) / config.warmup) if config.warmup else 1.0
    return float(config.lr * warm * max(0.0, 1 - progress / config.epochs) ** config.power)


class WeightAverage:
    """Exponential moving average of weights and batch-norm statistics; young averages follow faster."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for averaged, current in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if averaged.dtype.is_floating_point:
                averaged.lerp_(current, 1 - decay)
            else:
                averaged.copy_(current)
