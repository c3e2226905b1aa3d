"""The sliding-window patch classifier (Ciresan et al., NIPS 2012): a network that names the pixel at the centre of a patch.

It is trained on patches. To label a picture it would have to run once a pixel; here it runs once a picture instead: pooling keeps
its window but moves by one pixel, and every later filter is spread out by what pooling no longer skips (filter rarefaction, Long
et al., CVPR 2015, section 3.2). The scores are those of the sliding window, and neighbours share all their work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import init_weights
from edgeseg.models.targets import Target

_IGNORE = 255


class PatchClassifier(nn.Module):
    """Logits of the patch around every ``stride``-th pixel.

    Args:
        num_classes: number of logit channels.
        widths: channels of the convolutions; each is followed by 2x2 max pooling. Ciresan's N4 has (48, 48, 48, 48).
        kernels: their sizes, (4, 5, 4, 4) in N4.
        hidden: width of the fully connected layer, 200 in N4.
        stride: of the window when a picture is labelled, a power of two; 1 labels every pixel.
        patches: patches drawn from each picture of a training batch, classes in turns so that all are seen alike.
        in_channels: channels of the input.

    Attributes:
        patch: side of the window in pixels, which the kernels decide (95 for N4's).
    """

    own_loss = True

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (48, 48, 48, 48),
        kernels: Sequence[int] = (4, 5, 4, 4),
        hidden: int = 200,
        stride: int = 1,
        patches: int = 64,
        dropout: float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != len(kernels) or not widths:
            raise EdgesegError(f"{len(widths)} widths for {len(kernels)} kernels", "one of each for every convolution")
        if stride not in (1 << power for power in range(len(widths) + 1)):
            raise EdgesegError(f"stride {stride}", f"a power of two, at most {1 << len(widths)}")
        self.stride, self.patches, self.kernels = stride, patches, tuple(kernels)
        inputs = (in_channels, *widths)
        self.convs = nn.ModuleList(nn.Conv2d(inputs[i], width, kernels[i]) for i, width in enumerate(widths))
        # The map that is left of a patch is 3x3: the fully connected layer is a convolution over it.
        self.fc = nn.Conv2d(widths[-1], hidden, _LAST)
        self.classifier = nn.Conv2d(hidden, num_classes, 1)
        self.dropout = nn.Dropout(dropout)
        self.patch = _field(self.kernels)
        init_weights(self)

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> Tensor | dict[str, Tensor]:
        """Training: the cross entropy of drawn patches. Evaluation: logits (N, C, ceil(H / stride), ceil(W / stride)).

        Beyond the picture's edge stand its mirrored pixels.
        """
        if targets is not None:
            return {"cross_entropy": self._patch_loss(x, targets)}
        before, after = self.patch // 2, self.patch - 1 - self.patch // 2
        scores: Tensor = self.scan(mirror(x, before, after), self.stride)
        return scores

    def scan(self, x: Tensor, stride: int) -> Tensor:
        """Logits of every window of ``x`` (N, C, H, W) that lies inside, ``stride`` pixels apart; no padding.

        ``stride`` 2 ** number of poolings is the classifier as it is trained.
        """
        step, dilation = 1, 1
        for conv in self.convs:
            x = torch.relu(_dilated(x, conv, dilation))
            pool = 2 if step < stride else 1
            x = F.max_pool2d(x, 2, pool, dilation=dilation)
            step, dilation = step * pool, dilation * 2 // pool
        x = self.dropout(torch.relu(_dilated(x, self.fc, dilation)))
        logits: Tensor = self.classifier(x)
        return logits

    def _patch_loss(self, x: Tensor, targets: list[Target]) -> Tensor:
        before, after = self.patch // 2, self.patch - 1 - self.patch // 2
        padded = mirror(x, before, after)
        patches, truths = [], []
        for picture, target in zip(padded, targets, strict=True):
            rows, columns = draw_pixels(target.labels, self.patches)
            patches += [picture[:, y : y + self.patch, z : z + self.patch] for y, z in zip(rows, columns, strict=True)]
            truths.append(target.labels[rows, columns])
        if not patches:
            return self.classifier.weight.sum() * 0
        logits = self.scan(torch.stack(patches), 1 << len(self.convs))[:, :, 0, 0]
        return F.cross_entropy(logits.float(), torch.cat(truths))


_LAST = 3


def _field(kernels: Sequence[int]) -> int:
    side = _LAST
    for kernel in reversed(kernels):
        side = side * 2 + kernel - 1
    return side


def _dilated(x: Tensor, conv: Any, dilation: int) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, dilation=dilation)


def mirror(x: Tensor, before: int, after: int) -> Tensor:
    """``x`` (N, C, H, W) with mirrored pixels around it; a picture smaller than the border is mirrored again and again."""
    rows, columns = (_mirrored(size, before, after, x.device) for size in x.shape[-2:])
    return x[:, :, rows][:, :, :, columns]


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    # Reflection without repeating the edge has period 2 (size - 1).
    places = torch.arange(-before, size + after, device=device)
    period = torch.full_like(places, 2 * size - 2).clamp(min=1)
    places = places.remainder(period)
    return torch.minimum(places, period - places).clamp(max=size - 1)


def draw_pixels(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of ``count`` labelled pixels of (H, W) labels, the classes present in turns; none where all is ignored."""
    places = [(labels == index).nonzero() for index in labels.unique().tolist() if index != _IGNORE]
    if not places:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty
    turns = (places[turn % len(places)] for turn in range(count))
    points = torch.cat([pixels[torch.randint(len(pixels), (1,))] for pixels in turns])
    return points[:, 0], points[:, 1]
