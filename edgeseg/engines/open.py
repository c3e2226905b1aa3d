"""The front door: an engine by name or by measurement, as a session or as a segmenter."""

from __future__ import annotations

from typing import Any

from edgeseg.engines.build import Engine, build_named, open_built
from edgeseg.engines.keys import check_threads
from edgeseg.engines.options import BuildOptions
from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.engines.select import choose
from edgeseg.engines.serving import open_predictor
from edgeseg.engines.session import Frames, Progress, Session, check_runnable, default_threads
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder


def build_engine(
    folder: ModelFolder,
    backend: str = "auto",
    precision: str = "int8",
    threads: int | None = None,
    progress: Progress | None = None,
    *,
    frames: Frames | None = None,
    force: bool = False,
    options: BuildOptions | None = None,
) -> Engine:
    """The engine of a model for this machine: from the cache when nothing it depends on changed, else built.

    Args:
        backend: a name in ``edgeseg.engines.REGISTRY`` or "auto", which measures and keeps the fastest (``select``).
        precision: fp32, bf16, fp16, int8, or "auto".
        threads: inference threads; all cores by default.
        progress: told in words what is being done.
        frames: gives the (H, W, 3) uint8 BGR frames that "auto" judges accuracy on; synthetic ones by default.
        force: build even if the cache has it.
        options: further settings of one backend; not with "auto".

    Raises:
        BackendError: a backend or precision that is not there; int8 without ranges.
        CalibrationError: the ranges belong to another graph.
    """
    threads = threads or default_threads()
    check_threads(threads)
    if "auto" in (backend, precision):
        if options is not None and (given := options.given()):
            raise BackendError(f"options {', '.join(given)} with auto", "--backend and --precision by name", "name both")
        backend, precision = choose(folder, backend, precision, threads, progress=progress, frames=frames)
    return build_named(folder, backend, precision, threads, progress, force=force, options=options)


def load_engine(
    folder: ModelFolder,
    backend: str = "auto",
    precision: str = "int8",
    threads: int | None = None,
    progress: Progress | None = None,
    *,
    frames: Frames | None = None,
) -> Session:
    """Open the engine that ``build_engine`` gives; every file's SHA-256 is verified before a backend reads it."""
    if backend != "auto":
        check_runnable(backend)
    return open_built(build_engine(folder, backend, precision, threads, progress, frames=frames))


def load_segmenter(
    folder: ModelFolder, backend: str = "auto", precision: str = "auto", threads: int | None = None, **options: Any
) -> Segmenter:
    """The engine that ``load_engine`` opens, as a segmenter whose own stages use as many threads.

    ``options`` are ``progress`` and ``frames``.
    """
    threads = threads or default_threads()
    return Segmenter(load_engine(folder, backend, precision, threads, **options), folder.manifest, threads)


def load_predictor(
    folder: ModelFolder, backend: str = "auto", precision: str = "auto", threads: int | None = None, **options: Any
) -> Segmenter | Predictor:
    """The engine that ``load_engine`` opens, behind what the model's task needs: see ``open_predictor``.

    ``options`` are ``progress`` and ``frames``.
    """
    threads = threads or default_threads()
    return open_predictor(load_engine(folder, backend, precision, threads, **options), folder.manifest, threads)
