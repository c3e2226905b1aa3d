"""Losses on logits (N, C, h, w) and labels (N, H, W) int64 with 255 ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.data.base import IGNORE
from edgeseg.errors import EdgesegError

Loss = Callable[[Tensor, Tensor], Tensor]


def median_frequency_weights(label_maps: Iterable[NDArray[np.uint8]], num_classes: int, power: float = 1.0) -> NDArray[np.float32]:
    """Class weights (median(f) / f_c) ** power with f_c the class's share of pixels in the images that contain it.

    Eigen and Fergus, ICCV 2015, section 6.3.2; SegNet uses power 1. Classes never seen weigh 1.
    """
    hits, pixels = np.zeros(num_classes), np.zeros(num_classes)
    for labels in label_maps:
        counts = np.bincount(labels.ravel(), minlength=256)[:num_classes]
        hits += counts
        pixels += (counts > 0) * int((labels != IGNORE).sum())
    share = np.divide(hits, pixels, out=np.zeros(num_classes), where=pixels > 0)
    seen = share > 0
    weights = np.ones(num_classes)
    weights[seen] = (np.median(share[seen]) / share[seen]) ** power
    return weights.astype(np.float32)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy over the labelled pixels, weighted by class; 0 where no pixel is labelled."""
    loss = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    counted = labels != IGNORE
    total = weights[labels[counted]].sum() if weights is not None else counted.sum()
    return loss / total.clamp(min=1e-6)


def ohem(logits: Tensor, labels: Tensor, weights: Tensor | None = None, threshold: float = 0.7, keep: float = 0.0625) -> Tensor:
    """Cross entropy of the pixels whose true class gets less than ``threshold``, and at least a share ``keep`` of all.

    Online hard example mining (Shrivastava et al., CVPR 2016), in the per-pixel form of Wu et al. 2016.
    """
    losses = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE, reduction="none").flatten()
    plain = losses if weights is None else F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten()
    counted = labels.flatten() != IGNORE
    losses, plain = losses[counted], plain[counted]
    if losses.numel() == 0:
        return logits.sum() * 0
    least = max(1, int(keep * losses.numel()))
    bound = torch.minimum(plain.detach().topk(least).values[-1], plain.new_tensor(-float(np.log(threshold))))
    hard = plain >= bound
    return losses[hard].mean()


def dice(logits: Tensor, labels: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - mean over the classes present of 2 sum(p g) / (sum(p^2) + sum(g)) (Milletari et al., 3DV 2016, equation 1)."""
    counted = (labels != IGNORE)[:, None]
    probability = logits.softmax(1) * counted
    classes = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1)
    truth = labels[:, None] == classes
    overlap, area = (probability * truth).sum((0, 2, 3)), truth.sum((0, 2, 3))
    score = (2 * overlap + smooth) / (probability.square().sum((0, 2, 3)) + area + smooth)
    present = area > 0
    return 1 - score[present].mean() if present.any() else logits.sum() * 0


def shrink_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) labels at (h, w), those at the centres of the cells: what losses on coarse logits compare with."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def make_loss(name: str, weights: Tensor | None = None) -> Loss:
    """The loss ``name``: terms of ``ce``, ``ohem`` and ``dice`` joined by ``+`` ("ce+dice").

    Raises:
        EdgesegError: an unknown term.
    """
    terms: dict[str, Loss] = {
        "ce": lambda logits, labels: cross_entropy(_enlarge(logits, labels), labels, weights),
        "ohem": lambda logits, labels: ohem(_enlarge(logits, labels), labels, weights),
        # Regions, not borders: the logits' own resolution tells the same at a fraction of the cost.
        "dice": lambda logits, labels: dice(logits, shrink_labels(labels, (logits.shape[2], logits.shape[3]))),
    }
    names = name.split("+")
    if unknown := [term for term in names if term not in terms]:
        raise EdgesegError(f"loss {'+'.join(unknown)!r}", f"terms of {', '.join(terms)} joined by +")

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float().contiguous()
        return torch.stack([terms[term](logits, labels) for term in names]).sum()

    return loss


def _enlarge(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
