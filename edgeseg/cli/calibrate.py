"""``edgeseg calibrate``: the ranges that int8 rests on."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.common import JsonOption, ModelArg, ModelDataOption, SplitOption, note, print_json, print_lines, progress

EXAMPLES = """
edgeseg calibrate streets
edgeseg calibrate camvid --data camvid:/data/CamVid --split train --method entropy
edgeseg calibrate my_model --data folder:photos --method percentile --percentile 99.9 --frames 300
"""


def command(
    model: ModelArg,
    data: ModelDataOption = None,
    split: SplitOption = "train",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="minmax, percentile, entropy or mse.")] = "entropy",
    percentile: Annotated[
        float, typer.Option("--percentile", help="For --method percentile: share of values kept, in percent.")
    ] = 99.99,
    frames: Annotated[int, typer.Option("--frames", min=1, help="At most so many pictures, spread over the split.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Find the INT8 range of every tensor on sample pictures and write ranges.json.

    Pictures of the val and test splits are refused: accuracy is measured on those.
    """
    from edgeseg.data import open_dataset
    from edgeseg.folder import open_folder
    from edgeseg.measure.calibrate import calibrate
    from edgeseg.measure.samples import require_data

    folder = open_folder(model)
    name = require_data(folder.manifest, data)
    total = min(frames, len(open_dataset(name, split)))
    with progress(f"calibrating {folder.manifest.name} ({method})", total, quiet=as_json) as bar:
        ranges = calibrate(folder, name, split, method, frames, percentile, bar)
    if as_json:
        report = {"method": ranges.method, "images": ranges.images, "skipped": ranges.data.get("skipped", 0)}
        print_json(
            {
                **report,
                "tensors": len(ranges.tensors),
                "float_nodes": ranges.float_nodes,
                "warnings": ranges.warnings,
                "file": folder.ranges,
            }
        )
        return
    for warning in ranges.warnings:
        note(warning)
    skipped = f", {ranges.data['skipped']} unreadable pictures skipped" if ranges.data.get("skipped") else ""
    print_lines([f"{folder.ranges}: {len(ranges.tensors)} ranges by {ranges.method} from {ranges.images} pictures{skipped}"])
