"""``edgeseg eval``: accuracy of a built engine."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    ModelDataOption,
    PrecisionOption,
    SplitOption,
    ThreadsOption,
    print_json,
    print_table,
    progress,
)
from edgeseg.cli.opening import open_segmenter

EXAMPLES = """
edgeseg eval streets
edgeseg eval camvid --data camvid:/data/CamVid --split test --backend openvino --precision int8 --json
"""


def command(
    model: ModelArg,
    data: ModelDataOption = None,
    split: SplitOption = "test",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="At most so many frames, spread over the split.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy of a built engine on labelled frames, exactly as it runs live.

    Figures of a whole split are kept in model.json.
    """
    from edgeseg.data import open_dataset
    from edgeseg.folder import open_folder
    from edgeseg.measure.evaluate import evaluate
    from edgeseg.measure.samples import require_data

    folder = open_folder(model)
    name = require_data(folder.manifest, data)
    total = len(open_dataset(name, split))
    with (
        open_segmenter(folder, backend, precision, threads, data=name, quiet=as_json) as segmenter,
        progress(
            f"evaluating {segmenter.session.backend} {segmenter.session.precision}", min(frames or total, total), quiet=as_json
        ) as bar,
    ):
        result = evaluate(folder, segmenter, name, split, frames, bar)
    if as_json:
        print_json(result.to_json())
        return
    title = f"{folder.manifest.name}, {result.backend} {result.precision}, {result.images} frames of {name} {split}"
    rows = [(label, f"{getattr(result, label):.4f}") for label in ("mean_iou", "pixel_accuracy", "mean_accuracy", "fw_iou")]
    rows += [(f"IoU {label}", "-" if value is None else f"{value:.4f}") for label, value in result.per_class_iou.items()]
    print_table(title, ["metric", "value"], rows + ([("skipped", result.skipped)] if result.skipped else []), right=["value"])
