"""Train, export, calibrate and measure one row; every step that is done already is taken from its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data import open_dataset
from edgeseg.engines import load_engine, load_predictor
from edgeseg.export.torch_onnx import export_folder
from edgeseg.files import write_json
from edgeseg.folder import GRAPH, RANGES, ModelFolder
from edgeseg.measure.bench import bench
from edgeseg.measure.calibrate import calibrate
from edgeseg.measure.compare import network_feeds
from edgeseg.measure.evaluate import evaluate
from edgeseg.measure.machine import machine_line
from edgeseg.training.config import TrainConfig
from edgeseg.training.loop import train
from tools.zoo_table_lib.count import count
from tools.zoo_table_lib.rows import Row

BACKENDS = ("ort", "openvino")
PRECISIONS = ("fp32", "int8")
RESULT = "row.json"
Say = Callable[[str], None]


def measure_row(row: Row, work: Path, threads: int, images: int, say: Say) -> dict[str, Any]:
    """The row's figures; kept in ``work``/recipe/row.json, from where the next run takes them."""
    result = work / row.recipe / RESULT
    if result.is_file():
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return found
    started = time.monotonic()
    folder, seconds = train_row(row, work / row.recipe / "model", say)
    if GRAPH not in folder.manifest.files:
        say("exporting")
        export_folder(folder)
    settings = row.settings
    if RANGES not in folder.manifest.files:
        say("calibrating")
        calibrate(folder, settings["data"], "train", "entropy", images)
    figures = {**_figures(folder, settings["data"], threads, say), **_sizes(row, folder)}
    figures |= {"train_s": seconds, "seconds": round(time.monotonic() - started, 1), "machine": machine_line()}
    write_json(result, figures)
    return figures


def train_row(row: Row, directory: Path, say: Say) -> tuple[ModelFolder, float]:
    summary, clock = directory / "training" / "summary.json", directory.parent / "train_s.json"
    if clock.is_file() and summary.is_file():
        return ModelFolder(directory), float(json.loads(clock.read_text()))
    started = time.monotonic()
    config = TrainConfig.from_json(row.settings, f"recipe {row.recipe}")
    resume = (directory / "training" / "checkpoint.pt").is_file()
    folder = train(
        config, directory, resume=resume, command=f"edgeseg train {config.arch} --recipe {row.recipe}", progress=lambda *a: None
    )
    seconds = round(time.monotonic() - started, 1)
    say(f"trained in {seconds:.0f} s: {json.loads(summary.read_text())}")
    write_json(clock, seconds)
    return folder, seconds


def _figures(folder: ModelFolder, data: str, threads: int, say: Say) -> dict[str, Any]:
    figures: dict[str, Any] = {"parity": _parity(folder)}
    frames = [sample.image for sample in (open_dataset(data, "test")[index] for index in range(4))]
    for backend in BACKENDS:
        for precision in PRECISIONS:
            say(f"{backend} {precision}")
            with load_predictor(folder, backend, precision, threads) as predictor:
                result = evaluate(folder, predictor, data, "test")
                speed = bench(folder, predictor, frames, threads=threads, duration_s=2.0)
            figures |= {f"{backend}_{precision}": result.value, f"{backend}_{precision}_ms": speed.engine_ms.p50}
            figures["headline"] = result.headline
    return figures


def _parity(folder: ModelFolder) -> dict[str, float]:
    """Largest error of a score against PyTorch, relative to the largest score: ONNX Runtime's at export, OpenVINO's here."""
    parity = folder.manifest.parity
    assert parity is not None
    return {"ort": parity.max_rel, "openvino": _against_torch(folder, "openvino")}


def _against_torch(folder: ModelFolder, backend: str) -> float:
    from edgeseg.export.parity_detections import match_detections

    frame = np.random.default_rng(0).integers(0, 256, (folder.manifest.input.height, folder.manifest.input.width, 3), np.uint8)
    planes = folder.manifest.input.channels - 3
    frame = np.dstack([frame, *[frame[..., 0]] * planes]) if planes > 0 else frame
    feed = next(network_feeds(folder, [frame]))
    expected, found = (load_engine(folder, name, "fp32", 1).run(feed) for name in ("torch", backend))
    if "boxes" in expected:
        error, agreement = match_detections(found, expected)
        return error if agreement > 0.999 else float("inf")
    scores = [name for name in expected if np.issubdtype(expected[name].dtype, np.floating)]
    return max(float(np.abs(found[name] - expected[name]).max() / max(1.0, np.abs(expected[name]).max())) for name in scores)


def _sizes(row: Row, folder: ModelFolder) -> dict[str, Any]:
    """Parameters and GFLOPs of the published network and of the trained variant."""
    manifest = folder.manifest
    assert manifest.architecture is not None
    arch, spec = manifest.architecture.name, manifest.input
    channels = row.paper.get("in_channels", spec.channels)
    paper = count(arch, row.classes, row.paper, row.size, channels)
    own = count(arch, len(manifest.classes), manifest.architecture.options, (spec.width, spec.height), spec.channels)
    names = ("paper_parameters", "paper_gflops", "parameters", "gflops")
    return dict(zip(names, (*paper, *own), strict=True)) | {"width": spec.width, "height": spec.height}
