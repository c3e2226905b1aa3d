"""U-Net as published (Ronneberger, Fischer, Brox, MICCAI 2015): unpadded convolutions, cropped skips, the border weight map.

A valid convolution loses a pixel at each side, so the logits cover ``margin`` pixels less than the input at each side. The
paper mirrors the picture beyond its edges to make up for that (figure 2, overlap-tile strategy); with ``mirror`` the network
does so itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.targets import Target

IGNORE = 255
W0, SIGMA_PX = 10.0, 5.0


class UNetPublished(nn.Module):
    """Figure 1: 23 convolutional layers, ReLU, no batch normalisation; dropout at the end of the contracting path.

    Args:
        num_classes: number of logit channels.
        widths: channels of each level, finest first.
        mirror: reflect the input at its borders inside the network, so that logits have the input's size; otherwise only
            sizes that every pooling halves are taken, and logits come out ``2 * margin`` smaller.
        dropout: of the two coarsest levels of the contracting path.
        border_weight: learn with the weight map of equation 2, whose cells are the targets' masks.
        w0, sigma: of the weight map; sigma in pixels.
        class_balance: power of the classes' inverse frequency in w_c, over the batch; 0 is unweighted, 1 balances fully.
        in_channels: of the input, 1 in the paper.

    Attributes:
        margin: pixels that the logits lack at each side of a valid input.
        own_loss: with ``border_weight``, or where logits are smaller than labels.

    Raises:
        EdgesegError: widths that are no levels.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        mirror: bool = True,
        dropout: float = 0.5,
        border_weight: bool = False,
        w0: float = W0,
        sigma: float = SIGMA_PX,
        class_balance: float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise EdgesegError(f"widths {list(widths)}", "positive widths of at least two levels")
        if sigma <= 0 or w0 < 0:
            raise EdgesegError(f"w0 {w0} and sigma {sigma}", "w0 of 0 or more and a positive sigma")
        last = len(widths) - 1
        self.mirror, self.border_weight = mirror, border_weight
        self.own_loss = border_weight or not mirror
        self._map = w0 if border_weight else 0.0, sigma, class_balance
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(_double(cin, width) for cin, width in zip(inputs, widths, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[level + 1], widths[level], 2, 2) for level in range(last))
        self.decoder = nn.ModuleList(_double(2 * widths[level], widths[level]) for level in range(last))
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        self._crops = _skip_crops(last)
        self.margin = self._crops[0] + 4  # and two convolutions before and after
        self._init_weights()

    def _init_weights(self) -> None:
        # Section 3: deviation sqrt(2 / N) with N the incoming nodes of a neuron.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # A 2x2 up-convolution of stride 2 has one place of its kernel at each pixel, so N is its input channels.
                incoming = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_channels
                nn.init.normal_(module.weight, std=(2 / incoming) ** 0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> Tensor | dict[str, Tensor]:
        """Logits (N, K, h, w) or, given targets in training mode, the loss by name."""
        height, width = x.shape[-2:]
        # The bottom and right get what the poolings may drop besides; a constant, so that any size is the same graph.
        more = self.margin + self._step - 1
        logits = self._valid(F.pad(x, (self.margin, more, self.margin, more), mode="reflect") if self.mirror else x)
        if self.mirror:
            logits = logits[..., :height, :width]
        if targets is None or not self.training:
            return logits
        return {"segmentation": self._loss(logits, targets)}

    def _valid(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        last = len(self.encoder) - 1
        for level, stage in enumerate(self.encoder):
            x = stage(F.max_pool2d(x, 2) if level else x)
            x = self.dropout(x) if level >= last - 1 else x
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(last)):
            x = self.up[level](x)
            crop, height, width = self._crops[level], x.shape[-2], x.shape[-1]
            skip = skips[level][..., crop : crop + height, crop : crop + width]
            x = self.decoder[level](torch.cat([skip, x], dim=1))
        logits: Tensor = self.classifier(x)
        return logits

    def _loss(self, logits: Tensor, targets: list[Target]) -> Tensor:
        w0, sigma, balance = self._map
        labels = torch.stack([target.labels for target in targets])
        maps = [torch.from_numpy(border_weights(instance_map(target), w0, sigma)) for target in targets]
        weights = torch.stack(maps).to(logits.device) if w0 else torch.zeros(labels.shape, device=logits.device)
        if not self.mirror:
            inner = slice(self.margin, -self.margin)
            labels, weights = labels[:, inner, inner], weights[:, inner, inner]
        return weighted_cross_entropy(logits, labels, class_weights(labels, logits.shape[1], balance) + weights)

    @property
    def _step(self) -> int:
        return 1 << (len(self.encoder) - 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The logits' (height, width) for an input's: 388 for 572 as published, the same with ``mirror``."""
        return (height, width) if self.mirror else (height - 2 * self.margin, width - 2 * self.margin)

    def check_size(self, height: int, width: int) -> None:
        """Refuse an input size that the network cannot take.

        Raises:
            EdgesegError: names the nearest sizes it can.
        """
        if self.mirror:
            # A reflection is smaller than what it reflects.
            least = self.margin + self._step
            if min(height, width) < least:
                fix = f"use at least {max(width, least)}x{max(height, least)}, or fewer levels in widths"
                raise EdgesegError(f"input {width}x{height}", f"{least} px or more, which the mirrored border needs", fix)
            return
        below, above = zip(self._nearest(height), self._nearest(width), strict=True)
        if height in above and width in above and (height, width) == above:
            return
        expected = " or ".join(f"{w}x{h}" for h, w in dict.fromkeys((below, above)))
        raise EdgesegError(
            f"input {width}x{height}", f"{expected}: sides of {self._least} px and steps of {self._step}", "resize, crop or mirror"
        )

    @property
    def _least(self) -> int:
        """The smallest valid side: 188 as published, which gives 4."""
        # A decoder level makes 2 v - 4 of v: a bottom of 4 stays 4 through all of them, 3 is enough for one.
        return 2 * self.margin + min(4, self._step)

    def _nearest(self, side: int) -> tuple[int, int]:
        """The largest valid side up to ``side`` and the smallest from it on; the smallest of all where there is none below."""
        steps = max(0, side - self._least) // self._step
        below = self._least + steps * self._step
        return below, below if below >= side else below + self._step


def _double(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3), nn.ReLU(inplace=True), nn.Conv2d(cout, cout, 3), nn.ReLU(inplace=True))


def _skip_crops(levels: int) -> list[int]:
    """Pixels that each level's skip is cropped by at each side, finest first: 88, 40, 16, 4 as published."""
    # The bottom's two convolutions take 2 coarse pixels a side, 4 one level up, where the decoder takes 2 more.
    crops = [4]
    for _ in range(levels - 1):
        crops.insert(0, 2 * (crops[0] + 4))
    return crops


def instance_map(target: Target) -> NDArray[np.int32]:
    """(H, W) int32: 0 where there is no object, else the number of the target's mask, the later over the earlier."""
    found = np.zeros(tuple(target.labels.shape), np.int32)
    for number, mask in enumerate(target.masks.cpu().numpy(), 1):
        found[mask > 0] = number
    return found


def border_weights(instances: NDArray[np.int32], w0: float = W0, sigma: float = SIGMA_PX) -> NDArray[np.float32]:
    """The second term of equation 2: w0 exp(-(d1 + d2)^2 / (2 sigma^2)), (H, W) float32.

    d1 and d2 are the distances in pixels to the nearest and the second nearest object, 0 inside of one: where objects touch,
    as they may in a street but not in the paper's cells, both sides of the border count.

    Args:
        instances: (H, W) integers, 0 where there is no object; with fewer than two objects all weights are 0.
    """
    nearest = np.full((2, *instances.shape), np.inf, np.float32)
    for number in np.unique(instances):
        if number:
            elsewhere = (instances != number).astype(np.uint8)
            distance = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            np.minimum(nearest[1], np.maximum(nearest[0], distance), out=nearest[1])
            np.minimum(nearest[0], distance, out=nearest[0])
    weights: NDArray[np.float32] = w0 * np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2))
    return weights


def class_weights(labels: Tensor, num_classes: int, power: float) -> Tensor:
    """w_c of equation 2: (N, H, W) float32, the inverse frequency of each pixel's class ** ``power``, 1 on average."""
    counted = labels != IGNORE
    counts = torch.bincount(labels[counted], minlength=num_classes).clamp(min=1).float()
    table = torch.cat([counts**-power, counts.new_zeros(256 - num_classes)])
    weights = table[labels.clamp(max=255)]
    return weights * (counted.sum() / weights[counted].sum().clamp(min=1e-12))


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Equation 1: the pixels' cross entropy times ``weights`` (N, H, W), over the sum of the weights; 0 with no labelled pixel."""
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    weights = weights * (labels != IGNORE)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)
