"""``edgeseg tune-crf``: parameters of a dense CRF behind a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    ModelDataOption,
    PrecisionOption,
    SplitOption,
    ThreadsOption,
    note,
    print_json,
    print_table,
    progress,
)
from edgeseg.cli.opening import open_predictor

if TYPE_CHECKING:
    from edgeseg.measure.tune_crf import Trial, Tuning

EXAMPLES = """
edgeseg tune-crf streets --images 10 --trials 20
edgeseg tune-crf my_model --data camvid:/data/CamVid --split val --metric boundary_f1 --json
"""
SHOWN = 5


def command(
    model: ModelArg,
    data: ModelDataOption = None,
    split: SplitOption = "val",
    images: Annotated[int, typer.Option("--images", min=1, help="At most so many frames, spread over the split.")] = 20,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Sets of parameters to try.")] = 40,
    metric: Annotated[str, typer.Option("--metric", metavar="NAME", help="What to improve: mean_iou or boundary_f1.")] = "mean_iou",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the search: the same seed tries the same parameters.")] = 0,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the parameters of a dense CRF on validation frames and keep the best in model.json.

    The network runs once; nothing is written unless the labels get better by --metric. The test split is refused.
    """
    from edgeseg.data import open_dataset
    from edgeseg.engines.session import default_threads
    from edgeseg.folder import open_folder
    from edgeseg.measure.samples import require_data
    from edgeseg.measure.tune_crf import tune_crf

    folder = open_folder(model)
    name = require_data(folder.manifest, data)
    total = min(images, len(open_dataset(name, split))) * (trials + 2)
    with (
        open_predictor(folder, backend, precision, threads, data=name, quiet=as_json) as predictor,
        progress(f"tuning a dense CRF behind {folder.manifest.name}", total, quiet=as_json) as bar,
    ):
        result = tune_crf(
            folder,
            predictor,
            name,
            split,
            images,
            trials,
            metric=metric,
            seed=seed,
            threads=threads or default_threads(),
            progress=bar,
        )
    if as_json:
        print_json(result.to_json())
        return
    _print(result, folder.manifest.name)


def _print(result: Tuning, name: str) -> None:
    title = f"{name}, {result.backend} {result.precision}, {result.images} frames of {result.data} {result.split}"
    columns = ["", "mean_iou", "boundary_f1", "w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma", "iterations"]
    rows = [_row("no CRF", result.baseline)]
    rows += [_row(f"{place}", trial) for place, trial in enumerate(result.trials[:SHOWN], start=1)]
    print_table(title, columns, rows, right=columns[1:])
    if result.skipped:
        note(f"{result.skipped} unreadable pictures skipped")
    note("the first is now $.crf of model.json" if result.kept else f"no trial raised {result.metric}: model.json is as it was")


def _row(place: str, trial: Trial) -> list[object]:
    names = ("w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma", "iterations")
    values = [f"{getattr(trial.crf, name):g}" if trial.crf else None for name in names]
    return [place, f"{trial.mean_iou:.4f}", f"{trial.boundary_f1:.4f}", *values]
