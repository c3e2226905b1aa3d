"""``edgeseg plugins``: build the TensorRT plugin library on this machine, and check the one that is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import JsonOption, note, print_json, print_lines, print_table, progress

EXAMPLES = """
edgeseg plugins build
edgeseg plugins build --tensorrt-root ~/TensorRT-10.3.0.26 --arch 87
edgeseg plugins check
edgeseg plugins check --library ./libedgeseg_trt.so --json
"""

command = typer.Typer(no_args_is_help=True, add_completion=False)


@command.command("build")
def build_plugins(
    tensorrt_root: Annotated[
        Path | None,
        typer.Option(
            "--tensorrt-root", metavar="DIR", help="Where include/NvInferRuntime.h lies; also TENSORRT_ROOT, else the system's."
        ),
    ] = None,
    arch: Annotated[
        str, typer.Option("--arch", metavar="SM,...", help="GPUs, such as 87 or 86,89; this Jetson's, or all that nvcc knows.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Where to put it; where engines look by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile libedgeseg_trt.so with the CUDA toolkit and the TensorRT headers of this machine.

    Headers of TensorRT 10.3 to 11 are taken; a library built with 10.3's serves all of them.
    """
    from edgeseg.plugins.build import build

    loud = os.environ.get("EDGESEG_DEBUG", "0") not in ("", "0")
    with progress("compiling the plugins", quiet=as_json) as bar:

        def show(line: str) -> None:
            if loud:
                note(line)
            elif line.startswith("["):  # make's own percentages
                bar.describe(f"compiling the plugins {line[:4]}%" if line[4:5] == "%" else "compiling the plugins")

        library = build(out, tensorrt_root=tensorrt_root, architectures=arch, on_line=show)
    if as_json:
        print_json({"library": library.path, "sha256": library.sha256, "bytes": library.path.stat().st_size})
        return
    print_lines([f"{library.path}: {library.path.stat().st_size / 1e6:.1f} MB, sha256 {library.sha256[:12]}..."])
    note("edgeseg plugins check shows what TensorRT finds in it")


@command.command("check")
def check_plugins(
    library: Annotated[
        Path | None, typer.Option("--library", metavar="PATH", help="By default the one that engines are built with.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load the library into the registry of the installed TensorRT and list the plugins that it finds.

    The module tensorrt, tensorrt_lean or tensorrt_dispatch; a GPU is not needed.
    """
    from edgeseg.plugins.library import open_library, plugin_library
    from edgeseg.plugins.registry import register

    found = plugin_library() if library is None else open_library(library)
    answer = register(found.path)
    if as_json:
        print_json({"library": found.path, "sha256": found.sha256, "registry": answer})
        return
    title = f"{found.path} in {answer.module} {answer.version}"
    rows = [(creator["name"], creator["version"], ", ".join(creator["fields"])) for creator in answer.creators]
    print_table(title, ["plugin", "version", "fields"], rows)
