"""``edgeseg demo``: the whole path on a shipped model, ending with a table, a video and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.common import JsonOption, note, print_json, print_lines, print_table, progress
from edgeseg.errors import EdgesegError

if TYPE_CHECKING:
    from edgeseg.engines import Segmenter
    from edgeseg.folder import ModelFolder
    from edgeseg.measure.bench import Benchmark
    from edgeseg.measure.evaluate import Evaluation

EXAMPLES = """
edgeseg demo
edgeseg demo --model camvid --data camvid:CamVid --source clip.mp4
edgeseg demo --out /tmp/demo --json
"""

HEADS = ("backend", "precision", "size MB", "mIoU", "p50 ms", "p95 ms", "p99 ms", "live FPS")
_PICTURES = 3
_CLIP_SECONDS = 6.0


@dataclass(frozen=True)
class Row:
    """What was measured of one engine; ``live_fps`` is the clip through the live app as fast as it goes."""

    evaluation: Evaluation
    benchmark: Benchmark
    size_bytes: int
    live_fps: float

    def cells(self) -> tuple[str, ...]:
        """The row under ``HEADS``; the latency is the engine's own."""
        times = self.benchmark.engine_ms
        return (
            self.evaluation.backend,
            self.evaluation.precision,
            f"{self.size_bytes / 1e6:.2f}",
            f"{self.evaluation.value:.4f}",
            *(f"{value:.2f}" for value in (times.p50, times.p95, times.p99)),
            f"{self.live_fps:.1f}",
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "backend": self.evaluation.backend,
            "precision": self.evaluation.precision,
            "bytes": self.size_bytes,
            "live_fps": self.live_fps,
            "eval": self.evaluation.to_json(),
            "bench": self.benchmark.to_json(),
        }


def command(
    model: Annotated[str, typer.Option("--model", metavar="DIR", help="A model folder, or a shipped model.")] = "streets",
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:PATH", help="Labelled frames; the procedural scenes by default.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="URI", help="Clip to stream; a rendered one by default.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the video and the report go.")] = Path("demo-out"),
    frames: Annotated[int, typer.Option("--frames", min=1, help="Test frames to evaluate on, at most.")] = 60,
    calibration_frames: Annotated[
        int, typer.Option("--calibration-frames", min=1, help="Pictures to calibrate on, at most.")
    ] = 100,
    clip_frames: Annotated[int, typer.Option("--clip-frames", min=1, help="Frames of the clip to stream, at most.")] = 180,
    method: Annotated[str, typer.Option("--method", help="Range method: minmax, percentile, entropy or mse.")] = "entropy",
    as_json: JsonOption = False,
) -> None:
    """Calibrate a shipped model to INT8, build it for this machine, evaluate float and INT8, stream a clip, write a report."""
    from edgeseg.files import check_writable
    from edgeseg.folder import open_folder
    from edgeseg.measure.calibrate import calibrate
    from edgeseg.measure.samples import require_data

    folder = open_folder(model)
    name = require_data(folder.manifest, data)
    if source:
        from edgeseg_live.sources import source_factory

        source_factory(source)  # a wrong one is told before the long work
    check_writable(out)
    source = source or str(_render_clip(out / "clip.mp4", as_json))
    with progress(f"calibrating {folder.manifest.name}", calibration_frames, quiet=as_json) as bar:
        ranges = calibrate(folder, name, "train", method, calibration_frames, progress=bar)
    note(f"calibrated on {ranges.images} pictures of {name} train by {ranges.method}")
    rows, best = _measure_all(folder, name, source, frames, clip_frames, as_json)
    video = out / "overlay.mp4"
    with _live_segmenter(folder, best.evaluation.backend, best.evaluation.precision) as segmenter:
        _stream(segmenter, source, str(video), clip_frames)
    report = out / "report.html"
    _write_report(folder, name, rows, best, video, report)
    _tell(rows, best, video, report, as_json)


def _render_clip(path: Path, quiet: bool) -> Path:
    from edgeseg.data.streets import write_clip

    with progress("rendering a street clip", quiet=quiet):
        return write_clip(path, _CLIP_SECONDS)


def _measure_all(folder: ModelFolder, data: str, source: str, frames: int, clip_frames: int, quiet: bool) -> tuple[list[Row], Row]:
    """Every installed deployment backend in every precision it has here, and the fastest INT8 among them."""
    rows = []
    for backend, precision in _candidates():
        with progress(f"building and measuring {backend} {precision}", quiet=quiet):
            rows.append(_measure(folder, backend, precision, data, source, frames, clip_frames))
        note("  ".join(f"{head} {cell}" for head, cell in zip(HEADS, rows[-1].cells(), strict=True)))
    quantised = [row for row in rows if row.evaluation.precision == "int8"]
    return rows, min(quantised or rows, key=lambda row: row.benchmark.engine_ms.p50)


def _candidates() -> list[tuple[str, str]]:
    from edgeseg.engines.session import check_precision, get_backend, installed
    from edgeseg.errors import BackendError

    pairs = []
    for backend in installed():
        # Torch is the reference and no deployment target.
        for precision in ("fp32", "bf16", "int8") if backend != "torch" else ():
            try:
                check_precision(get_backend(backend), precision)
            except BackendError:
                continue
            pairs.append((backend, precision))
    if not pairs:
        raise EdgesegError("no inference backend is installed", "ONNX Runtime or OpenVINO", "pip install 'edgeseg[cpu,openvino]'")
    return pairs


