"""``edgeseg check``: what a target would refuse, run by a plugin or leave to another device, told before any build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.common import JsonOption, complete_models, print_json, print_lines, print_table
from edgeseg.errors import BackendError

if TYPE_CHECKING:
    import onnx

    from edgeseg.engines.targets import Target
    from edgeseg.engines.targets.check import Report

EXAMPLES = """
edgeseg check streets --target jetson-orin-jp6
edgeseg check model.onnx --target rtx --precision fp16
edgeseg check my_model --target jetson-orin-jp6 --dla --json
"""
_SHOWN = 3  # node names of a finding in the table


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model folder, the name of a shipped model, or a .onnx file.", autocompletion=complete_models
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME",
            help="jetson-orin-jp6, jetson-orin-jp7, jetson-thor-jp7, tensorrt-10, tensorrt-11, rtx, openvino or ort.",
        ),
    ],
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="NAME", help="fp32, fp16 or int8; int8 where there are ranges.")
    ] = None,
    dla: Annotated[bool, typer.Option("--dla", help="For the deep learning accelerator of a Jetson Orin.")] = False,
    allow_gpu_fallback: Annotated[
        bool, typer.Option("--allow-gpu-fallback", help="What the accelerator lacks may run on the GPU.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what a target would do with the model, operator by operator, before anything is built; exit 1 if it is refused."""
    from edgeseg.engines.targets import get_target
    from edgeseg.engines.targets.check import check_graph

    found = get_target(target)
    graph, used = _graph(model, found, precision)
    report = check_graph(graph, found, used, dla=dla, allow_gpu_fallback=allow_gpu_fallback)
    if as_json:
        print_json({"model": model, "target": target, "precision": used, "dla": dla, **_as_json(report, found)})
    else:
        _show(model, report, found, used)
    if report.refused:
        raise typer.Exit(1)


def _graph(model: str, target: Target, precision: str | None) -> tuple[onnx.ModelProto, str]:
    """The graph that a build would lower, and its precision."""
    if precision not in (None, "fp32", "fp16", "int8"):
        raise BackendError(f"--precision {precision}", "fp32, fp16 or int8", "choose one of these")
    plain = "fp16" if target.backend in ("tensorrt", "rtx") else "fp32"
    if Path(model).suffix == ".onnx":
        if precision == "int8":
            raise BackendError(
                f"--precision int8 with {model}", "a model folder with ranges.json", "run `edgeseg import` on it first"
            )
        return _file(Path(model)), precision or plain
    from edgeseg.engines.build import prepared_graph
    from edgeseg.folder import open_folder

    folder = open_folder(model)
    used = precision or ("int8" if folder.ranges.is_file() else plain)
    return prepared_graph(folder, used, target.backend), used


def _file(path: Path) -> onnx.ModelProto:
    from calibration import CalibrationError, prepare
    from edgeseg.onnx_guard import load_onnx
    from edgeseg.ops.functions import DOMAIN

    model = load_onnx(path)
    try:
        return prepare(model, keep_domains=(DOMAIN,))
    except CalibrationError:
        return model  # quantised already, or of an opset that cannot be converted: looked at as it is


def _as_json(report: Report, target: Target) -> dict[str, Any]:
    return {
        "what": target.what,
        "ok": not report.refused,
        "nodes": report.nodes,
        "findings": [vars(finding) for finding in report.findings],
        "sources": target.sources,
    }


def _show(model: str, report: Report, target: Target, precision: str) -> None:
    if report.findings:
        columns = ("operator", "nodes", "verdict", "why", "what to do", "where")
        print_table(f"{model} {precision} on {target.what}", columns, _rows(report), right=("nodes",))
    refused = sum(finding.verdict == "refused" for finding in report.findings)
    verdict = f"refused: {refused} finding{'s' if refused > 1 else ''} to mend first" if refused else "nothing stands in the way"
    print_lines([f"{model} on {target.what}: {verdict} ({report.nodes} nodes after lowering)"])


def _rows(report: Report) -> Iterator[tuple[object, ...]]:
    for finding in report.findings:
        where = ", ".join(finding.nodes[:_SHOWN]) + (", ..." if len(finding.nodes) > _SHOWN else "")
        yield finding.operator, len(finding.nodes) or None, finding.verdict, finding.reason, finding.fix, where
