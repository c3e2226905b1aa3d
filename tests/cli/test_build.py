"""``edgeseg build``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.folder import ModelFolder
from tests.tiny_model import calibrated, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny model")


def run_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def run_error(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 1
    out, error = capfd.readouterr()
    assert out == ""
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert "Traceback" not in error
    return line


def test_build_and_build_again(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    first = run_json(capfd, "build", str(folder.path), "--backend", "ort", "--precision", "fp32", "--threads", "1")
    assert (first["backend"], first["precision"], first["threads"]) == ("ort", "fp32", 1)
    assert Path(first["directory"]).is_dir()
    assert first["bytes"] > 0
    assert run_json(capfd, "build", str(folder.path), "--backend", "ort", "--precision", "fp32", "--threads", "1") == first
    assert run(["build", str(folder.path), "--backend", "ort", "--precision", "fp32", "--threads", "1"]) == 0
    assert first["directory"] in capfd.readouterr().out


def test_auto_lists_candidates(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    calibrated(folder)
    report = run_json(capfd, "build", str(folder.path), "--threads", "1")
    tried = {(item["backend"], item["precision"]) for item in report["candidates"]}
    assert ("ort", "fp32") in tried
    assert ("ort", "int8") in tried
    assert (report["backend"], report["precision"]) in tried
    again = run_json(capfd, "build", str(folder.path), "--threads", "1")
    assert again["candidates"] == report["candidates"], "measured once"


def test_errors_are_one_line(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(folder.path)
    assert "edgeseg calibrate" in run_error(capfd, "build", path, "--backend", "ort", "--precision", "int8")
    assert "one of auto, ort" in run_error(capfd, "build", path, "--backend", "cuda")
    assert "precision 'int3'" in run_error(capfd, "build", path, "--backend", "ort", "--precision", "int3")
    assert "no model folder" in run_error(capfd, "build", str(folder.path / "absent"))
