"""``edgeseg cache``: list, explain and clear the built engines."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    PrecisionOption,
    ThreadsOption,
    print_json,
    print_lines,
    print_table,
)

EXAMPLES = """
edgeseg cache list
edgeseg cache list my_model
edgeseg cache explain my_model --backend openvino --precision int8
edgeseg cache clear my_model
"""

command = typer.Typer(no_args_is_help=True, add_completion=False)


@command.command("list")
def list_engines(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[DIR]", help="A model folder or a shipped model; all shipped models in use by default."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the built engines and whether each is still whole."""
    from edgeseg.engines.cache import Engine, entries
    from edgeseg.folder import open_folder, working_copies

    def details(engine: Engine | None) -> dict[str, Any]:
        info = engine.info if engine else {"fields": {}}
        return {
            **{name: info["fields"].get(name) for name in ("backend", "precision", "threads")},
            "bytes": engine.bytes if engine else None,
            **{name: info.get(name) for name in ("build_seconds", "created")},
        }

    folders = working_copies() if model is None else [open_folder(model)]
    rows = [
        {"key": path.name, "model": folder.manifest.name, **details(engine), "problem": problem or None}
        for folder in folders
        for path, engine, problem in entries(folder)
    ]
    if as_json:
        print_json({"engines": rows})
        return
    if not rows:
        print_lines([f"no engines of {model or 'the shipped models'}"])
        return
    columns = ["model", "key", "backend", "precision", "threads", "bytes", "created", "problem"][model is not None :]
    title = f"{len(rows)} engines of {model or 'the shipped models'}"
    for row in rows:
        row["created"] = str(row["created"] or "")[:19]  # to the second, UTC
    print_table(title, columns, [[row[name] for name in columns] for row in rows], right=["threads", "bytes"])


@command.command("explain")
def explain_engine(
    model: ModelArg,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a build would reuse an engine, and if not, which field changed from what to what."""
    from edgeseg.engines import default_threads
    from edgeseg.engines.cache import explain
    from edgeseg.engines.keys import engine_fields
    from edgeseg.engines.session import PRECISIONS, check_precision, get_backend, installed
    from edgeseg.folder import open_folder

    folder = open_folder(model)
    if "auto" not in (backend, precision):
        check_precision(get_backend(backend), precision)
    names = [name for name in installed() if name != "torch"] if backend == "auto" else [backend]
    kinds = PRECISIONS if precision == "auto" else (precision,)
    answers = [
        explain(folder, engine_fields(folder, adapter, kind, threads or default_threads()))
        for adapter in map(get_backend, names)
        for kind in kinds
        if kind in adapter.PRECISIONS and not adapter.supports(kind)
    ]
    if as_json:
        print_json({"engines": answers})
        return
    print_lines(f"{answer['key']}: {answer['status']} ({answer['reason']})" for answer in answers)


@command.command("clear")
def clear_engines(model: ModelArg, as_json: JsonOption = False) -> None:
    """Remove every built engine of a model folder and what auto chose."""
    from edgeseg.engines.cache import clear
    from edgeseg.folder import open_folder

    count, freed = clear(open_folder(model))
    if as_json:
        print_json({"removed": count, "bytes": freed})
        return
    print_lines([f"removed {count} engines, {freed / 1e6:.2f} MB"])
