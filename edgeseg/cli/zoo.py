"""``edgeseg zoo``: the models shipped in the package."""

from __future__ import annotations

from typing import Any

from edgeseg.cli.common import JsonOption, print_json, print_table
from edgeseg.folder import GRAPH, MANIFEST, shipped_models, zoo_directory
from edgeseg.manifest import Manifest, load_manifest

EXAMPLES = """
edgeseg zoo
edgeseg zoo --json
"""


def command(as_json: JsonOption = False) -> None:
    """List the models shipped in the package: what they take, what they tell apart, and how well."""
    entries = [describe(name) for name in shipped_models()]
    if as_json:
        print_json({"models": entries})
        return
    columns = ["name", "architecture", "input", "classes", "params M", "size MB", "training data", "licence", "mIoU"]
    print_table("Shipped models", columns, [_row(entry) for entry in entries], right=("classes", "params M", "size MB", "mIoU"))


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
