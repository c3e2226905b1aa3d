"""``edgeseg live``: run a model on a camera, clip or stream."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.common import (
    BackendOption,
    ForceOption,
    JsonOption,
    ModelArg,
    PrecisionOption,
    ThreadsOption,
    console,
    note,
    print_json,
    print_table,
)
from edgeseg.errors import EdgesegError, SourceError

if TYPE_CHECKING:
    from edgeseg_live.pipeline import Pipeline

    from edgeseg.engines import Segmenter

EXAMPLES = """
edgeseg live streets --source synth: --sink http://127.0.0.1:8080
edgeseg live my_model --source clip.mp4 --sink overlay.mp4 --json
edgeseg live my_model --source /dev/video0 --sink window: --sink recording.mp4
edgeseg live my_model --source rtsp://user:password@camera/stream --sink http://0.0.0.0:8080 --token SECRET
"""
RATES = ("auto", "realtime", "max")
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

SourceOption = Annotated[
    str, typer.Option("--source", metavar="URI", help="A video, a folder of pictures, /dev/videoN, rtsp://..., http://..., synth:")
]
SinkOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sink", metavar="URI", help="FILE.mp4, http://127.0.0.1:PORT, window:, labels:DIR, none: (several are possible)."
    ),
]
RateOption = Annotated[
    str,
    typer.Option(
        "--rate", metavar="NAME", help="A recording at its own speed (realtime), or every frame of it as fast as can be (max)."
    ),
]


def command(
    model: ModelArg,
    source: SourceOption = "synth:",
    sink: SinkOption = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="End after so many frames.")] = None,
    rate: RateOption = "auto",
    alpha: Annotated[float, typer.Option("--alpha", min=0.0, max=1.0, help="Strength of the colours, 0 to 1.")] = 0.5,
    max_fps: Annotated[float | None, typer.Option("--max-fps", min=0.1, help="Take no more frames a second than this.")] = None,
    freeze: Annotated[
        float, typer.Option("--freeze", min=0.0, help="Seconds of an unchanging picture until reconnecting; 0: never.")
    ] = 10.0,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    token: Annotated[str, typer.Option("--token", envvar="EDGESEG_TOKEN", show_envvar=True, help="Asked for by the page.")] = "",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a model on a camera, clip or stream; the newest frame wins, and latency stays bounded.

    Ends with the source, after --frames, or on Ctrl-C, and finishes the recordings.
    """
    from edgeseg_live.pipeline import Pipeline
    from edgeseg_live.sinks import SinkOptions, make_sink
    from edgeseg_live.sources import source_factory
    from edgeseg_live.supervise import SupervisorConfig

    factory = source_factory(source)
    sinks = [make_sink(uri, SinkOptions(token, force)) for uri in sink or ["none:"]]
    for item in sinks:
        item.check()  # the engine may take minutes to build
    lossless = _lossless(rate, factory.live, all(item.lossless for item in sinks))
    config = SupervisorConfig(lossless=lossless, realtime=not lossless, max_fps=max_fps, freeze_s=freeze)
    with _open_model(model, backend, precision, threads) as segmenter:
        pipeline = Pipeline(segmenter, factory, sinks, config, frames, alpha)
        code = _run(pipeline, frames, quiet=as_json)
        report = {**pipeline.snapshot(), **_engine(segmenter, threads), "rate": "max" if lossless else "realtime"}
    _show(report, as_json)
    _finish(report, code)


def _lossless(rate: str, live: bool, recordings_only: bool) -> bool:
    """Whether every frame is kept. A clip into a file is; anything live, or anything somebody watches, is not."""
    if rate not in RATES:
        raise EdgesegError(f"--rate {rate!r}", f"one of {', '.join(RATES)}", "choose one of these")
    return not live and (rate == "max" or (rate == "auto" and recordings_only))


