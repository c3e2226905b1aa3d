"""Engines: a model folder becomes what this machine runs fastest, and is kept until something it depends on changes.

``build_engine`` makes or finds an engine, ``load_engine`` opens it as a ``Session``, ``Segmenter`` turns frames into
label maps, ``Predictor`` into what any other task promises. A backend is one file here and one line in ``REGISTRY``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.engines.session import BACKENDS as REGISTRY
from edgeseg.engines.session import PRECISIONS, Backend, BuildJob, Session, TensorSpec, default_threads

if TYPE_CHECKING:
    from edgeseg.engines.build import Engine
    from edgeseg.engines.open import build_engine, load_engine, load_predictor, load_segmenter
    from edgeseg.engines.predictor import Predictor
    from edgeseg.engines.segmenter import Segmenter

_LAZY = {
    "Engine": "edgeseg.engines.build",
    "build_engine": "edgeseg.engines.open",
    "load_engine": "edgeseg.engines.open",
    "Segmenter": "edgeseg.engines.segmenter",
    "load_segmenter": "edgeseg.engines.open",
    "Predictor": "edgeseg.engines.predictor",
    "load_predictor": "edgeseg.engines.open",
}

__all__ = [
    "PRECISIONS",
    "REGISTRY",
    "Backend",
    "BuildJob",
    "Engine",
    "Predictor",
    "Segmenter",
    "Session",
    "TensorSpec",
    "build_engine",
    "default_threads",
    "load_engine",
    "load_predictor",
    "load_segmenter",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
