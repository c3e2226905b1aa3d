"""The engine cache: reuse, every reason to rebuild, damage, concurrent builders, signals."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration import CalibrationError
from edgeseg.engines import build_engine, load_engine, ort
from edgeseg.engines.cache import INFO, clear, engines, explain, read_engine, verify
from edgeseg.engines.keys import device, difference, engine_fields, engine_key, target_profile
from edgeseg.engines.session import get_backend
from edgeseg.errors import BackendError, EdgesegError, ManifestError
from edgeseg.folder import GRAPH, ModelFolder
from tests.tiny_model import calibrated, tiny_folder, tiny_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny")


def fields(folder: ModelFolder, precision: str = "fp32", threads: int = 1) -> dict:
    return engine_fields(folder, get_backend("ort"), precision, threads)


def test_second_build_reuses_the_first(folder: ModelFolder) -> None:
    first = build_engine(folder, "ort", "fp32", 1)
    assert build_engine(folder, "ort", "fp32", 1).info == first.info
    assert first.info["fields"] == fields(folder)
    assert first.directory.name == engine_key(fields(folder))
    assert (first.backend, first.precision) == ("ort", "fp32")
    assert first.bytes == sum(path.stat().st_size for path in first.directory.iterdir() if path.name != INFO)
    assert explain(folder, fields(folder))["status"] == "hit"
    assert build_engine(folder, "ort", "fp32", 1, force=True).directory == first.directory


def test_threads_precision_and_graph_make_other_engines(folder: ModelFolder) -> None:
    build_engine(folder, "ort", "fp32", 1)
    build_engine(folder, "ort", "fp32", 2)
    assert explain(folder, fields(folder, threads=4))["changed"]["threads"][1] == 4
    onnx.save(tiny_graph(seed=1), str(folder.graph))
    folder.register(GRAPH)
    answer = explain(folder, fields(folder))
    assert answer["status"] == "stale"
    assert list(answer["changed"]) == ["graph"]
    build_engine(folder, "ort", "fp32", 1)
    assert len(engines(folder)) == 3


def test_changed_ranges_rebuild_int8_only(folder: ModelFolder) -> None:
    calibrated(folder, seed=3)
    build_engine(folder, "ort", "int8", 1)
    build_engine(folder, "ort", "fp32", 1)
    calibrated(folder, seed=4)
    assert list(explain(folder, fields(folder, "int8"))["changed"]) == ["ranges"]
    assert explain(folder, fields(folder, "fp32"))["status"] == "hit"
    assert build_engine(folder, "ort", "int8", 1).info["fields"]["ranges"] == folder.manifest.files["ranges.json"].sha256


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backend_version", "0.1"),
        ("passes", "0" * 64),
        ("device.cpu", "another CPU"),
        ("device.isa", "sse4_2"),
        ("input.mean", [0.0, 0.0, 0.0]),
        ("edgeseg", "0"),
    ],
)
def test_explain_names_the_field(folder: ModelFolder, name: str, value: object) -> None:
    build_engine(folder, "ort", "fp32", 1)
    answer = explain(folder, {**fields(folder), name: value})
    assert answer["status"] == "stale"
    assert answer["changed"] == {name: [fields(folder)[name], value]}
    assert name in answer["reason"]


def test_explain_without_any_engine(folder: ModelFolder) -> None:
    assert explain(folder, fields(folder)) == {
        "key": engine_key(fields(folder)),
        "status": "absent",
        "reason": "never built",
        "changed": {},
    }


def test_preprocessing_is_in_the_key(folder: ModelFolder) -> None:
    before = fields(folder)
    spec = folder.manifest.input
    folder.update(input=spec.model_copy(update={"colour_order": "bgr"}))
    assert difference(before, fields(folder)) == {"input.colour_order": ("rgb", "bgr")}


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize("damage", [damage_flip, damage_truncate, Path.unlink])
def test_damaged_engine_is_rebuilt_with_a_notice(
    folder: ModelFolder, backend: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    engine = build_engine(folder, backend, "fp32", 1)
    damage(next(path for path in engine.directory.iterdir() if path.name != INFO))
    assert explain(folder, engine.info["fields"])["status"] == "damaged"
    with caplog.at_level(logging.WARNING):
        session = load_engine(folder, backend, "fp32", 1)
    assert "damaged engine" in caplog.text
    assert np.isfinite(session.run({"image": np.zeros((1, 3, 32, 48), np.float32)})["logits"]).all()
    assert explain(folder, engine.info["fields"])["status"] == "hit"


def test_damaged_bytes_never_reach_the_backend(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build_engine(folder, "ort", "fp32", 1)
    name = next(path.name for path in engine.directory.iterdir() if path.name != INFO)
    damage_flip(engine.directory / name)
    damaged, seen, load = (engine.directory / name).read_bytes(), [], ort.load

    def spy(directory: Path, *arguments: object) -> object:
        seen.append((directory / name).read_bytes())
        return load(directory, *arguments)

    monkeypatch.setattr(ort, "load", spy)
    load_engine(folder, "ort", "fp32", 1)
    assert seen
    assert damaged not in seen


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "edgeseg-engine"}', '{"format": "edgeseg-engine", "key": 1, "fields": 2, "files": 3}']
)
def test_damaged_engine_json_is_rebuilt(folder: ModelFolder, text: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = build_engine(folder, "ort", "fp32", 1)
    (engine.directory / INFO).write_text(text)
    assert read_engine(engine.directory)[0] is None
    assert build_engine(folder, "ort", "fp32", 1).info["key"] == engine.info["key"]
    assert "damaged engine" in caplog.text


def test_engine_json_cannot_point_outside(folder: ModelFolder) -> None:
    engine = build_engine(folder, "ort", "fp32", 1)
    info = json.loads((engine.directory / INFO).read_text())
    info["files"] = {"../../model.onnx": folder.manifest.files[GRAPH].model_dump()}
    (engine.directory / INFO).write_text(json.dumps(info))
    found, _ = read_engine(engine.directory)
    assert found is not None
    assert "missing" in verify(found)


def test_clear_frees_everything(folder: ModelFolder) -> None:
    assert clear(folder) == (0, 0)
    engine = build_engine(folder, "ort", "fp32", 1)
    size = sum(path.stat().st_size for path in engine.directory.iterdir())
    assert clear(folder) == (1, size)
    assert engines(folder) == []


def test_int8_without_ranges_names_the_command(folder: ModelFolder) -> None:
    with pytest.raises(BackendError, match="edgeseg calibrate"):
        build_engine(folder, "ort", "int8", 1)
    assert not list(folder.engines.glob("*-*"))


def test_ranges_of_another_graph_are_refused(folder: ModelFolder, tmp_path: Path) -> None:
    other = calibrated(tiny_folder(tmp_path / "other", seed=9))
    folder.ranges.write_bytes(other.ranges.read_bytes())
    folder.register("ranges.json")
    with pytest.raises(CalibrationError, match="another model"):
        build_engine(folder, "ort", "int8", 1)
    assert not list(folder.engines.glob("*-*"))
    assert not list(folder.engines.glob(".*.tmp"))


def test_ranges_of_another_preprocessing_are_refused(folder: ModelFolder) -> None:
    calibrated(folder)
    folder.update(input=folder.manifest.input.model_copy(update={"mean": (0.0, 0.0, 0.0)}))
    with pytest.raises(BackendError, match=r"another \$.input"):
        build_engine(folder, "ort", "int8", 1)


def test_graph_that_differs_from_the_manifest_is_refused(folder: ModelFolder) -> None:
    onnx.save(tiny_graph(seed=5), str(folder.graph))
    with pytest.raises(ManifestError, match=r"\$\.files\.model\.onnx"):
        build_engine(folder, "ort", "fp32", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused_before_work(folder: ModelFolder) -> None:
    folder.path.chmod(0o555)
    try:
        with pytest.raises(EdgesegError, match="can be written"):
            build_engine(folder, "ort", "fp32", 1)
    finally:
        folder.path.chmod(0o755)


def test_cache_directory_that_is_a_file_is_refused(folder: ModelFolder) -> None:
    folder.engines.write_text("in the way")
    with pytest.raises(EdgesegError, match="can be written"):
        build_engine(folder, "ort", "fp32", 1)


def test_zero_threads_are_refused(folder: ModelFolder) -> None:
    with pytest.raises(EdgesegError, match="--threads -1"):
        build_engine(folder, "ort", "fp32", -1)


def test_profiles_fit_their_backends() -> None:
    assert target_profile("openvino") == "openvino"
    assert target_profile("ort") in ("x86", "arm")


def test_device_is_named() -> None:
    assert set(device()) == {"arch", "cpu", "stepping", "isa"}
    assert device()["cpu"]


SLOW_BUILD = """
import sys, time
from pathlib import Path
import edgeseg.engines.ort as ort
from edgeseg.engines import build_engine
from edgeseg.folder import ModelFolder
real, marker = ort.build, Path(sys.argv[2])
def slow(job):
    with marker.open("a") as stream:
        stream.write("build\\n")
    time.sleep(float(sys.argv[3]))
    real(job)
