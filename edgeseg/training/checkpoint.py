"""Training state on disk: one atomic file an epoch, loaded without running any pickled code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgeseg.errors import EdgesegError
from edgeseg.files import atomic_path
from edgeseg.models.pickled import load_pickled

KEYS = {"config", "epoch", "best", "network", "optimiser", "average", "average_steps"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        EdgesegError: missing, truncated, no training state, or a pickle that wants more than tensors.
    """
    fix = "start again in a new directory, without --resume"
    try:
        state = load_pickled(path)
    except FileNotFoundError as error:
        raise EdgesegError(f"{path}: no checkpoint", "a run that finished at least one epoch", "start without --resume") from error
    except EdgesegError as error:
        raise EdgesegError(error.what, "a checkpoint written by `edgeseg train`", fix) from error
    if not isinstance(state, dict) or not set(state) >= KEYS:
        raise EdgesegError(f"{path}: not the state of a training run", "a checkpoint written by `edgeseg train`", fix)
    return state
