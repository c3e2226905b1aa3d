"""Which query answers for which segment: bipartite matching of least cost (Carion et al., ECCV 2020, equation 1)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from edgeseg.errors import EdgesegError


@torch.no_grad()
def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of least total cost.

    Args:
        cost: (Q, T) of query q taken for segment t.

    Returns:
        min(Q, T) queries and their segments, int64, on the device of ``cost``; each is used once.

    Raises:
        EdgesegError: a cost that is NaN or infinite.
    """
    if not torch.isfinite(cost).all():
        what = f"{int((~torch.isfinite(cost)).sum())} of {cost.numel()} matching costs NaN or infinite"
        raise EdgesegError(what, "finite predictions", "lower --lr, or resume with --no-bf16")
    queries, segments = linear_sum_assignment(cost.detach().float().cpu().numpy())
    return torch.as_tensor(queries, device=cost.device), torch.as_tensor(segments, device=cost.device)
