"""``edgeseg data``: look at a data set before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import JsonOption, note, print_json, print_lines, print_table, progress

if TYPE_CHECKING:
    from edgeseg.data import Dataset
    from edgeseg.measure.data_check import ClassCount, DataReport

EXAMPLES = """
edgeseg data check camvid CamVid --split train
edgeseg data check coco /data/coco --split val --limit 200 --sheet coco.png
edgeseg data check nyuv2 /data/nyu,rgb-hha --split test --json
"""

_SHOWN_SIZES = 5

command = typer.Typer(no_args_is_help=True, add_completion=False)


@command.callback()
def data() -> None:
    """Look at a data set before anything is trained on it."""


@command.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name, such as coco or voc (docs/data.md).")],
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="What follows the colon in --data NAME:PATH.")] = "",
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Part of the data set.")] = "train",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many pictures, spread over the split.")] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="Draw samples with their truth into this picture.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=32, help="Samples on the sheet.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Decode every picture of a split with its truth, count what is there, and list what is wrong.

    Exits with 1 where training would stop: a picture or label file that cannot be read or does not fit. Problems of single
    annotations are counted and do not stop a run.
    """
    from edgeseg.data import open_dataset
    from edgeseg.files import check_place
    from edgeseg.measure.data_check import check_dataset

    if sheet is not None:
        check_place(sheet.parent)
    uri = f"{name}:{path}" if path else name
    dataset = open_dataset(uri, split)
    total = min(limit or len(dataset), len(dataset))
    with progress(f"reading {uri} {split}", total, quiet=as_json) as bar:
        report = check_dataset(dataset, uri, limit, bar)
    if sheet is not None and report.good:
        write_sheet(sheet, dataset, report, rows)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
        if sheet is not None and report.good:
            note(f"wrote {sheet}")
    if not report.usable:
        raise typer.Exit(1)


def write_sheet(path: Path, dataset: Dataset, report: DataReport, rows: int) -> None:
    """Draw some of the samples that were read.

    Raises:
        EdgesegError: OpenCV writes no such picture.
    """
    import cv2

    from edgeseg.errors import EdgesegError
    from edgeseg.files import write_bytes
    from edgeseg.measure.samples import spread
    from edgeseg.report.data_sheet import sample_sheet

    samples = [dataset[report.good[place]] for place in spread(len(report.good), rows)]
    try:
        good, encoded = cv2.imencode(path.suffix or ".png", sample_sheet(samples, dataset))
    except cv2.error:
        good, encoded = False, None
    if not good or encoded is None:
        raise EdgesegError(f"{path}: no picture format {path.suffix!r}", "a name that ends in .png or .jpg")
    write_bytes(path, encoded.tobytes())


def _print(report: DataReport) -> None:
    print_table(f"{report.data} {report.split}, {len(report.classes)} classes", ["what", "value"], _overview(report))
    _print_classes(report.classes, "classes", has_objects=any(item.instances or item.crowds for item in report.classes))
    for name, counts in report.spaces.items():
        _print_classes(counts, name, has_objects=False)
    if report.examples:
        wrong = report.failed + sum(report.problems.values())
        more = f", the first {len(report.examples)}" if wrong > len(report.examples) else ""
        print_lines([f"{wrong} problems{more}:", *(f"  {example}" for example in report.examples)])
    print_lines([_verdict(report)])


def _overview(report: DataReport) -> list[tuple[str, object]]:
    sizes = [f"{size} ({count})" for size, count in list(report.sizes.items())[:_SHOWN_SIZES]]
    more = len(report.sizes) - _SHOWN_SIZES
    absent = report.absent
    return [
        ("pictures", report.pictures),
        ("read", report.read),
        ("unreadable", report.unreadable),
        ("invalid", report.invalid),
        ("sizes", ", ".join(sizes) + (f" and {more} more" if more > 0 else "")),
        ("tasks", ", ".join(report.tasks)),
        ("channels", report.modality),
        ("void pixels", f"{report.void_share:.2%}"),
        ("objects", sum(item.instances for item in report.classes)),
        ("crowds", sum(item.crowds for item in report.classes)),
        ("classes without truth", f"{len(absent)}" + (f": {', '.join(absent)}" if absent else "")),
        *report.problems.items(),
        ("licence", report.licence),
    ]


def _print_classes(counts: list[ClassCount], title: str, has_objects: bool) -> None:
    total = sum(item.pixels for item in counts)
    columns = ["label", "class", "pixels", "share", "pictures", *(["objects", "crowds"] if has_objects else [])]
    rows = []
    for label, item in enumerate(counts):
        if not item.pictures:
            continue
        share = f"{item.pixels / total:.3%}" if total else "-"
        objects = [item.instances, item.crowds] if item.thing else [None, None]
        rows.append([label, item.name, item.pixels, share, item.pictures, *(objects if has_objects else [])])
    if rows:
        print_table(title, columns, rows, right=[column for column in columns if column != "class"])


def _verdict(report: DataReport) -> str:
    if report.usable:
        return "usable: every picture that was looked at can be read with its truth"
    if report.failed:
        return f"not usable: {report.failed} of {report.failed + report.read} pictures fail, and training would stop at the first"
    return "not usable: no picture has a label or an object"