def _measure(folder: ModelFolder, backend: str, precision: str, data: str, source: str, frames: int, clip_frames: int) -> Row:
    from edgeseg.engines import build_engine, default_threads, load_segmenter
    from edgeseg.measure.bench import bench
    from edgeseg.measure.evaluate import evaluate
    from edgeseg.measure.samples import sample_frames

    engine = build_engine(folder, backend, precision)
    with load_segmenter(folder, backend, precision) as segmenter:
        evaluation = evaluate(folder, segmenter, data, "test", frames)
        pictures = sample_frames(folder, data, "test", 4)
        benchmark = bench(folder, segmenter, pictures, threads=default_threads(), duration_s=2.0)
    with _live_segmenter(folder, backend, precision) as segmenter:
        live_fps = _stream(segmenter, source, "none:", clip_frames)
    return Row(evaluation, benchmark, engine.bytes, live_fps)


def _live_segmenter(folder: ModelFolder, backend: str, precision: str) -> Segmenter:
    from edgeseg.engines import Segmenter, load_engine

    # The pipeline gives pre- and postprocessing threads of their own.
    return Segmenter(load_engine(folder, backend, precision), folder.manifest, threads=1)


def _stream(segmenter: Segmenter, source: str, sink: str, frames: int) -> float:
    """Every frame of the clip through the live app as fast as it goes; frames a second."""
    from edgeseg_live.pipeline import Pipeline
    from edgeseg_live.sinks import SinkOptions, make_sink
    from edgeseg_live.sources import source_factory
    from edgeseg_live.supervise import SupervisorConfig

    config = SupervisorConfig(lossless=True, realtime=False)
    pipeline = Pipeline(segmenter, source_factory(source), [make_sink(sink, SinkOptions("", True))], config, frames)
    pipeline.start()
    try:
        while not pipeline.wait(0.25):
            pass
    finally:
        pipeline.stop()
    report = pipeline.snapshot()
    if not report["frames"]:
        raise EdgesegError(f"--source {source}: no frame came out of it", "a clip that plays", "try it with `edgeseg live`")
    return float(report["fps"])


def _write_report(folder: ModelFolder, data: str, rows: list[Row], best: Row, video: Path, path: Path) -> None:
    from edgeseg.report.page import Page, Table
    from edgeseg.report.pictures import data_uri, strip

    manifest = folder.manifest
    page = Page(f"edgeseg: {manifest.name}", f"{best.evaluation.machine}; {best.evaluation.images} test frames of {data}")
    page.heading("Engines", "Latency is the engine alone; live FPS is the clip from decoding to overlay, every frame.")
    page.table(Table(HEADS, [row.cells() for row in rows], rows.index(best)))
    base = next((row for row in rows if row.evaluation.precision == "fp32"), rows[0])
    columns = {f"{row.evaluation.backend} {row.evaluation.precision}": row.evaluation.per_class for row in (base, best)}
    page.heading("Classes", f"IoU in percent, {' and '.join(columns)}; the bar is the last.")
    page.class_scores(manifest.classes, columns)
    page.heading("Predictions", f"Training data: {manifest.provenance.training_data} ({manifest.provenance.licence}).")
    for picture in _comparisons(folder, data, base, best):
        page.picture(data_uri(picture), "frame, truth, float, INT8 and mistakes")
    if (frames := strip(video)) is not None:
        page.heading("Live", f"From {video.name}.")
        page.picture(data_uri(frames), "frames of the overlay video")
    page.heading("Again")
    page.commands(
        [
            f"edgeseg live {manifest.name} --source synth: --sink http://127.0.0.1:8080",
            f"edgeseg eval {manifest.name} --data {data} --split test",
        ]
    )
    page.write(path)


def _comparisons(folder: ModelFolder, data: str, base: Row, best: Row) -> list[Any]:
    from edgeseg.data import open_dataset
    from edgeseg.measure.samples import spread
    from edgeseg.report.pictures import comparison

    dataset = open_dataset(data, "test")
    samples = [dataset[index] for index in spread(len(dataset), _PICTURES)]
    found = {}
    for row in (base, best):
        with _live_segmenter(folder, row.evaluation.backend, row.evaluation.precision) as segmenter:
            name = f"{row.evaluation.backend} {row.evaluation.precision}"
            found[name] = [segmenter(sample.image).copy() for sample in samples]
    manifest = folder.manifest
    return [
        comparison(sample.image, sample.labels, [(name, labels[i]) for name, labels in found.items()], manifest.classes)
        for i, sample in enumerate(samples)
    ]


def _tell(rows: list[Row], best: Row, video: Path, report: Path, as_json: bool) -> None:
    if as_json:
        chosen = {"backend": best.evaluation.backend, "precision": best.evaluation.precision}
        print_json({"rows": [row.to_json() for row in rows], "chosen": chosen, "video": video, "report": report})
        return
    title = f"{best.evaluation.machine}; mIoU on {best.evaluation.images} test frames of {best.evaluation.data}"
    print_table(title, HEADS, [row.cells() for row in rows], right=HEADS[2:])
    print_lines(
        [
            f"chosen: {best.evaluation.backend} {best.evaluation.precision}",
            f"video:  {video.resolve()}",
            f"report: {report.resolve()}",
        ]
    )
