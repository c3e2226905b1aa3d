"""Training state on disk: one atomic file an epoch, loaded without running any pickled code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from edgeseg.errors import EdgesegError
from edgeseg.files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        EdgesegError: missing, truncated, or a pickle that wants more than tensors.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise EdgesegError(
            f"{path}: no checkpoint", "a run that finished at least one epoch", "start it without --resume"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise EdgesegError(
            f"{path}: not a usable checkpoint ({reason})", "a file written by `edgeseg train`", "start again without --resume"
        ) from error
    return state
