"""A painted picture with a truth for every task, training on it alone, and what queries answer about it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.targets import Target

SIZE = (48, 72)


def scene() -> tuple[Tensor, Target]:
    """Two rectangles of class 2 on a floor of class 1 under a wall of class 0: a picture (1, 3, *SIZE) and its truth."""
    labels = torch.zeros(SIZE, dtype=torch.int64)
    labels[24:] = 1
    masks = torch.zeros(2, *SIZE, dtype=torch.uint8)
    masks[0, 6:30, 6:24] = 1
    masks[1, 18:42, 42:66] = 1
    labels[(masks > 0).any(0)] = 2
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    image = colours[labels].permute(2, 0, 1)[None].clone()
    boxes = torch.tensor([[6.0, 6, 24, 30], [42, 18, 66, 42]])
    return image, Target(boxes, torch.tensor([2, 2]), masks, torch.zeros(2, dtype=torch.bool), labels)


def semantic(outputs: tuple[Tensor, Tensor], size: tuple[int, int] = SIZE) -> Tensor:
    """(N, H, W): the class of the greatest sum of class probability times mask probability (section 3.4)."""
    classes, masks = outputs
    masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False).sigmoid()
    return torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks).argmax(1)


def found_objects(outputs: tuple[Tensor, Tensor], label: int, size: tuple[int, int] = SIZE) -> list[Tensor]:
    """The masks (H, W) bool of the queries that say ``label``."""
    classes, masks = outputs[0][0], F.interpolate(outputs[1], size=size, mode="bilinear", align_corners=False)[0]
    return [masks[query] > 0 for query in (classes.argmax(-1) == label).nonzero()[:, 0]]


def overfit(network: nn.Module, image: Tensor, target: Target, steps: int, lr: float = 2e-3) -> list[float]:
    """Train on one picture with a rate that falls to 0; the losses."""
    optimiser, losses = torch.optim.AdamW(network.parameters(), lr=lr), []
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    network.train()
    for _ in range(steps):
        # Twice in the batch, for the sake of batch normalisation.
        loss = torch.stack(list(network(torch.cat([image, image]), [target, target]).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())
