"""Fully convolutional networks (Long, Shelhamer, Darrell, CVPR 2015; PAMI 2017) on VGG16, AlexNet and GoogLeNet.

FCN-32s, 16s and 8s (figure 3), the PAMI paper's predictions from a single pool and its variants with fixed features.
The fully connected layers are convolutions; scores are upsampled by transposed convolutions that start as bilinear
interpolation. Instead of padding by 100 pixels and cropping, each layer keeps its grid and each upsampling knows where the
cells lie: the same function inside the picture, and every size works.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.alexnet import AlexNet
from edgeseg.models.backbones.googlenet import GoogLeNet
from edgeseg.models.backbones.vgg import VGG16
from edgeseg.models.blocks import bilinear_kernel

State = dict[str, Tensor]
Backbone = VGG16 | AlexNet | GoogLeNet

STRIDES = (8, 16, 32)
BACKBONES = ("vgg16", "vgg16_bn", "alexnet", "googlenet")
_FC_CHANNELS = 4096


class FCN(nn.Module):
    """Logits at the input's resolution.

    Args:
        num_classes: number of logit channels.
        stride: 32, 16 or 8: the finest prediction that is fused.
        backbone: "vgg16", "vgg16_bn" (torchvision's, with batch normalisation: trains from scratch), "alexnet" or "googlenet".
        width: factor of the backbone's channels; 1 is the published one.
        fc_channels: width of fc6 and fc7; 4096 times ``width`` by default. GoogLeNet has no such layers.
        dropout: after fc6 and fc7, and behind GoogLeNet.
        skip_scales: factors of the pools at strides 16 and 8 before they are scored; at-once training with plain SGD needs
            0.01 and 0.0001 for downloaded VGG16 weights (PAMI, "at once"), batch-normalised features none.
        single: score the pool at ``stride`` and nothing else: FCN-pool3, 4 and 5.
        freeze_backbone: only the scores and the upsampling learn (PAMI, "fixed"): fc6 and fc7 are frozen too.

    Raises:
        EdgesegError: unknown stride or backbone, or a scale that is missing.
    """

    def __init__(
        self,
        num_classes: int,
        stride: int = 8,
        backbone: str = "vgg16",
        width: float = 1.0,
        fc_channels: int | None = None,
        dropout: float = 0.5,
        skip_scales: Sequence[float] = (1.0, 1.0),
        single: bool = False,
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__()
        if stride not in STRIDES:
            raise EdgesegError(f"stride {stride}", "8, 16 or 32")
        if len(skip_scales) != 2:
            raise EdgesegError(f"skip_scales {list(skip_scales)}", "two factors, of the pools at strides 16 and 8")
        self.stride, self.single, self.frozen = stride, single, freeze_backbone
        self.skip_scales = tuple(float(scale) for scale in skip_scales)
        self.backbone = _make_backbone(backbone, width)
        self.dropout = nn.Dropout2d(dropout)
        if single:
            self._make_single(num_classes)
        else:
            self._make_fused(num_classes, fc_channels or round(_FC_CHANNELS * width))
        for layer in (self.score, *self.skips):
            # CVPR, section 4.3: the class scoring layers start at zero.
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # CVPR, section 4.3: the last upsampling stays bilinear, those between learn.
        self.up.requires_grad_(False)
        if freeze_backbone:
            for part in self._fixed_parts():
                part.requires_grad_(False)

    def _make_single(self, num_classes: int) -> None:
        level = STRIDES.index(self.stride)
        channels, centre = self.backbone.pool_channels[level], self.backbone.centres[level]
        self.backbone.cut(level)
        self.score = nn.Conv2d(channels, num_classes, 1)
        self.skips, self.ups = nn.ModuleList(), nn.ModuleList()
        self.up = _bilinear_up(num_classes, self.stride, centre)

    def _make_fused(self, num_classes: int, fc_channels: int) -> None:
        channels, centres = self.backbone.pool_channels, list(self.backbone.centres)
        last = channels[2]
        if not isinstance(self.backbone, GoogLeNet):
            window = self.backbone.WINDOW
            self.fc6 = nn.Conv2d(last, fc_channels, window, padding=window // 2 if window % 2 else 0)
            self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
            nn.init.kaiming_normal_(self.fc6.weight)
            nn.init.kaiming_normal_(self.fc7.weight)
            last = fc_channels
            # An even window lies half a cell to the right of the cell that it is centred on.
            centres[2] += 0 if window % 2 else 16
        self.score = nn.Conv2d(last, num_classes, 1)
        # Coarsest first: each fuses the scores of one more pool (figure 3).
        levels = range(1, STRIDES.index(self.stride) - 1, -1)
        self.skips = nn.ModuleList(nn.Conv2d(channels[level], num_classes, 1) for level in levels)
        self.ups = nn.ModuleList(
            _bilinear_up(num_classes, 2, (centres[level + 1] - centres[level]) / STRIDES[level]) for level in levels
        )
        self.up = _bilinear_up(num_classes, self.stride, centres[STRIDES.index(self.stride)])

    def forward(self, x: Tensor) -> Tensor:
        return _match(self.up(self.coarse_scores(x)), x)

    def coarse_scores(self, x: Tensor) -> Tensor:
        """Logits (N, K, h, w) at the network's stride."""
        pools = self.backbone.pools(x)
        scores: Tensor = self.score(self._head(pools[-1]))
        for skip, up, scale, pool in zip(self.skips, self.ups, self.skip_scales, pools[1::-1], strict=False):
            scores = _match(up(scores), pool) + skip(pool if scale == 1 else pool * scale)
        return scores

    def _head(self, x: Tensor) -> Tensor:
        """The convolutionalised classifier before its scores."""
        if self.single:
            return x
        if not isinstance(self.backbone, GoogLeNet):
            before, after = (self.backbone.WINDOW - 1) // 2, self.backbone.WINDOW // 2
            x = x if before == after else F.pad(x, (before, after, before, after))
            x = self.dropout(torch.relu(self.fc6(x)))
            x = torch.relu(self.fc7(x))
        out: Tensor = self.dropout(x)
        return out

    def check_size(self, height: int, width: int) -> None:
        """Refuse an input size that the network cannot take: only GoogLeNet's second pool needs something to see.

        Raises:
            EdgesegError: names the nearest size it can.
        """
        least = 5 if isinstance(self.backbone, GoogLeNet) else 1
        if min(height, width) < least:
            fix = f"use {max(width, least)}x{max(height, least)} or more"
            raise EdgesegError(f"input {width}x{height}", f"{least} px or more on GoogLeNet", fix)

    def train(self, mode: bool = True) -> FCN:
        """Training or evaluation mode; a frozen backbone keeps its batch statistics."""
        super().train(mode)
        if self.frozen:
            for part in self._fixed_parts():
                part.eval()
        return self

    def _fixed_parts(self) -> list[nn.Module]:
        return [self.backbone, *(part for name, part in self.named_children() if name in ("fc6", "fc7"))]

    def convert_state(self, state: State) -> State:
        """``state`` as this network's, where it is a classifier's with torchvision's names or that of a coarser FCN.

        A classifier's fully connected layers become fc6 and fc7 (CVPR, section 3.1). On a coarser FCN's weights the new
        skips start at zero, so that training goes on where it stopped (section 4.2). Everything else is returned as it is.
        """
        if self.single:
            return state
        own = self.state_dict()
        layers: Sequence[str] = getattr(self.backbone, "FULLY_CONNECTED", ())
        if layers and all(f"{name}.weight" in state for name in layers):
            return {**own, **self._convert_classifier(state, layers)}
        have = sum(name.startswith("skips.") and name.endswith(".weight") for name in state)
        if "score.weight" in state and have < len(self.skips):
            new = tuple(f"{part}.{index}." for part in ("skips", "ups") for index in range(have, len(self.skips)))
            return {**state, **{name: tensor for name, tensor in own.items() if name.startswith((*new, "up."))}}
        return state

    def _convert_classifier(self, state: State, layers: Sequence[str]) -> State:
        found = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith(self.backbone.HEAD)}
        for name, (target, layer) in zip(layers, (("fc6", self.fc6), ("fc7", self.fc7)), strict=True):
            weight = state[f"{name}.weight"]
            shape = (-1, *layer.weight.shape[1:])
            # What does not divide is left as it is, for the comparison of shapes to tell.
            fits = weight.ndim == 2 and weight.shape[1] == layer.weight[0].numel()
            found[f"{target}.weight"] = weight.reshape(shape) if fits else weight
            found[f"{target}.bias"] = state[f"{name}.bias"]
        return found


