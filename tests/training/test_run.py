"""Whole runs on a few small pictures: what they leave, that a killed one goes on bit for bit, and torchrun."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
import torch
from safetensors.torch import load_file

from edgeseg.errors import EdgesegError
from edgeseg.folder import ModelFolder
from edgeseg.models.weights import load_network
from edgeseg.training.config import TrainConfig
from edgeseg.training.loop import train
from edgeseg.training.run_folder import claim
from tests.conftest import ROOT
from tests.training.scenes import CLASSES, write_scenes

DRIVE = Path(__file__).parent / "drive.py"
OPTIONS = {"widths": [4, 4, 8, 8], "dropout": 0.2, "deep_supervision": True}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    data = write_scenes(tmp_path_factory.mktemp("scenes"), {"train": 6, "val": 3})
    return TrainConfig(
        "unet", f"folder:{data}", OPTIONS, size=(48, 40), crop=(32, 32), epochs=3, batch=2, bf16=False, loss="ce+dice", seed=3
    )


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """An uninterrupted run."""
    return train(config, tmp_path_factory.mktemp("runs") / "my model", command="edgeseg train unet")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def checkpoint(folder: Path) -> Path:
    return folder / "training" / "checkpoint.pt"


def flat(value: object, at: str = "") -> dict[str, object]:
    """Every leaf of nested dicts and lists by its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {at: value}
    return {path: leaf for key, item in items for path, leaf in flat(item, f"{at}/{key}").items()}


# --- what a run leaves -------------------------------------------------------------------------------------------


def test_the_folder_is_a_model(whole: ModelFolder, config: TrainConfig) -> None:
    manifest = whole.manifest
    assert manifest.name == "my-model"  # the directory's name, as far as the manifest allows it
    assert manifest.class_names == ["dark", "middle", "bright"]
    assert manifest.architecture is not None
    assert (manifest.architecture.name, manifest.architecture.options) == ("unet", OPTIONS)
    assert (manifest.input.width, manifest.input.height, manifest.input.mean) == (48, 40, config.mean)
    assert (manifest.provenance.seed, manifest.provenance.command) == (3, "edgeseg train unet")
    assert manifest.provenance.training_data == "folder train (6 frames)"
    whole.require("model.safetensors", "train")
    with torch.inference_mode():
        assert load_network(whole)(torch.zeros(1, 3, 40, 48)).shape == (1, CLASSES, 40, 48)


def test_log_tensorboard_and_pictures(whole: ModelFolder) -> None:
    run = whole.path / "training"
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        assert float(row["loss"]) > 0
        assert 0 <= float(row["val_mean_iou"]) <= float(row["val_pixel_accuracy"]) <= 1
    best = max(rows, key=lambda row: float(row["val_mean_iou"]))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["val_mean_iou"] == pytest.approx(float(best["val_mean_iou"]), rel=1e-5)
    assert [path.name for path in sorted((run / "pictures").iterdir())] == [f"epoch_{epoch:04d}.jpg" for epoch in (1, 2, 3)]
    # Three validation pictures of three sizes: frame, truth and prediction side by side.
    assert cv2.imread(str(run / "pictures" / "epoch_0001.jpg")).shape == (3 * 40, 3 * 48, 3)
    (events,) = (run / "tensorboard").glob("events.out.tfevents.*")
    assert b"val_mean_iou" in events.read_bytes()
    assert not [path for path in whole.path.rglob("*") if ".tmp" in path.name]


# --- interruption ------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_bit_for_bit(whole: ModelFolder, config: TrainConfig, tmp_path: Path) -> None:
    settings, directory = tmp_path / "config.json", tmp_path / "killed"
    settings.write_text(json.dumps(config.to_json()))
    process = subprocess.run(
        [sys.executable, str(DRIVE), "die_at", str(settings), str(directory), "5"],
        env=environment(),
        capture_output=True,
        timeout=500,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    with (directory / "training" / "metrics.csv").open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1"]  # died in the second epoch
    train(dataclasses.replace(config, workers=0), directory, resume=True)
    first, second = flat(torch.load(checkpoint(whole.path))), flat(torch.load(checkpoint(directory)))
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        if path != "/config/workers":
            assert torch.equal(leaf, second[path]) if isinstance(leaf, torch.Tensor) else leaf == second[path], path
    weights = load_file(directory / "model.safetensors")
    for name, tensor in load_file(whole.weights).items():
        assert torch.equal(tensor, weights[name])
    with (directory / "training" / "metrics.csv").open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]


