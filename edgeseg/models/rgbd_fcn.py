"""FCNs on colour and depth (Long, Shelhamer, Darrell, CVPR 2015, section 5.2 and table 4).

"early" reads depth as a fourth channel, "hha" reads Gupta et al.'s encoding instead of the colours, and "late" adds up the scores
of a network on the colours and one on HHA, which may have been trained by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.fcn import FCN

CHANNELS = {"rgb": 3, "early": 4, "hha": 3, "late": 6}


class EarlyFCN(FCN):
    """FCN whose first convolution reads (N, 4, H, W): R, G, B and depth.

    Weights of a network on three channels fit: depth starts with the mean of the colours' weights.
    """

    def __init__(self, num_classes: int, **options: object) -> None:
        super().__init__(num_classes, **options)  # type: ignore[arg-type]
        self._first = widen_first(self.backbone, 4)

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As ``FCN``'s; a first convolution of three channels is widened."""
        found = super().convert_state(state)
        name = f"backbone.{self._first}.weight"
        weight = found.get(name)
        return {**found, name: widen(weight, 4)} if weight is not None and weight.shape[1] == 3 else found


class LateFCN(nn.Module):
    """Two FCNs whose scores are added: ``colours`` on channels 0..2 and ``geometry`` on HHA in channels 3..5."""

    def __init__(self, num_classes: int, **options: object) -> None:
        super().__init__()
        self.colours = FCN(num_classes, **options)  # type: ignore[arg-type]
        self.geometry = FCN(num_classes, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.colours(x[:, :3]) + self.geometry(x[:, 3:])
        return scores

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """``state`` of one FCN, or of a classifier, for both streams; that of this network as it is."""
        if any(name.startswith(("colours.", "geometry.")) for name in state):
            return state
        return join_streams(self.colours.convert_state(dict(state)), self.geometry.convert_state(dict(state)))


def rgbd_fcn(
    num_classes: int,
    fusion: str | None = None,
    in_channels: int | None = None,
    stride: int = 8,
    backbone: str = "vgg16",
    width: float = 1.0,
    fc_channels: int | None = None,
    dropout: float = 0.5,
) -> nn.Module:
    """The FCN for a way of fusing depth with colour.

    Args:
        fusion: "early" (4 channels), "late" (6), "hha" or "rgb" (3); by default that of ``in_channels``.
        in_channels: channels of the input; by default those of ``fusion``, or 4.

    Other arguments are those of ``FCN``, of each stream in "late".

    Raises:
        EdgesegError: unknown fusion, or channels that do not fit it.
    """
    fusion = fusion or {3: "rgb", 6: "late"}.get(in_channels or 4, "early")
    if fusion not in CHANNELS:
        raise EdgesegError(f"fusion {fusion!r}", f"one of {', '.join(CHANNELS)}")
    if in_channels not in (None, CHANNELS[fusion]):
        raise EdgesegError(
            f"fusion {fusion!r} of {in_channels} channels",
            f"{CHANNELS[fusion]} channels",
            "data of another modality, or another fusion",
        )
    kind = {"early": EarlyFCN, "late": LateFCN}.get(fusion, FCN)
    return kind(num_classes, stride=stride, backbone=backbone, width=width, fc_channels=fc_channels, dropout=dropout)


def widen(weight: Tensor, channels: int) -> Tensor:
    """Weights (out, 3, k, k) of a convolution on colours for more input channels, which get the mean of the three."""
    more = weight.mean(dim=1, keepdim=True).repeat(1, channels - weight.shape[1], 1, 1)
    return torch.cat([weight, more], dim=1)


def widen_first(network: nn.Module, channels: int) -> str:
    """Replace the network's first convolution by one on ``channels`` channels, with weights by ``widen``; returns its name."""
    name, old = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, bias=old.bias is not None  # type: ignore[arg-type]
    )  # fmt: skip
    with torch.no_grad():
        new.weight.copy_(widen(old.weight, channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)
    return name


def join_streams(colours: Mapping[str, Tensor], geometry: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ``LateFCN`` from those of two FCNs trained on colours and on HHA: table 4's late fusion without more training.

    Both networks' scores count half, so that the sum is as sure of itself as each was.
    """
    return {**_prefixed("colours", colours), **_prefixed("geometry", geometry)}


def _prefixed(stream: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Scores are linear in the scoring layers alone.
    halved = {name: tensor / 2 if name.startswith(("score.", "skips.")) else tensor for name, tensor in state.items()}
    return {f"{stream}.{name}": tensor for name, tensor in halved.items()}
