"""Opening a model on an engine with its progress shown: shared by the commands that run models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg.cli.common import progress

if TYPE_CHECKING:
    from edgeseg.engines import Segmenter
    from edgeseg.folder import ModelFolder


def open_segmenter(
    folder: ModelFolder, backend: str, precision: str, threads: int | None, *, data: str | None = None, quiet: bool = False
) -> Segmenter:
    """The model on its engine, built and measured first where needed; ``data`` is what auto judges accuracy on."""
    from edgeseg.engines import load_segmenter
    from edgeseg.measure.samples import judging_frames

    with progress(f"opening {folder.manifest.name}", quiet=quiet) as bar:
        return load_segmenter(folder, backend, precision, threads, frames=judging_frames(folder, data), progress=bar.describe)
