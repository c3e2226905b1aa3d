"""``edgeseg cache``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.engines import build_engine
from edgeseg.folder import ModelFolder
from tests.tiny_model import calibrated, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path / "tiny"))


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["cache", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_list_explain_clear(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(folder.path)
    assert report(capfd, "list", path) == {"engines": []}
    options = ["--backend", "ort", "--precision", "int8", "--threads", "1"]
    (absent,) = report(capfd, "explain", path, *options)["engines"]
    assert absent["status"] == "absent"
    engine = build_engine(folder, "ort", "int8", 1)
    (listed,) = report(capfd, "list", path)["engines"]
    assert (listed["key"], listed["problem"]) == (engine.info["key"], None)
    assert report(capfd, "explain", path, *options)["engines"][0]["status"] == "hit"
    calibrated(folder, seed=8)
    (stale,) = report(capfd, "explain", path, *options)["engines"]
    assert stale["status"] == "stale"
    assert list(stale["changed"]) == ["ranges"]
    assert run(["cache", "explain", path, *options]) == 0
    assert "ranges was" in capfd.readouterr().out
    assert report(capfd, "clear", path)["removed"] == 1
    assert report(capfd, "list", path) == {"engines": []}


def test_damage_is_listed(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    engine = build_engine(folder, "ort", "fp32", 1)
    (engine.directory / "engine.onnx").write_bytes(b"")
    (listed,) = report(capfd, "list", str(folder.path))["engines"]
    assert "0 bytes" in listed["problem"]
    (engine.directory / "engine.json").write_text("{")
    (listed,) = report(capfd, "list", str(folder.path))["engines"]
    assert (listed["key"], listed["backend"]) == (engine.info["key"], None)
    assert "cannot be read" in listed["problem"]
    assert run(["cache", "list", str(folder.path)]) == 0
    assert "cannot be read" in capfd.readouterr().out


def test_explain_everything_by_default(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    answers = report(capfd, "explain", str(folder.path), "--threads", "1")["engines"]
    assert {answer["key"].rpartition("-")[0] for answer in answers} >= {"ort-fp32", "ort-int8"}


def test_explain_of_what_a_backend_lacks(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "explain", str(folder.path), "--backend", "ort", "--precision", "bf16"]) == 1
    assert "ort has no bf16" in capfd.readouterr().err


def test_list_without_a_folder_covers_the_working_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path))
    assert report(capfd, "list") == {"engines": []}
    assert run(["cache", "list"]) == 0
    assert capfd.readouterr().out == "no engines of the shipped models\n"
    engine = build_engine(tiny_folder(tmp_path / "models" / "tiny"), "ort", "fp32", 1)
    (listed,) = report(capfd, "list")["engines"]
    assert (listed["key"], listed["model"]) == (engine.info["key"], "tiny")
    assert run(["cache", "list"]) == 0
    assert "1 engines of the shipped models" in capfd.readouterr().out
