"""Build an engine, or find the one that is still good."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edgeseg.engines import cache as engine_cache
from edgeseg.engines.cache import INFO, Engine, cache_lock
from edgeseg.engines.keys import check_threads, engine_fields, engine_key, preprocessing_digest, target_profile
from edgeseg.engines.lowering import freeze_shape
from edgeseg.engines.options import BuildOptions, check_options
from edgeseg.engines.session import BuildJob, Progress, Session, check_precision, check_runnable, default_threads, get_backend
from edgeseg.errors import BackendError
from edgeseg.files import atomic_directory, check_writable, write_json
from edgeseg.folder import GRAPH, RANGES, ModelFolder

if TYPE_CHECKING:
    import onnx

__all__ = ["Engine", "build_named", "load_named", "open_built", "prepared_graph"]


def build_named(
    folder: ModelFolder,
    backend: str,
    precision: str,
    threads: int | None = None,
    progress: Progress | None = None,
    *,
    force: bool = False,
    options: BuildOptions | None = None,
) -> Engine:
    """The engine of a model for this machine: from the cache when nothing it depends on changed, else built.

    Args:
        backend: a name in ``edgeseg.engines.REGISTRY``.
        precision: fp32, bf16, fp16 or int8.
        threads: inference threads; all cores by default.
        progress: told in words what is being done.
        force: build even if the cache has it.
        options: further settings; another engine for each that changes what is built.

    Raises:
        BackendError: a backend, precision or option that is not there; int8 without ranges.
        CalibrationError: the ranges belong to another graph.
    """
    threads = threads or default_threads()
    check_threads(threads)
    adapter = get_backend(backend)
    check_precision(adapter, precision)
    options = options or BuildOptions()
    check_options(backend, getattr(adapter, "OPTIONS", ()), options)
    fields = engine_fields(folder, adapter, precision, threads, options)
    if not force and (engine := engine_cache.find(folder, fields) or _standing_in(folder, adapter, fields)):
        return engine
    _check_buildable(folder, backend, precision)
    check_writable(folder.engines)
    with cache_lock(folder):
        # Another process may have built it while this one waited.
        if not force and (engine := engine_cache.find(folder, fields)):
            return engine
        return _build(folder, adapter, fields, options, progress or (lambda _: None))


def _standing_in(folder: ModelFolder, adapter: Any, fields: dict[str, Any]) -> Engine | None:
    """The newest engine built with other options, perhaps elsewhere, that the backend says serves as well here."""
    serves = getattr(adapter, "serves", None)
    if serves is None:
        return None
    found = [item for item in engine_cache.engines(folder) if item.backend == adapter.NAME and serves(item.info["fields"], fields)]
    whole = (
        item for item in sorted(found, key=lambda item: str(item.info["created"]), reverse=True) if not engine_cache.verify(item)
    )
    return next(whole, None)


def _check_buildable(folder: ModelFolder, backend: str, precision: str) -> None:
    if backend != "torch":
        folder.require(GRAPH, f"run `edgeseg export {folder.path}`")
    if precision == "int8" and (RANGES not in folder.manifest.files or not folder.ranges.is_file()):
        fix = f"run `edgeseg calibrate {folder.path} --data DATA --split train`"
        raise BackendError(f"{folder.path}: no {RANGES}, which int8 needs", "a calibrated model", fix)


def _build(folder: ModelFolder, adapter: Any, fields: dict[str, Any], options: BuildOptions, progress: Progress) -> Engine:
    precision, threads = fields["precision"], fields["threads"]
    target = folder.engines / engine_key(fields)
    progress(f"building {adapter.NAME} {precision}" + (f" for {threads} threads" if threads > 1 else ""))

    def graph() -> onnx.ModelProto:
        return prepared_graph(folder, precision, adapter.NAME, fixed=not options.shapes)

    started = time.monotonic()
    with atomic_directory(target) as directory:
        adapter.build(BuildJob(directory, folder, folder.manifest, precision, threads, graph, options, progress))
        info = engine_cache.describe(
            directory,
            fields,
            build_seconds=round(time.monotonic() - started, 3),
            created=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        )
        write_json(directory / INFO, info)
    return Engine(target, info)


def prepared_graph(folder: ModelFolder, precision: str, backend: str, *, fixed: bool = True) -> onnx.ModelProto:
    """The float graph in canonical form, or for int8 the Q/DQ graph by the backend's profile here.

    Args:
        fixed: give the input the manifest's shape; else dimensions that the graph leaves free stay free.

    Raises:
        ManifestError: model.onnx or ranges.json differs from what the manifest says.
        CalibrationError: ranges.json was made for another graph.
    """
    from calibration import CalibrationError, Ranges, prepare, quantize
    from edgeseg.onnx_guard import load_onnx
    from edgeseg.ops.functions import DOMAIN

    path = folder.require(GRAPH, f"run `edgeseg export {folder.path}`")
    model = load_onnx(path)
    try:
        model = prepare(model, keep_domains=(DOMAIN,))
    except CalibrationError:
        if precision == "int8":
            raise
        # The float precisions need no canonical form: a graph that is quantised already or of an old opset runs as it is.
    if precision == "int8":
        ranges = Ranges.load(folder.require(RANGES, f"run `edgeseg calibrate {folder.path} --data DATA --split train`"))
        if ranges.data.get("preprocessing", digest := preprocessing_digest(folder.manifest)) != digest:
            fix = f"run `edgeseg calibrate {folder.path} --data DATA --split train`"
            raise BackendError(
                f"{folder.ranges}: made with another $.input than model.json has now", "ranges of this preprocessing", fix
            )
        model = quantize(model, ranges, profile=target_profile(backend))
    spec = folder.manifest.input
    if not fixed:
        return model
    return freeze_shape(model, spec.name, spec.shape)


def load_named(
    folder: ModelFolder, backend: str, precision: str, threads: int | None = None, progress: Progress | None = None
) -> Session:
    """Open the engine, building it first if it is absent, out of date or damaged.

    Every file's SHA-256 is verified before a backend reads it.
    """
    check_runnable(backend)
    engine = build_named(folder, backend, precision, threads, progress)
    return open_built(engine)


def open_built(engine: Engine) -> Session:
    """Open an engine that ``build_named`` gave."""
    return get_backend(engine.backend).load(engine.directory, engine.precision, int(engine.info["fields"]["threads"]))
