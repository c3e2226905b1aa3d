"""Segmentation networks: one file a family, one line in ``REGISTRY``.

A network maps (N, C, H, W) float32 to logits (N, K, h, w), perhaps smaller than the input; in training mode it may return a
list of logits whose first is the main one and whose others are deep supervision.

Networks for other tasks, and those whose loss is no sum over pixels, say so by class attributes:
    task: a ``Task`` of the manifest; "semantic" by default.
    kind: an ``OutputKind``; "logits" by default. In evaluation mode the network returns a tuple of the outputs that the
        manifest names for the kind.
    own_loss: True where ``forward(x, targets)`` in training mode returns the losses by name, a dict of scalars; ``targets`` is
        a list of ``Target``.
    check_size(height, width): raises ``EdgesegError`` naming the nearest sizes it can take; any size by default.
Constructor arguments that the data decide, filled in by training where a constructor has them: ``in_channels`` (of the
modality), ``things`` (indices of the thing classes), ``num_keypoints``, ``extra_classes`` (sizes of the further label spaces).
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.errors import EdgesegError
from edgeseg.manifest import OutputKind, Task

if TYPE_CHECKING:
    from torch import nn

REGISTRY = {
    "deeplab_v1": "edgeseg.models.deeplab_v1:DeepLabV1",
    "deeplab_v2": "edgeseg.models.deeplab_v2:DeepLabV2",
    "deeplab_v3": "edgeseg.models.deeplab_v3:DeepLabV3",
    "deeplab_v3_plus": "edgeseg.models.deeplab_v3_plus:DeepLabV3Plus",
    "faster_rcnn": "edgeseg.models.mask_rcnn:faster_rcnn",
    "fcn16s": "edgeseg.models.fcn:fcn16s",
    "fcn32s": "edgeseg.models.fcn:fcn32s",
    "fcn8s": "edgeseg.models.fcn:fcn8s",
    "fcn_pool3": "edgeseg.models.fcn:fcn_pool3",
    "fcn_pool4": "edgeseg.models.fcn:fcn_pool4",
    "fcn_pool5": "edgeseg.models.fcn:fcn_pool5",
    "joint_fcn": "edgeseg.models.joint:JointFCN",
    "keypoint_rcnn": "edgeseg.models.mask_rcnn:keypoint_rcnn",
    "mask2former": "edgeseg.models.mask2former:Mask2Former",
    "mask_rcnn": "edgeseg.models.mask_rcnn:mask_rcnn",
    "maskformer": "edgeseg.models.maskformer:MaskFormer",
    "mil_fcn": "edgeseg.models.mil_fcn:MilFCN",
    "pan": "edgeseg.models.pan:PAN",
    "panoptic_fpn": "edgeseg.models.panoptic_fpn:PanopticFPN",
    "patch_classifier": "edgeseg.models.patch_classifier:PatchClassifier",
    "pspnet": "edgeseg.models.pspnet:PSPNet",
    "refinenet": "edgeseg.models.refinenet:RefineNet",
    "rgbd_fcn": "edgeseg.models.rgbd_fcn:rgbd_fcn",
    "segmenter": "edgeseg.models.segmenter:Segmenter",
    "segnet": "edgeseg.models.segnet:SegNet",
    "segnet_basic": "edgeseg.models.segnet:SegNetBasic",
    "unet": "edgeseg.models.unet:UNet",
    "unet_published": "edgeseg.models.unet_published:UNetPublished",
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The network ``name`` with ``num_classes`` outputs; ``options`` are its constructor's keyword arguments.

    Raises:
        EdgesegError: unknown name or option, or a value that the constructor cannot use.
    """
    if name not in REGISTRY:
        raise EdgesegError(f"architecture {name!r}", f"one of {', '.join(sorted(REGISTRY))}")
    if num_classes < 1:
        raise EdgesegError(f"{num_classes} classes", "at least 1")
    module, _, factory = REGISTRY[name].partition(":")
    try:
        network: nn.Module = getattr(import_module(module), factory)(num_classes, **options)
    except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgesegError(f"architecture {name!r}: {reason[:200]}", "options and values that its constructor takes") from error
    return network


def accepts(name: str) -> set[str]:
    """Names of the arguments that the constructor of architecture ``name`` has; empty for an unknown one."""
    module, _, factory = REGISTRY.get(name, "").partition(":")
    if not module:
        return set()
    parameters = inspect.signature(getattr(import_module(module), factory)).parameters
    return {key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}


def task_of(network: nn.Module) -> Task:
    """What the network is for."""
    return getattr(network, "task", "semantic")


def kind_of(network: nn.Module) -> OutputKind:
    """What the network returns in evaluation mode."""
    return getattr(network, "kind", "logits")


def has_own_loss(network: nn.Module) -> bool:
    """Whether the network computes its losses itself, in ``forward(x, targets)``."""
    return bool(getattr(network, "own_loss", False))


def check_size(network: nn.Module, height: int, width: int) -> None:
    """Refuse an input size that the network cannot take.

    Raises:
        EdgesegError: names the nearest sizes it can.
    """
    if check := getattr(network, "check_size", None):
        check(height, width)
