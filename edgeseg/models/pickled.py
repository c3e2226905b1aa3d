"""PyTorch's pickled files, read without running what they ask for and without believing the sizes they declare."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from edgeseg.errors import EdgesegError

# How torch tells a pickle that asks for code (or is of protocol 4, which only the unsafe reader takes) from a damaged one.
_CODE = ("GLOBAL", "unsupported class", "call reduce", "build for type", "operand 147", "operand 149")
_WHOLE = "a whole file, as torch.save writes it"


def load_pickled(path: Path, trust: bool = False) -> Any:
    """What ``torch.save`` put into ``path``, on the CPU.

    Args:
        trust: run whatever code the pickle asks for. Only for files you made yourself.

    Raises:
        FileNotFoundError: no such file.
        EdgesegError: empty, truncated, no such file format, compressed, or a pickle that needs more than tensors and numbers.
    """
    try:
        if not path.stat().st_size:
            raise EdgesegError(f"{path}: an empty file", _WHOLE)
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except (FileNotFoundError, EdgesegError):
        raise
    except Exception as error:  # a malformed pickle can raise anything
        if isinstance(error, pickle.UnpicklingError) and any(mark in str(error) for mark in _CODE):
            raise EdgesegError(
                f"{path}: the pickle asks for more than plain tensors, which could run code",
                "a state dict of tensors",
                "convert it to safetensors, or give --trust if you made it yourself",
            ) from error
        raise EdgesegError(f"{path}: unreadable ({_reason(error)})", _WHOLE) from error


def _check_archive(path: Path) -> None:
    """Refuse a zip whose members are larger than the file: torch.save never compresses, so that is a bomb."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        declared = sum(member.file_size for member in archive.infolist())
    if declared > path.stat().st_size:
        raise EdgesegError(f"{path}: {path.stat().st_size} bytes that unpack to {declared}", _WHOLE)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__
