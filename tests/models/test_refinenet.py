"""RefineNet: sizes by number, its blocks by hand, and export."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch
import torch.nn.functional as F
from torch import nn

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.models.refinenet import ChainedPooling, RefineNet, ResidualUnit
from tests.models.exported import check_export

SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 8, "links": 2, "units": 1, "backbone_options": {"width": 8}}


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    # 99 M, 118 M and 134 M are what Nekrasov et al. (BMVC 2018, table 2) count for the released networks.
    [("resnet50", 99_060_309), ("resnet101", 118_052_437), ("resnet152", 133_696_085)],
)
def test_parameter_counts(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        network = RefineNet(21, backbone)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_chained_pooling_by_hand() -> None:
    chain = ChainedPooling(2, 2)
    x = torch.randn(1, 2, 9, 7)
    with torch.inference_mode():
        start = F.relu(x)
        first = chain.links[0](F.max_pool2d(start, 5, 1, 2))
        second = chain.links[1](F.max_pool2d(first, 5, 1, 2))
        torch.testing.assert_close(chain(x), start + first + second)


def test_residual_units_start_as_identities_and_leave_their_input() -> None:
    network = models.create("refinenet", 3, **SMALL)
    units = [module for module in network.modules() if isinstance(module, ResidualUnit)]
    assert len(units) == 4 * 3
    x = torch.randn(1, units[0].conv1.in_channels, 5, 5)
    kept = x.clone()
    with torch.inference_mode():
        assert torch.equal(units[0](x), kept)
    assert torch.equal(x, kept)


def test_every_scale_reaches_the_logits_and_learns() -> None:
    network = models.create("refinenet", 3, **SMALL).train()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for block in network.blocks:
        assert block.reduce.weight.grad.abs().sum() > 0
    assert [block.coarse is None for block in network.blocks] == [True, False, False, False]


def test_it_takes_no_output_stride() -> None:
    with pytest.raises(EdgesegError, match="output_stride"):
        models.create("refinenet", 3, output_stride=16, **SMALL)


def test_export_at_any_size() -> None:
    torch.manual_seed(0)
    network = models.create("refinenet", 4, **SMALL)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
    shapes = [(1, 3, 64, 96), (2, 3, 37, 51)]
    check_export(network, ("logits",), shapes[0], shapes)
