"""URI arguments: a path, and words behind commas."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgeseg.errors import DataError
from edgeseg.manifest import Modality

MODALITIES: tuple[Modality, ...] = ("rgb", "rgbd", "hha", "rgb-hha")


def split_words(argument: str, known: Collection[str], name: str) -> tuple[Path, list[str]]:
    """``PATH,WORD,WORD`` as path and words.

    Raises:
        DataError: a word that is not known.
    """
    path, *words = argument.split(",")
    for word in words:
        if word not in known:
            raise DataError(f"--data {name}:{argument}: {word!r}", f"{', '.join(sorted(known))} behind the path")
    return Path(path).expanduser(), words


def modality_of(words: Collection[str]) -> Modality:
    """The modality among the words, "rgb" where there is none."""
    found: list[Modality] = [name for name in MODALITIES if name in words]
    return found[0] if found else "rgb"