ort.build = slow
import edgeseg.cli.app as app
if sys.argv[4:] == ["cli"]:
    sys.exit(app.main(["build", sys.argv[1], "--backend", "ort", "--precision", "fp32", "--threads", "1"]))
print(build_engine(ModelFolder(Path(sys.argv[1])), "ort", "fp32", 1).info["created"])
"""


def start(folder: ModelFolder, marker: Path, seconds: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_BUILD, str(folder.path), str(marker), str(seconds), *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def wait_for(marker: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marker.exists(), process.communicate()[1]


def test_two_processes_build_once(folder: ModelFolder, tmp_path: Path) -> None:
    marker = tmp_path / "builds"
    first = start(folder, marker, 1.0)
    wait_for(marker, first)
    second = start(folder, marker, 1.0)
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert marker.read_text().splitlines() == ["build"]
    assert outputs[0][0] == outputs[1][0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_during_a_build_leaves_the_cache_intact(
    folder: ModelFolder, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    kept = build_engine(folder, "ort", "fp32", 2)
    marker = tmp_path / "builds"
    process = start(folder, marker, 30.0, "cli")
    wait_for(marker, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert sorted(path.name for path in folder.engines.iterdir()) == sorted([".lock", kept.directory.name])
    assert verify(kept) == ""


def test_leftovers_of_a_killed_build_are_removed(folder: ModelFolder, tmp_path: Path) -> None:
    marker = tmp_path / "builds"
    process = start(folder, marker, 30.0)
    wait_for(marker, process)
    process.kill()
    process.communicate(timeout=60)
    assert list(folder.engines.glob(".*.tmp"))
    build_engine(folder, "ort", "fp32", 1)
    assert not list(folder.engines.glob(".*.tmp"))
