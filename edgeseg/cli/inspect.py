"""``edgeseg inspect``: what a model folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JsonOption, ModelArg, print_json, print_lines, print_table
from edgeseg.errors import EdgesegError, ManifestError
from edgeseg.folder import ModelFolder, open_folder
from edgeseg.manifest import Manifest

EXAMPLES = """
edgeseg inspect streets
edgeseg inspect my_model --json
edgeseg inspect streets --engine rtx-int8
"""


def command(
    model: ModelArg,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="KEY", help="Show the layers of this engine; the start of its key will do.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model folder holds and verify its files by their SHA-256; a damaged file ends with exit code 1."""
    folder = open_folder(model)
    if engine is not None:
        _show_engine(folder, engine, as_json)
        return
    result = inspect(folder)
    if as_json:
        print_json(result)
    else:
        _show(folder.manifest, result)
    damaged = [f"{name} ({state})" for name, state in result["files"].items() if state != "ok"]
    if damaged:
        raise EdgesegError(
            f"{folder.path}: {', '.join(damaged)}", "files as $.files describes them", "restore them, or make them again"
        )


def inspect(folder: ModelFolder) -> dict[str, Any]:
    """All that ``edgeseg inspect --json`` prints. A part that cannot be read says why under ``error``."""
    manifest = folder.manifest
    files = {name: _state(folder, name) for name in manifest.files}
    return {
        "path": folder.path,
        "manifest": manifest,
        "files": files,
        "graph": _graph(folder.graph) if files.get(folder.graph.name) == "ok" else None,
        "ranges": _ranges(folder.ranges) if folder.ranges.is_file() else None,
        "engines": _engines(folder),
    }


def _state(folder: ModelFolder, name: str) -> str:
    try:
        folder.require(name, "make it again")
    except ManifestError as error:
        return error.what.rpartition(": ")[2]
    return "ok"


def _graph(path: Path) -> dict[str, Any]:
    from edgeseg.onnx_guard import load_onnx
    from edgeseg.onnx_stats import macs, operators, parameters

    try:
        model = load_onnx(path)
    except EdgesegError as error:
        return {"error": str(error)}
    total = macs(model)
    return {
        "ir_version": model.ir_version,
        "opsets": {item.domain or "ai.onnx": item.version for item in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "nodes": len(model.graph.node),
        "operators": operators(model),
        "functions": [f"{item.domain}.{item.name}" for item in model.functions],
        "parameters": parameters(model),
        "gmacs": None if total is None else total / 1e9,
    }


def _ranges(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        widths = sorted(high - low for low, high in document["tensors"].values())
        return {
            "method": document["method"],
            "images": document["images"],
            "data": document.get("data", {}),
            "tensors": len(widths),
            "float_nodes": len(document.get("float_nodes", [])),
            "narrowest": widths[0] if widths else None,
            "widest": widths[-1] if widths else None,
            "warnings": document.get("warnings", []),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"cannot be read ({type(error).__name__}: {error})"}


def _engines(folder: ModelFolder) -> list[dict[str, Any]]:
    from edgeseg.engines.cache import engines, verify

    return [
        {
            "key": engine.info["key"],
            "backend": engine.backend,
            "precision": engine.precision,
            "bytes": engine.bytes,
            "problem": verify(engine) or None,
        }
        for engine in engines(folder)
    ]


def _show_engine(folder: ModelFolder, key: str, as_json: bool) -> None:
    from edgeseg.engines.nvidia.described import describe_engine

    result = describe_engine(folder, key)
    if as_json:
        print_json(result)
        return
    counts = ", ".join(f"{count} {name}" for name, count in result["summary"]["dtypes"].items())
    print_lines(
        [f"{result['key']}: {result['summary']['layers']} layers, {result['summary']['fused']} of several nodes; outputs: {counts}"]
    )
    print_table("Layers", ["nodes", "kind", "precision", "format", "tactic"], result["rows"])
    if result["dla"]:
        placed = [(item["name"], item["type"], "DLA" if item["dla"] else "GPU") for item in result["dla"]]
        print_table("Placement", ["layer", "type", "where"], placed)


# --- the report for people ---------------------------------------------------------------------------------------


def _show(manifest: Manifest, result: dict[str, Any]) -> None:
    print_lines(_headline(manifest))
    rows = [(name, f"{manifest.files[name].bytes / 1e6:.2f}", state) for name, state in result["files"].items()]
    print_table("Files", ["file", "MB", "state"], rows, right=["MB"])
    _show_graph(result["graph"])
    _show_ranges(result["ranges"])
    if result["engines"]:
        built = [
            (item["key"], item["backend"], item["precision"], f"{item['bytes'] / 1e6:.2f}", item["problem"])
            for item in result["engines"]
        ]
        print_table("Engines", ["key", "backend", "precision", "MB", "problem"], built, right=["MB"])
    if manifest.measurements:
        measured = [
            (item.what, item.backend, item.precision, item.data, item.date, _values(item.values)) for item in manifest.measurements
        ]
        print_table("Measured", ["what", "backend", "precision", "data", "date", "values"], measured)


def _headline(manifest: Manifest) -> list[str]:
    spec, made = manifest.input, manifest.provenance
    network = manifest.architecture.name if manifest.architecture else "adopted graph"
    lines = [
        f"{manifest.name}: {network}, {len(manifest.classes)} classes",
        f"classes: {', '.join(manifest.class_names)}",
        f"input {spec.name!r}: {spec.width}x{spec.height} {spec.colour_order}{', dynamic' if spec.dynamic else ''}, "
        f"(pixel * {spec.scale:.6g} - {list(spec.mean)}) / {list(spec.std)}",
        f"output {manifest.output.name!r}: {manifest.output.kind}",
    ]
    lines += [f"trained on: {made.training_data}"] if made.training_data else []
    lines += [f"licence: {made.licence}"] if made.licence else []
    if parity := manifest.parity:
        lines.append(f"parity: max abs {parity.max_abs:.3g}, argmax agreement {100 * parity.argmax_agreement:.2f}%")
    return lines


def _show_graph(graph: dict[str, Any] | None) -> None:
    if graph is None or "error" in graph:
        print_lines([f"graph: {graph['error'] if graph else 'none'}"])
        return
    cost = "unknown" if graph["gmacs"] is None else f"{graph['gmacs']:.3f}"
    opsets = ", ".join(f"{domain} {version}" for domain, version in graph["opsets"].items())
    print_lines(
        [
            f"graph: {graph['nodes']} nodes, {graph['parameters'] / 1e6:.3f} M parameters, {cost} GMACs, {opsets}",
            "operators: " + ", ".join(f"{name} {count}" for name, count in graph["operators"].items()),
        ]
    )


def _show_ranges(ranges: dict[str, Any] | None) -> None:
    if ranges is None or "error" in ranges:
        print_lines([f"ranges: {ranges['error'] if ranges else 'none; see `edgeseg calibrate`'}"])
        return
    counts = f"{ranges['tensors']} tensors, {ranges['float_nodes']} nodes in float"
    print_lines([f"ranges: {ranges['method']} of {ranges['images']} images, {counts}"])


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in list(values.items())[:6])
