"""``edgeseg calibrate`` then ``edgeseg eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.folder import ModelFolder
from tests.tiny_model import camvid_copy, tiny_folder

FIGURES = ("mean_iou", "pixel_accuracy", "mean_accuracy", "fw_iou")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny", 11)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return f"camvid:{camvid_copy(tmp_path / 'cam vid', {'train': 4, 'val': 2, 'test': 3})}"


def test_json_has_the_figures(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "ort", "--precision", "fp32", "--threads", "1", "--json"]
    assert run(["eval", str(folder.path), "--data", data, "--split", "test", *options]) == 0
    report = json.loads(capfd.readouterr().out)
    assert all(0 <= report[name] <= 1 for name in FIGURES)
    assert set(report["per_class_iou"]) == set(folder.manifest.class_names)
    assert (report["images"], report["skipped"]) == (3, 0)


def test_calibrate_then_eval_int8(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", str(folder.path), "--data", data, "--split", "train", "--method", "minmax", "--json"]) == 0
    out, _ = capfd.readouterr()
    report = json.loads(out)
    assert (report["method"], report["images"], report["skipped"]) == ("minmax", 4, 0)
    assert "4 images" in " ".join(report["warnings"])
    assert (
        run(["eval", str(folder.path), "--data", data, "--backend", "ort", "--precision", "int8", "--frames", "2", "--json"]) == 0
    )
    assert json.loads(capfd.readouterr().out)["precision"] == "int8"
    assert run(["eval", str(folder.path), "--data", data, "--split", "train", "--backend", "ort", "--precision", "int8"]) == 1
    assert "used in calibration" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method_gives_ranges(folder: ModelFolder, data: str, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", str(folder.path), "--data", data, "--method", method, "--frames", "2"]) == 0
    out, _ = capfd.readouterr()
    assert f"by {method} from 2 pictures" in out
    assert json.loads(folder.ranges.read_text())["method"] == method


def test_table(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", str(folder.path), "--data", data, "--backend", "ort", "--precision", "fp32"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in (*FIGURES, "IoU road", "3 frames"))


def test_errors_are_one_line(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["eval", str(folder.path)], "--data"),
        (["eval", str(folder.path), "--data", "camvid:/absent"], "camvid"),
        (["eval", str(folder.path), "--data", "pets:x"], "unknown data set"),
        (["calibrate", str(folder.path), "--data", data, "--split", "test"], "test split"),
        (["calibrate", str(folder.path), "--data", data, "--method", "median"], "median"),
    ):
        assert run(arguments) == 1
        out, error = capfd.readouterr()
        assert out == ""
        assert told in error
        assert "Traceback" not in error
    assert not folder.ranges.exists()
