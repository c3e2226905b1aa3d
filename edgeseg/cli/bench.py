"""``edgeseg bench``: latency of a built engine."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    PrecisionOption,
    ThreadsOption,
    print_json,
    print_lines,
    print_table,
    progress,
)
from edgeseg.cli.opening import open_predictor

EXAMPLES = """
edgeseg bench streets
edgeseg bench my_model --backend ort --precision fp32 --threads 1 --frame-size 640x480 --json
"""


def command(
    model: ModelArg,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    duration: Annotated[float, typer.Option("--duration", min=0.01, help="Seconds to time each of the two loops.")] = 3.0,
    warmup: Annotated[float, typer.Option("--warmup", min=0.0, help="Seconds to run before timing.")] = 0.5,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="Time exactly so many runs instead of --duration.")] = None,
    frame_size: Annotated[str, typer.Option("--frame-size", metavar="WxH", help="Size of the camera frames.")] = "1280x720",
    as_json: JsonOption = False,
) -> None:
    """Measure latency: the engine alone (tensor to tensor), and end to end (camera frame to label map).

    The figures are kept in model.json with the machine's name.
    """
    from edgeseg.engines import default_threads
    from edgeseg.folder import open_folder
    from edgeseg.measure.bench import bench
    from edgeseg.measure.samples import synthetic_frames

    width, height = _size(frame_size)
    folder, threads = open_folder(model), threads or default_threads()
    with (
        open_predictor(folder, backend, precision, threads, quiet=as_json) as segmenter,
        progress("timing", 2, quiet=as_json) as bar,
    ):
        pictures = synthetic_frames(height, width, count=4)
        result = bench(
            folder, segmenter, pictures, threads=threads, duration_s=duration, warmup_s=warmup, runs=frames, progress=bar
        )
    if as_json:
        print_json(result.to_json())
        return
    columns = ["", "p50", "p95", "p99", "mean", "min", "max", "runs"]
    rows = [
        (label, *(f"{getattr(item, name):.3f}" for name in columns[1:-1]), item.runs)
        for label, item in (("engine ms", result.engine_ms), ("end to end ms", result.end_to_end_ms))
    ]
    print_table(f"{folder.manifest.name}, {result.backend} {result.precision}, {threads} threads", columns, rows, right=columns[1:])
    print_lines(
        [f"throughput {result.fps:.1f} fps from {width}x{height} frames, engine alone {result.engine_fps:.1f}", result.machine]
    )


def _size(text: str) -> tuple[int, int]:
    from edgeseg.errors import EdgesegError

    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or not 1 <= int(found[1]) <= 16384 or not 1 <= int(found[2]) <= 16384:
        raise EdgesegError(f"--frame-size {text!r}", "WIDTHxHEIGHT in px, each 1 to 16384", "--frame-size 1280x720")
    return int(found[1]), int(found[2])
