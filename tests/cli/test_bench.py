"""``edgeseg bench`` and ``edgeseg compare``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.folder import ModelFolder
from tests.tiny_model import calibrated, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path / "tiny"))


def test_bench_json(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "ort", "--precision", "int8", "--threads", "1", "--frames", "5", "--frame-size", "64x48"]
    assert run(["bench", str(folder.path), *options, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert {"p50", "p95", "p99"} <= report["engine_ms"].keys()
    assert {"p50", "p95", "p99"} <= report["end_to_end_ms"].keys()
    assert report["fps"] > 0
    assert (report["backend"], report["precision"], report["frame_size"]) == ("ort", "int8", [64, 48])
    assert run(["bench", str(folder.path), *options]) == 0
    out = capfd.readouterr().out
    assert all(word in out for word in ("engine ms", "end to end ms", "p99", "throughput"))


@pytest.mark.parametrize("size", ["64", "0x10", "axb", "99999x10", "64x48x3"])
def test_bad_frame_size(folder: ModelFolder, size: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(folder.path), "--backend", "ort", "--frame-size", size]) == 1
    assert "--frame-size" in capfd.readouterr().err


def test_compare_json_and_layers(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", str(folder.path), "--backends", "ort,openvino", "--precisions", "fp32,int8", "--threads", "1"]
    assert run([*arguments, "--layers", "--frames", "2", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert len(report["pairs"]) == 6
    assert all({"a", "b", "max_abs", "max_rel", "argmax_agreement"} <= pair.keys() for pair in report["pairs"])
    assert {layer["tensor"] for layer in report["layers"]["ort/fp32 vs ort/int8"]} >= {"logits"}
    assert run([*arguments, "--layers", "--frames", "1"]) == 0
    assert "argmax_agreement" in capfd.readouterr().out


def test_compare_errors(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["--backends", "ort"], "at least two engines"),
        (["--backends", "ort,tpu"], "tpu"),
        (["--precisions", "fp8"], "--precisions fp8"),
    ):
        assert run(["compare", str(folder.path), *arguments]) == 1
        assert told in capfd.readouterr().err