def test_resume_with_other_settings_is_refused_and_changes_nothing(whole: ModelFolder, config: TrainConfig) -> None:
    before = (whole.path / "training" / "config.json").read_bytes()
    with pytest.raises(EdgesegError, match="lr, seed"):
        train(dataclasses.replace(config, seed=4, lr=0.5), whole.path, resume=True)
    assert (whole.path / "training" / "config.json").read_bytes() == before


def test_a_finished_run_resumes_to_nothing(whole: ModelFolder, config: TrainConfig) -> None:
    before = checkpoint(whole.path).read_bytes()
    train(config, whole.path, resume=True)
    assert checkpoint(whole.path).read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_checkpoint_is_told_in_one_line(whole: ModelFolder, config: TrainConfig, tmp_path: Path, damage: str) -> None:
    target = checkpoint(tmp_path)
    target.parent.mkdir()
    data = checkpoint(whole.path).read_bytes()
    if damage == "foreign":
        torch.save({"epoch": 3}, target)
    else:
        target.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(EdgesegError, match=r"checkpoint\.pt") as caught:
        train(config, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert "--trust" not in str(caught.value)


# --- the output directory ----------------------------------------------------------------------------------------


def test_a_run_or_a_model_is_never_written_over(whole: ModelFolder, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match="already holds a training run"):
        train(config, whole.path)
    whole.manifest.save(tmp_path / "model.json")
    with pytest.raises(EdgesegError, match="already holds a model"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_a_place_that_cannot_be_written_is_told_first(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(EdgesegError, match="cannot be written"):
            train(config, out)


def test_two_runs_do_not_share_a_directory(config: TrainConfig, tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(EdgesegError, match="another process trains there"):
        train(dataclasses.replace(config, workers=0), tmp_path)


def test_a_start_that_died_early_leaves_no_trace_in_the_next(config: TrainConfig, whole: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    whole.manifest.save(tmp_path / "model.json")
    other = dataclasses.replace(config, options={"widths": [4, 4]}, epochs=1, ema=0, balance=0, workers=0, bf16=True)
    folder = train(other, tmp_path)
    assert folder.manifest.architecture is not None
    assert folder.manifest.architecture.options == {"widths": [4, 4]}
    load_network(folder)


def test_truth_without_labels_cannot_choose(config: TrainConfig, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", {"train": 2, "val": 1})
    mask = next((data / "val" / "masks").iterdir())
    cv2.imwrite(str(mask), cv2.imread(str(mask), 0) * 0 + 255)
    small = dataclasses.replace(config, data=f"folder:{data}", options={"widths": [4, 4]}, workers=0)
    with pytest.raises(EdgesegError, match="no labelled pixel"):
        train(small, tmp_path / "out")


def test_a_loss_that_explodes_is_told(config: TrainConfig, tmp_path: Path) -> None:
    wild = dataclasses.replace(
        config, options={"widths": [4, 4]}, workers=0, optimiser="sgd", lr=1e8, clip=1e8, warmup=0, epochs=30
    )
    with pytest.raises(EdgesegError, match="lower --lr"):
        train(wild, tmp_path)


# --- several processes -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_with_two_processes(tmp_path: Path) -> None:
    data, out, seen = write_scenes(tmp_path / "data", {"train": 8, "val": 2}), tmp_path / "out", tmp_path / "seen"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(DRIVE), "log", str(seen)]
    settings = [
        "--size",
        "48x40",
        "--crop",
        "32x32",
        "--epochs",
        "1",
        "--batch",
        "2",
        "--workers",
        "0",
        "--balance",
        "0",
        "--no-bf16",
    ]
    arguments = ["train", "unet", "--set", "widths=[4,4]", "--data", f"folder:{data}", "-o", str(out), "--json", *settings]
    process = subprocess.run([*launch, *arguments], env=environment(), capture_output=True, timeout=500, text=True)
    assert process.returncode == 0, process.stderr
    frames = [set((tmp_path / f"seen.{rank}").read_text().split()) for rank in (0, 1)]
    assert [len(found) for found in frames] == [4, 4]
    assert not frames[0] & frames[1]
    assert json.loads(process.stdout)["epoch"] == 1  # one document, from one process
    with (out / "training" / "metrics.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 1
    assert load_network(ModelFolder(out)) is not None
