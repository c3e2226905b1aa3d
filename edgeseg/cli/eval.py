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
from edgeseg.cli.opening import open_predictor

EXAMPLES = """
edgeseg eval streets
edgeseg eval camvid --data camvid:/data/CamVid --split test --backend openvino --precision int8 --json
edgeseg eval runs/pascal --data voc:PATH --split val --borders
"""


def command(
    model: ModelArg,
    data: ModelDataOption = None,
    split: SplitOption = "test",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="At most so many frames, spread over the split.")] = None,
    borders: Annotated[
        bool, typer.Option("--borders", help="Measure how well borders lie too: boundary F1, and mIoU in bands around them.")
    ] = False,
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
        open_predictor(folder, backend, precision, threads, data=name, quiet=as_json) as predictor,
        progress(
            f"evaluating {predictor.session.backend} {predictor.session.precision}", min(frames or total, total), quiet=as_json
        ) as bar,
    ):
        result = evaluate(folder, predictor, name, split, frames, bar, borders)
    if as_json:
        print_json(result.to_json())
        return
    title = f"{folder.manifest.name}, {result.backend} {result.precision}, {result.images} frames of {name} {split}"
    rows = [(label, f"{value:.4f}") for label, value in result.figures.items()]
    name_of_class = {"mean_iou": "IoU", "pq": "PQ"}.get(result.headline, "AP")
    rows += [(f"{name_of_class} {label}", "-" if value is None else f"{value:.4f}") for label, value in result.per_class.items()]
    print_table(title, ["metric", "value"], rows + ([("skipped", result.skipped)] if result.skipped else []), right=["value"])
