"""Parameters and floating-point operations of a network, counted without computing anything."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeseg import models


def count(arch: str, classes: int, options: dict[str, Any], size: tuple[int, int], channels: int = 3) -> tuple[int, float]:
    """Number of parameters, and GFLOPs (a multiply-add is two) of one picture of ``size`` (width, height).

    Convolutions and matrix products count, as in the papers. Networks whose graph depends on values that do not exist on the
    meta device are counted on the CPU.
    """
    with torch.device("meta"):
        network = models.create(arch, classes, **options).eval()
    parameters = sum(item.numel() for item in network.parameters())
    try:
        flops = _flops(network, torch.zeros(1, channels, size[1], size[0], device="meta"))
    except (NotImplementedError, RuntimeError):
        network = models.create(arch, classes, **options).eval()
        flops = _flops(network, torch.zeros(1, channels, size[1], size[0]))
    return parameters, flops / 1e9


def _flops(network: torch.nn.Module, x: torch.Tensor) -> int:
    network.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops())