def _open_model(model: str, backend: str, precision: str, threads: int | None) -> Segmenter:
    from edgeseg.engines import Segmenter, default_threads, load_engine
    from edgeseg.engines.segmenter import check_serves
    from edgeseg.folder import open_folder
    from edgeseg.measure.samples import judging_frames

    folder = open_folder(model)
    manifest = folder.manifest
    if manifest.crf is not None:
        note("live shows the network alone, without its dense CRF, which takes longer than a frame")
        manifest = manifest.model_copy(update={"crf": None})
    check_serves(manifest)  # the engine may take minutes to build
    session = load_engine(folder, backend, precision, threads or default_threads(), frames=judging_frames(folder))
    # Pre- and postprocessing have threads of their own in the pipeline, and need no more.
    return Segmenter(session, manifest, threads=1)


def _engine(segmenter: Segmenter, threads: int | None) -> dict[str, Any]:
    from edgeseg.engines import default_threads

    session = segmenter.session
    name = segmenter.manifest.name
    return {"model": name, "backend": session.backend, "precision": session.precision, "threads": threads or default_threads()}


def _run(pipeline: Pipeline, frames: int | None, quiet: bool) -> int:
    """Until the end; the exit code that a signal asks for, or 0."""
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        pipeline.stop()

    with stop_signals(on_signal):
        pipeline.start()
        for item in pipeline.snapshot()["sinks"]:
            if url := item.get("url"):
                note(f"watch at {url}")
        with _status_line(pipeline, frames, quiet) as refresh:
            while not pipeline.wait(0.25):
                refresh()
    return _CODES[signal.Signals(received[0])] if received else 0


@contextlib.contextmanager
def stop_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop`` once; the second of a kind has its usual effect."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop(number)

    before = {number: signal.signal(number, handle) for number in _CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _status_line(pipeline: Pipeline, frames: int | None, quiet: bool) -> Iterator[Callable[[], None]]:
    from rich.live import Live
    from rich.text import Text

    if quiet or not console.is_terminal:
        yield lambda: None
        return
    started = time.monotonic()
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield lambda: live.update(Text(status_text(pipeline.snapshot(), frames, time.monotonic() - started), no_wrap=True))


def status_text(report: dict[str, Any], frames: int | None, elapsed_s: float) -> str:
    """One line about a running pipeline; with ``frames`` the time that is left."""
    source, latency = report["source"], report["latency_ms"]
    count = f"{report['frames']}/{frames}" if frames else str(report["frames"])
    parts = [f"{source['state']} {source['width']}x{source['height']}", f"{report['recent_fps']:.1f} fps"]
    parts += [f"latency p50 {latency['p50']:.1f} p95 {latency['p95']:.1f} ms", f"frames {count}", f"dropped {report['dropped']}"]
    if frames and report["frames"]:
        parts.append(f"left {elapsed_s * (frames / report['frames'] - 1):.0f} s")
    if source["state"] != "playing" and source["note"]:
        parts.append(source["note"])
    return "  |  ".join([*parts, *(f"{sink['uri']}: {sink['error']}" for sink in report["sinks"] if sink["error"])])


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    title = f"{report['model']}, {report['backend']} {report['precision']}: {report['fps']:.1f} fps, {report['frames']} frames"
    rows = [(name, *(f"{times[key]:.2f}" for key in ("mean", "p50", "p95", "p99"))) for name, times in report["stages_ms"].items()]
    latency = report["latency_ms"]
    rows.append(("capture to display", *(f"{latency[key]:.2f}" for key in ("mean", "p50", "p95", "p99"))))
    print_table(
        f"{title}, {report['dropped']} dropped", ["ms", "mean", "p50", "p95", "p99"], rows, right=("mean", "p50", "p95", "p99")
    )


def _finish(report: dict[str, Any], code: int) -> None:
    failed = [sink for sink in report["sinks"] if sink["error"]]
    if failed:
        raise SourceError(f"--sink {failed[0]['uri']}: {failed[0]['error']}", fix="free the space or choose another place")
    if code:
        raise typer.Exit(code)