def _make_backbone(name: str, width: float) -> Backbone:
    if name not in BACKBONES:
        raise EdgesegError(f"backbone {name!r}", f"one of {', '.join(BACKBONES)}")
    if name == "alexnet":
        return AlexNet(width)
    return GoogLeNet(width) if name == "googlenet" else VGG16(name == "vgg16_bn", width)


def _bilinear_up(channels: int, factor: int, centre: float | None = None) -> nn.ConvTranspose2d:
    """Learnable upsampling that starts as bilinear interpolation of each channel by itself.

    Args:
        centre: where the first coarse cell lies among the fine ones: a whole number takes a kernel of ``2 * factor - 1``, a
            half one ``2 * factor``. By default the grids share their edges: ``(factor - 1) / 2``.
    """
    centre = (factor - 1) / 2 if centre is None else centre
    kernel = 2 * factor - (centre == int(centre))
    padding = int((kernel - 1) / 2 - centre)
    # An odd kernel ends before the fine cells that the last coarse one is next to.
    extra = factor - 1 if kernel % 2 else 0
    layer = nn.ConvTranspose2d(channels, channels, kernel, factor, padding, output_padding=extra, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(channels), range(channels)] = bilinear_kernel(kernel)
    return layer


def _match(x: Tensor, reference: Tensor) -> Tensor:
    """Crop what is over; the grids share their top left corner."""
    height, width = reference.shape[-2:]
    return x[..., :height, :width]


def fcn32s(num_classes: int, **options: object) -> FCN:
    """FCN-32s."""
    return FCN(num_classes, stride=32, **options)  # type: ignore[arg-type]


def fcn16s(num_classes: int, **options: object) -> FCN:
    """FCN-16s."""
    return FCN(num_classes, stride=16, **options)  # type: ignore[arg-type]


def fcn8s(num_classes: int, **options: object) -> FCN:
    """FCN-8s."""
    return FCN(num_classes, stride=8, **options)  # type: ignore[arg-type]


def fcn_pool3(num_classes: int, **options: object) -> FCN:
    """FCN-pool3: the third pool alone."""
    return FCN(num_classes, stride=8, single=True, **options)  # type: ignore[arg-type]


def fcn_pool4(num_classes: int, **options: object) -> FCN:
    """FCN-pool4."""
    return FCN(num_classes, stride=16, single=True, **options)  # type: ignore[arg-type]


def fcn_pool5(num_classes: int, **options: object) -> FCN:
    """FCN-pool5: FCN-32s without fc6 and fc7."""
    return FCN(num_classes, stride=32, single=True, **options)  # type: ignore[arg-type]
