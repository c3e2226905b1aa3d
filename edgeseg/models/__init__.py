"""Segmentation networks: one file a family, one line in ``REGISTRY``.

Every network maps (N, 3, H, W) float32 to logits (N, C, h, w), perhaps smaller than the input; in training mode it may
return a list of logits whose first is the main one and whose others are deep supervision.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.errors import EdgesegError

if TYPE_CHECKING:
    from torch import nn

REGISTRY = {
    "deeplab_v3_plus": "edgeseg.models.deeplab_v3_plus:DeepLabV3Plus",
    "fcn16s": "edgeseg.models.fcn:fcn16s",
    "fcn32s": "edgeseg.models.fcn:fcn32s",
    "fcn8s": "edgeseg.models.fcn:fcn8s",
    "segnet": "edgeseg.models.segnet:SegNet",
    "unet": "edgeseg.models.unet:UNet",
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The network ``name`` with ``num_classes`` outputs; ``options`` are its constructor's keyword arguments.

    Raises:
        EdgesegError: unknown name or option.
    """
    if name not in REGISTRY:
        raise EdgesegError(f"architecture {name!r}", f"one of {', '.join(sorted(REGISTRY))}")
    module, _, factory = REGISTRY[name].partition(":")
    try:
        network: nn.Module = getattr(import_module(module), factory)(num_classes, **options)
    except TypeError as error:
        raise EdgesegError(f"architecture {name!r}: {error}", "options that its constructor takes") from error
    return network
