"""The whole path as a user types it: three epochs on drawn street scenes, to a live MP4 and the demo's report."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data import open_dataset
from edgeseg.data.streets import write_clip

pytest.importorskip("torch", reason="training needs torch: pip install 'edgeseg[train]'")
pytest.importorskip("openvino", reason="pip install 'edgeseg[openvino]'")
pytest.importorskip("av", reason="pip install 'edgeseg[live]'")

NETWORK = ("widths=[16,24,32]", "depths=[0,1,1]", "block=residual", "stem_stride=2", "upsample=bilinear")


def edgeseg(*arguments: str | Path, cwd: Path) -> str:
    """Run the command line; its stdout."""
    command = [sys.executable, "-m", "edgeseg", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def report(*arguments: str | Path, cwd: Path) -> dict:
    """Run the command line with --json; the one document on its stdout."""
    return json.loads(edgeseg(*arguments, "--json", cwd=cwd))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a space in its name and a small folder data set of drawn scenes in it."""
    root = tmp_path_factory.mktemp("whole path")
    for split, count in (("train", 96), ("val", 8), ("test", 8)):
        dataset = open_dataset("streets:160x120", split)
        for kind in ("images", "masks"):
            (root / "scenes" / split / kind).mkdir(parents=True)
        for index in range(count):
            sample = dataset[index]
            cv2.imwrite(str(root / "scenes" / split / "images" / f"{split}{index:03d}.png"), sample.image)
            cv2.imwrite(str(root / "scenes" / split / "masks" / f"{split}{index:03d}.png"), sample.labels)
    names = [item.name for item in dataset.classes]
    with (root / "scenes" / "classes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("index", "name", "r", "g", "b"), *((i, name, *dataset.classes[i].colour) for i, name in enumerate(names))]
        )
    return root


@pytest.fixture(scope="module")
def model(work: Path) -> Path:
    """Trained for three epochs, exported and calibrated."""
    options = [part for setting in NETWORK for part in ("--set", setting)]
    edgeseg(
        "train", "unet", "--data", "folder:scenes", "-o", "model", *options, "--size", "160x120", "--epochs", "3", "--batch", "4",
        "--warmup", "0.3", "--balance", "0", "--lr", "0.004", "--ema", "0.8", cwd=work,
    )  # fmt: skip
    exported = report("export", "model", cwd=work)
    assert exported["argmax_agreement"] > 0.999
    calibrated = report("calibrate", "model", "--data", "folder:scenes", "--split", "train", "--method", "minmax", cwd=work)
    assert calibrated["images"] == 96
    return work / "model"


@pytest.mark.slow
def test_training_learned_and_left_its_records(model: Path) -> None:
    rows = list(csv.DictReader((model / "training" / "metrics.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    assert len(list((model / "training" / "pictures").glob("*.jpg"))) == 3


@pytest.mark.slow
def test_int8_engines_keep_the_accuracy_of_the_float_one(work: Path, model: Path) -> None:
    scores = {}
    for backend, precision in (("ort", "fp32"), ("ort", "int8"), ("openvino", "int8")):
        result = report(
            "eval", "model", "--data", "folder:scenes", "--split", "test", "--backend", backend, "--precision", precision, cwd=work
        )
        assert set(result) >= {"mean_iou", "pixel_accuracy", "mean_accuracy", "fw_iou", "per_class"}
        assert (result["backend"], result["precision"], result["images"]) == (backend, precision, 8)
        scores[backend, precision] = result["pixel_accuracy"]
    # A majority guess (road) reaches about a third; three epochs of a tiny network must beat it.
    assert scores["ort", "fp32"] > 0.4
    assert all(abs(score - scores["ort", "fp32"]) < 0.02 for score in scores.values())


@pytest.mark.slow
def test_backends_agree_and_bench_reports(work: Path, model: Path) -> None:
    pairs = report("compare", "model", "--backends", "torch,ort,openvino", "--data", "folder:scenes", cwd=work)["pairs"]
    assert len(pairs) == 3
    assert all(pair["argmax_agreement"] > 0.999 and pair["max_rel"] < 1e-3 for pair in pairs)
    bench = report("bench", "model", "--backend", "ort", "--precision", "int8", "--frames", "5", cwd=work)
    assert {"p50", "p95", "p99"} <= set(bench["engine_ms"]) & set(bench["end_to_end_ms"])
    assert bench["fps"] > 0


@pytest.mark.slow
def test_a_clip_becomes_an_overlay_video_that_plays(work: Path, model: Path) -> None:
    write_clip(work / "clip.mp4", 1.0, 320, 240)
    live = report(
        "live", "model", "--source", "clip.mp4", "--sink", "overlay.mp4", "--backend", "ort", "--precision", "int8", cwd=work
    )
    assert live["frames"] == 30
    assert live["dropped"] == 0
    capture = cv2.VideoCapture(str(work / "overlay.mp4"))
    good, first = capture.read()
    assert good
    assert first.shape == (240, 320, 3)
    plain = cv2.VideoCapture(str(work / "clip.mp4")).read()[1]
    assert np.abs(first.astype(int) - plain).mean() > 5, "the overlay left no trace"


@pytest.mark.slow
def test_demo_ends_with_a_table_a_video_and_a_report(work: Path, model: Path) -> None:
    result = report(
        "demo", "--model", "model", "--data", "folder:scenes", "--source", "clip.mp4", "--frames", "4", "--clip-frames", "10",
        "--calibration-frames", "8", cwd=work,
    )  # fmt: skip
    kinds = {(row["backend"], row["precision"]) for row in result["rows"]}
    assert {("ort", "fp32"), ("ort", "int8"), ("openvino", "int8")} <= kinds
    assert result["chosen"]["precision"] == "int8"
    page = (work / "demo-out" / "report.html").read_text()
    assert page.count("<img") >= 4
    assert "openvino" in page
    assert cv2.VideoCapture(str(work / "demo-out" / "overlay.mp4")).read()[0]
