"""Live FPS against engine-only FPS on a 1280x720 clip, with no sink, one and several (the page has one viewer); ratios of one run.

``python tests/benchmarks/bench_live.py [DIR ...] [--backend B] [--precision P] [--threads N] [--frames N] [--rounds N]``: DIR is a
model folder or a shipped model's name; all shipped models by default. The engine alone and the pipelines take turns, so that a busy
moment hits all alike. The clip is rendered from the street scenes once and encoded as H.264.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from edgeseg_live.frames import ArrayPool, Frame, Result
from edgeseg_live.pipeline import Pipeline
from edgeseg_live.sinks import SinkOptions, make_sink
from edgeseg_live.sources import source_factory
from edgeseg_live.supervise import SupervisorConfig

from edgeseg.data.streets import CLIP_SEED, StreetScenes
from edgeseg.engines import Segmenter, default_threads, load_engine
from edgeseg.folder import open_folder, shipped_models
from edgeseg.measure.machine import machine_line

WIDTH, HEIGHT = 1280, 720
GOAL = 0.9


def write_clip(path: Path, pictures: int = 50) -> None:
    """A street at 1280x720, 25 frames a second, as cameras and recorders write it."""
    scenes, sink = StreetScenes(WIDTH, HEIGHT, CLIP_SEED), make_sink(f"mp4:{path}?preset=veryfast")
    pools = ArrayPool(np.uint8), ArrayPool(np.uint8)
    for index in range(pictures):
        image = np.ascontiguousarray(scenes.render(index).image)
        sink.write(Result(Frame(index, image, 0, index * 40_000_000), image[:, :, 0], image, pools))
    sink.close()


def engine_fps(segmenter: Segmenter, frames: int) -> float:
    """Inferences a second, tensor to tensor, nothing else running."""
    tensor, out = segmenter.allocate_input(), segmenter.allocate_output()
    tensor[...] = 0
    segmenter.infer(tensor, out)
    started = time.perf_counter()
    for _ in range(frames):
        segmenter.infer(tensor, out)
    return frames / (time.perf_counter() - started)


def live(segmenter: Segmenter, clip: Path, sinks: list[str], frames: int) -> dict[str, Any]:
    """The report of a pipeline that takes every frame of the clip, played over and over."""
    opened = [make_sink(uri, SinkOptions(force=True)) for uri in sinks]
    config = SupervisorConfig(lossless=True, realtime=False)
    pipeline = Pipeline(segmenter, source_factory(f"file:{clip}?loop=1"), opened, config, frames)
    pipeline.start()
    for item in pipeline.snapshot()["sinks"]:
        if url := item.get("url"):
            threading.Thread(target=watch, args=(url,), daemon=True).start()
    pipeline.wait()
    return pipeline.snapshot()


def watch(url: str) -> None:
    """One viewer, so that the page has something to do."""
    with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(f"{url}mjpeg") as stream:
        while stream.read1(1 << 20):
            continue


def report(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """FPS of the engine and of each set of sinks, their ratios, and the stages of the last round."""
    model, clip = open_folder(name), folder / "clip.mp4"
    session = load_engine(model, options.backend, options.precision, options.threads)
    cases = {
        "none": ["none:"],
        "mp4": [f"mp4:{folder / 'out.mp4'}"],
        "page": ["http://127.0.0.1:0"],
        "mp4 + page + labels": [f"mp4:{folder / 'out.mp4'}", "http://127.0.0.1:0", f"labels:{folder / 'labels'}"],
    }
    fps: dict[str, list[float]] = {key: [] for key in ["engine", *cases]}
    stages: dict[str, Any] = {}
    with Segmenter(session, model.manifest) as segmenter:
        for _ in range(options.rounds):
            fps["engine"].append(engine_fps(segmenter, options.frames))
            for key, sinks in cases.items():
                found = live(segmenter, clip, sinks, options.frames)
                fps[key].append(found["fps"])
                stages[key] = {stage: times["mean"] for stage, times in found["stages_ms"].items()}
    # Ratios within a round: the neighbours in time are compared.
    ratios = {key: float(np.median(np.divide(fps[key], fps["engine"]))) for key in cases}
    return {
        "model": model.manifest.name,
        "backend": f"{session.backend} {session.precision}",
        "fps": {key: round(float(np.median(values)), 2) for key, values in fps.items()},
        "live_over_engine": {key: round(value, 3) for key, value in ratios.items()},
        "reaches_goal": ratios["none"] >= GOAL,
        "stages_ms": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="DIR")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_clip(Path(name) / "clip.mp4")
        models = [report(model, options, Path(name)) for model in options.models or shipped_models()]
    header = {"machine": machine_line(), "cores": default_threads(), "threads": options.threads, "clip": f"{WIDTH}x{HEIGHT}"}
    print(json.dumps({**header, "models": models}, indent=2))


if __name__ == "__main__":
    main()
