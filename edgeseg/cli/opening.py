"""Opening a model on an engine with its progress shown: shared by the commands that run models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg.cli.common import progress

if TYPE_CHECKING:
    from edgeseg.engines import Predictor, Segmenter
    from edgeseg.folder import ModelFolder


def open_predictor(
    folder: ModelFolder, backend: str, precision: str, threads: int | None, *, data: str | None = None, quiet: bool = False
) -> Segmenter | Predictor:
    """The model on its engine, built and measured first where needed; ``data`` is what auto judges accuracy on."""
    from edgeseg.engines import load_predictor
    from edgeseg.measure.samples import judging_frames

    with progress(f"opening {folder.manifest.name}", quiet=quiet) as bar:
        return load_predictor(folder, backend, precision, threads, frames=judging_frames(folder, data), progress=bar.describe)
