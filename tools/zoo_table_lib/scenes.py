"""Procedural scenes, painted once and kept: a table trains dozens of networks on the same pictures."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from edgeseg import data
from edgeseg.data.base import Sample
from edgeseg.data.rooms import Rooms
from edgeseg.data.streets import Streets
from edgeseg.files import atomic_path, sha256_json

_PLACE = "EDGESEG_ZOO_SCENES"


def keep_scenes(directory: Path) -> None:
    """From now on ``streets`` and ``rooms`` come from files in ``directory``, painted where they are missing.

    The files are pickles: ``directory`` must be one's own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[_PLACE] = str(directory)
    data.REGISTRY["streets"] = f"{__name__}:StoredStreets"
    data.REGISTRY["rooms"] = f"{__name__}:StoredRooms"


class _Stored:
    """A data set whose samples are painted all at once and then read from one file."""

    def __init__(self, options: str, split: str) -> None:
        super().__init__(options, split)  # type: ignore[call-arg]
        self._file = Path(os.environ[_PLACE]) / f"{self.name}-{split}-{sha256_json([options])[:12]}.pickle"  # type: ignore[attr-defined]
        self._samples: list[Sample] | None = None

    def __getitem__(self, index: int) -> Sample:
        if self._samples is None:
            self._samples = self._load()
        return self._samples[index]

    def _load(self) -> list[Sample]:
        if self._file.is_file():
            samples: list[Sample] = pickle.loads(self._file.read_bytes())
            return samples
        paint = super().__getitem__  # type: ignore[misc]
        samples = [paint(index) for index in range(len(self))]  # type: ignore[arg-type]
        with atomic_path(self._file) as temporary:
            temporary.write_bytes(pickle.dumps(samples, protocol=5))
        return samples


class StoredStreets(_Stored, Streets):
    """``streets`` from a file."""


class StoredRooms(_Stored, Rooms):
    """``rooms`` from a file."""
