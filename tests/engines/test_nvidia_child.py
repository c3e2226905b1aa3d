"""The process that builds: what it reports, and every way in which it may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeseg.engines.nvidia.child import build_in_child
from edgeseg.errors import BackendError
from tests.tiny_model import tiny_graph

FAKE = "tests.engines.fake_tensorrt"
ROOT = Path(__file__).resolve().parents[2]


def request(tmp_path: Path, command: str = "", **more: Any) -> dict[str, Any]:
    model = tiny_graph()
    model.doc_string = command
    onnx.save(model, str(tmp_path / "graph.onnx"))
    (tmp_path / "out").mkdir(exist_ok=True)
    said = {"library": FAKE, "graph": str(tmp_path / "graph.onnx"), "directory": str(tmp_path / "out"), "precision": "fp32"}
    return {**said, "input": "image", "options": {}, "plugins": None, "timing_cache": None, "inspect": True, **more}


def children() -> set[str]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {line for line in listed.stdout.splitlines() if "nvidia.worker" in line and " Z" not in line}


def test_build_reports_progress_and_leaves_engine_and_layers(tmp_path: Path) -> None:
    told: list[str] = []
    done = build_in_child(request(tmp_path), told.append)
    assert done["layers"] == 6
    assert "Building" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["engine.plan", "layers.json"]


def test_an_error_of_the_builder_arrives_whole(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot build the graph: no tactic within the workspace; fix: a larger --workspace-mb"):
        build_in_child(request(tmp_path, "refuse"), lambda _: None)
    with pytest.raises(BackendError, match="--target sm86"):
        build_in_child(request(tmp_path, options={"targets": ["sm86"]}), lambda _: None)


def test_an_abort_takes_only_the_child_and_says_what_was_printed_last(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="died of SIGABRT: plugin is not supported"):
        build_in_child(request(tmp_path, "abort"), lambda _: None)


def test_an_exit_and_a_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ended with code 7"):
        build_in_child(request(tmp_path, "exit"), lambda _: None)
    with pytest.raises(BackendError, match="no_such_library"):
        build_in_child(request(tmp_path, library="no_such_library"), lambda _: None)


def test_a_build_that_hangs_is_ended(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"took longer than 2 s.*--timeout"):
        build_in_child(request(tmp_path, "hang"), lambda _: None, timeout_s=2)
    assert time.monotonic() - started < 30
    assert not children()


def test_an_interrupt_stops_the_builder_between_two_steps(tmp_path: Path) -> None:
    def interrupt(words: str) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_in_child(request(tmp_path, "slow"), interrupt)
    assert time.monotonic() - started < 9, "it waited for the end of the build, or had to be killed"
    assert not children()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    said = request(tmp_path, "hang")
    code = (
        f"from edgeseg.engines.nvidia.child import build_in_child; build_in_child({said!r}, lambda words: print(words, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "Building\n"
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True, check=True)
    (child,) = (int(pid) for pid in listed.stdout.split())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the builder outlived the process that asked for it")
