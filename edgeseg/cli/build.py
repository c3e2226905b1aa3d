"""``edgeseg build``: an engine for this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    PrecisionOption,
    ThreadsOption,
    note,
    print_json,
    print_lines,
    progress,
)

EXAMPLES = """
edgeseg build streets
edgeseg build my_model --backend openvino --precision bf16
edgeseg build my_model --backend auto --precision auto --threads 2 --json
"""


def command(
    model: ModelArg,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:PATH", help="Frames on which auto judges the accuracy.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the cache has the engine.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build an engine for this machine, or find that the cached one is still good.

    With auto every installed backend (or precision) is built and measured, and the fastest whose accuracy holds is kept.
    """
    from edgeseg.engines import build_engine, default_threads
    from edgeseg.engines.select import recorded_choices
    from edgeseg.folder import open_folder
    from edgeseg.measure.samples import judging_frames

    folder = open_folder(model)
    automatic = "auto" in (backend, precision)
    frames = judging_frames(folder, data)
    with progress(f"building {folder.manifest.name}", quiet=as_json) as bar:
        engine = build_engine(folder, backend, precision, threads or default_threads(), bar.describe, frames=frames, force=force)
    report = {
        "backend": engine.backend,
        "precision": engine.precision,
        "threads": engine.info["fields"]["threads"],
        "key": engine.info["key"],
        "directory": engine.directory,
        "bytes": engine.bytes,
        "build_seconds": engine.info["build_seconds"],
        "created": engine.info["created"],
    }
    if automatic and (choices := recorded_choices(folder)):
        report["candidates"] = choices[-1]["candidates"]
    if as_json:
        print_json(report)
        return
    for item in report.get("candidates", []):
        held = "" if item["holds"] else ", not accurate enough"
        name = f"{item['backend']} {item['precision']}"
        note(f"{name}: {item['latency_ms']:.2f} ms, agrees with float32 on {item['argmax_agreement']:.2%} of pixels{held}")
    print_lines([f"{engine.backend} {engine.precision}: {engine.directory} ({engine.bytes / 1e6:.2f} MB)"])
