"""``edgeseg zoo``: the models shipped in the package, and the architectures that can be trained."""

from __future__ import annotations

import inspect
import json
import re
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JsonOption, print_json, print_table
from edgeseg.folder import GRAPH, MANIFEST, shipped_models, zoo_directory
from edgeseg.manifest import Manifest, load_manifest

EXAMPLES = """
edgeseg zoo
edgeseg zoo --json
edgeseg zoo --architectures
"""


def command(
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List what `edgeseg train` can train instead, with its recipes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models shipped in the package: what they take, what they tell apart, and how well."""
    if architectures:
        _list_architectures(as_json)
        return
    entries = [describe(name) for name in shipped_models()]
    if as_json:
        print_json({"models": entries})
        return
    columns = ["name", "architecture", "input", "classes", "params M", "size MB", "training data", "licence", "mIoU"]
    print_table("Shipped models", columns, [_row(entry) for entry in entries], right=("classes", "params M", "size MB", "mIoU"))


def _list_architectures(as_json: bool) -> None:
    entries = known_architectures()
    if as_json:
        print_json({"architectures": entries})
        return
    rows = [[entry["name"], entry["what"], ", ".join(entry["recipes"]) or None] for entry in entries]
    print_table("Architectures", ["name", "what", "recipes"], rows)


def known_architectures() -> list[dict[str, Any]]:
    """Each name of the registry, what its documentation says first, and the recipes that train it."""
    from importlib import import_module

    from edgeseg.folder import recipes, recipes_directory
    from edgeseg.models import REGISTRY

    trained = {name: json.loads((recipes_directory() / f"{name}.json").read_text("utf-8"))["arch"] for name in recipes()}
    entries = []
    for name, place in sorted(REGISTRY.items()):
        module, _, factory = place.partition(":")
        family = import_module(module)
        made_by = getattr(family, factory)
        what = _first_sentence(family.__doc__)
        if not inspect.isclass(made_by):  # one of several of its family
            what = f"{_first_sentence(made_by.__doc__)} | {what}"
        entries.append({"name": name, "what": what, "recipes": [recipe for recipe, arch in trained.items() if arch == name]})
    return entries


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"\.(?: |$)(?![a-z0-9])", paragraph.replace("et al. ", "et al.~"))[0].replace("~", " ").strip()


def describe(name: str) -> dict[str, Any]:
    """What ``edgeseg zoo`` tells of one shipped model; ``mean_iou`` is None if none was measured."""
    folder = zoo_directory() / name
    manifest = load_manifest(folder / MANIFEST)
    return {
        "name": name,
        "architecture": manifest.architecture.name if manifest.architecture else None,
        "options": manifest.architecture.options if manifest.architecture else {},
        "width": manifest.input.width,
        "height": manifest.input.height,
        "classes": manifest.class_names,
        "parameters": count_parameters(folder / GRAPH),
        "size_bytes": sum(info.bytes for info in manifest.files.values()),
        "training_data": manifest.provenance.training_data,
        "licence": manifest.provenance.licence,
        **_accuracy(manifest),
    }


def count_parameters(graph: Any) -> int | None:
    """Number of weights stored in an ONNX file, or None without the file."""
    if not graph.is_file():
        return None
    from edgeseg.onnx_guard import load_onnx
    from edgeseg.onnx_stats import parameters

    return parameters(load_onnx(graph))


def _accuracy(manifest: Manifest) -> dict[str, Any]:
    found = [item for item in manifest.measurements if "mean_iou" in item.values]
    # The float figure describes the model; an INT8 one describes an engine of it.
    best = max(found, key=lambda item: (item.precision == "fp32", item.date), default=None)
    if best is None:
        return {"mean_iou": None, "measured": None}
    return {"mean_iou": best.values["mean_iou"], "measured": f"{best.backend} {best.precision} {best.data}".strip()}


def _row(entry: dict[str, Any]) -> list[object]:
    count, score = entry["parameters"], entry["mean_iou"]
    return [
        entry["name"],
        entry["architecture"],
        f"{entry['width']}x{entry['height']}",
        len(entry["classes"]),
        f"{count / 1e6:.2f}" if count is not None else None,
        f"{entry['size_bytes'] / 1e6:.2f}",
        entry["training_data"] or None,
        entry["licence"] or None,
        f"{100 * score:.1f}" if score is not None else None,
    ]
