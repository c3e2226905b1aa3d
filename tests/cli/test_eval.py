"""``edgeseg calibrate`` then ``edgeseg eval``."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.engines import build_engine
from edgeseg.engines.cache import verify
from edgeseg.folder import ModelFolder
from tests.tiny_model import calibrated, camvid_copy, tiny_folder

ROOT = Path(__file__).parents[2]
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
    assert set(report["per_class"]) == set(folder.manifest.class_names)
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


def test_calibrating_a_read_only_folder_is_told_before_any_work(
    folder: ModelFolder, data: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("edgeseg.measure.calibrate.collect", lambda *_, **__: pytest.fail("worked before it looked"))
    assert run(["calibrate", str(folder.path), "--data", data]) == 1
    assert "Read-only" in capfd.readouterr().err


SLOW_CALIBRATION = """
import sys, time
import edgeseg.cli.app as app
import edgeseg.measure.calibrate as module
from edgeseg.folder import ModelFolder
real, save = module.Pictures.__iter__, module.Ranges.save
def pictures(self):
    for count, sample in enumerate(real(self)):
        if sys.argv[3] == "pictures" and count == 1:
            print("ready", flush=True); time.sleep(60)
        yield sample
def slow_save(self, path):
    save(self, path)
    if sys.argv[3] == "writing":
        print("ready", flush=True); time.sleep(60)
module.Pictures.__iter__, module.Ranges.save = pictures, slow_save
sys.exit(app.main(["calibrate", sys.argv[1], "--data", sys.argv[2], "--method", "minmax"]))
"""


@pytest.mark.parametrize("moment", ["pictures", "writing"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_calibrating_leaves_the_folder_as_it_was(
    folder: ModelFolder, data: str, number: signal.Signals, code: int, moment: str
) -> None:
    calibrated(folder)
    engine = build_engine(folder, "ort", "int8", 1)
    before = {path.relative_to(folder.path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_CALIBRATION, str(folder.path), data, moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    after = {path.relative_to(folder.path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert after == before
    assert verify(engine) == ""
