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
edgeseg build streets --backend rtx --precision int8 --target sm86,sm89,sm120
edgeseg build my_model --backend tensorrt --precision fp16 --dla 0 --allow-gpu-fallback
"""

_NVIDIA = "NVIDIA"  # the panel of options that only tensorrt, rtx and ort-cuda take


def command(
    model: ModelArg,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:PATH", help="Frames on which auto judges the accuracy.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the cache has the engine.")] = False,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="SM,...", help="GPUs to build for, such as sm86,sm89 (rtx).", rich_help_panel=_NVIDIA),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes",
            metavar="MIN,OPT,MAX",
            help="Range of input shapes, such as 1x3x240x320,1x3x360x480,1x3x720x960; again for a further profile.",
            rich_help_panel=_NVIDIA,
        ),
    ] = None,
    workspace_mb: Annotated[
        int | None, typer.Option("--workspace-mb", metavar="MIB", help="Most memory of one layer.", rich_help_panel=_NVIDIA)
    ] = None,
    builder_level: Annotated[
        int | None, typer.Option("--builder-level", metavar="0..5", help="Builds faster ... runs faster.", rich_help_panel=_NVIDIA)
    ] = None,
    timing_cache: Annotated[
        str | None,
        typer.Option(
            "--timing-cache", metavar="FILE", help="Measured tactics; beside the engines by default.", rich_help_panel=_NVIDIA
        ),
    ] = None,
    dla: Annotated[
        int | None, typer.Option("--dla", metavar="CORE", help="Run on this DLA core of a Jetson.", rich_help_panel=_NVIDIA)
    ] = None,
    allow_gpu_fallback: Annotated[
        bool, typer.Option("--allow-gpu-fallback", help="Layers that the DLA lacks go to the GPU.", rich_help_panel=_NVIDIA)
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="For every GPU from Ampere on.", rich_help_panel=_NVIDIA)
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later versions of the library too.", rich_help_panel=_NVIDIA)
    ] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Weights can be replaced later.", rich_help_panel=_NVIDIA)] = False,
    cuda_graph: Annotated[
        bool,
        typer.Option("--cuda-graph", help="Replay one CUDA graph (ort-cuda; tensorrt and rtx always do).", rich_help_panel=_NVIDIA),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="End the build after so long.", rich_help_panel=_NVIDIA)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build an engine for this machine, or find that the cached one is still good.

    With auto every installed backend (or precision) is built and measured, and the fastest whose accuracy holds is kept.
    """
    from edgeseg.engines import build_engine, default_threads
    from edgeseg.engines.options import BuildOptions, ShapeRange
    from edgeseg.engines.select import recorded_choices
    from edgeseg.folder import open_folder
    from edgeseg.measure.samples import judging_frames

    options = BuildOptions(
        shapes=tuple(ShapeRange.parse(text) for text in shapes or ()),
        workspace_mb=workspace_mb,
        timing_cache=timing_cache,
        builder_level=builder_level,
        dla_core=dla,
        allow_gpu_fallback=allow_gpu_fallback,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        refit=refit,
        cuda_graph=cuda_graph,
        targets=tuple(name.strip().lower() for name in target.split(",")) if target else (),
        timeout_s=timeout,
    )
    folder = open_folder(model)
    automatic = "auto" in (backend, precision)
    frames = judging_frames(folder, data)
    with progress(f"building {folder.manifest.name}", quiet=as_json) as bar:
        engine = build_engine(
            folder, backend, precision, threads or default_threads(), bar.describe, frames=frames, force=force, options=options
        )
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
