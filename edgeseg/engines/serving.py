"""Which of the classes that turn frames into predictions serves a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter, serves
from edgeseg.engines.session import Session
from edgeseg.engines.tiled import TiledPredictor

if TYPE_CHECKING:
    from edgeseg.manifest import Manifest


def open_predictor(session: Session, manifest: Manifest, threads: int = 1) -> Segmenter | Predictor:
    """A ``Segmenter``, whose path is fused, where it serves the model; a ``TiledPredictor`` for tiles; else a ``Predictor``."""
    if serves(manifest):
        return Segmenter(session, manifest, threads)
    return (TiledPredictor if manifest.tile is not None else Predictor)(session, manifest, threads)
