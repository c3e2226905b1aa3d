"""The backbones whose last stages can trade stride for dilation, by name."""

from __future__ import annotations

from typing import Any

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.mobilenet_v2 import MobileNetV2
from edgeseg.models.backbones.resnet import LAYOUTS, ResNet
from edgeseg.models.backbones.xception import Xception

Backbone = ResNet | MobileNetV2 | Xception
NAMES = (*LAYOUTS, "xception65", "mobilenet_v2")


def make_backbone(
    name: str, output_stride: int, options: dict[str, Any] | None = None, strides: tuple[int, ...] = (8, 16), **more: Any
) -> Backbone:
    """The backbone ``name``, whose four features have ``channels``.

    Args:
        options: JSON keyword arguments of its constructor, such as ``{"width": 32}``.
        strides: the output strides that the network takes.
        more: further keyword arguments, those that ``options`` does not give.

    Raises:
        EdgesegError: an unknown name or a stride that is not in ``strides``.
    """
    if output_stride not in strides:
        raise EdgesegError(f"output_stride {output_stride}", " or ".join(str(stride) for stride in strides))
    if name not in NAMES:
        raise EdgesegError(f"backbone {name!r}", f"one of {', '.join(NAMES)}")
    arguments = {**more, **(options or {})}
    if name == "mobilenet_v2":
        return MobileNetV2(output_stride, **arguments)
    return Xception(output_stride, **arguments) if name == "xception65" else ResNet(name, output_stride, **arguments)
