"""``edgeseg live`` as a program: its report, its errors in one line, and recordings that play whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.cli import app, live
from edgeseg.cli.live import _lossless, status_text
from edgeseg.errors import EdgesegError
from edgeseg.manifest import CrfSpec, OutputSpec
from tests.tiny_model import tiny_folder

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "apps")])
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    env.pop("DISPLAY", None)
    command = [sys.executable, str(ROOT / "tests" / "apps" / "run_fake_live.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd)


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        image = np.full((72, 128, 3), index * 20, np.uint8)
        cv2.imwrite(str(folder / f"{index:02d}.jpg"), image)
    return folder


def wait_for(folder: Path, pattern: str, least_bytes: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if any(path.stat().st_size >= least_bytes for path in folder.glob(pattern)):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing was recorded: {list(folder.iterdir())}")


def test_json_report_and_recording(pictures: Path, tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    code, out, err = run("--source", str(pictures), "--sink", str(video), "--sink", f"labels:{tmp_path / 'labels'}", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["frames"] == 12
    assert report["dropped"] == 0
    assert report["rate"] == "max"
    assert {"fps", "latency_ms", "source", "stages_ms"} <= set(report)
    assert {"p50", "p95", "p99"} <= set(report["latency_ms"])
    assert count_frames(video) == 12
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [f"{index:06d}.png" for index in range(12)]
    labels = cv2.imread(str(tmp_path / "labels" / "000003.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (72, 128)
    assert labels.max() < 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_recording_that_plays(pictures: Path, tmp_path: Path, number: int, code: int) -> None:
    video = tmp_path / "out.mp4"
    process = start("--source", f"folder:{pictures}?loop=1&fps=100", "--rate", "realtime", "--sink", str(video), "--json")
    # Frames flow when a file has bytes, and the muxer holds the first ones back.
    wait_for(tmp_path, ".out*.tmp.mp4", 40)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    report = json.loads(out)
    assert count_frames(video) == report["sinks"][0]["frames"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_ends_an_endless_source(pictures: Path) -> None:
    code, out, err = run("--source", f"folder:{pictures}?loop=1", "--sink", "none:", "--frames", "30", "--json")
    assert code == 0, err
    assert json.loads(out)["frames"] == 30


def test_table_without_json(pictures: Path) -> None:
    code, out, _ = run("--source", str(pictures))
    assert code == 0
    assert "capture to display" in out
    assert "inference" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nothing.mp4"], "no such file"),
        (["--source", "/dev/video99"], "no such device"),
        (["--source", "ftp://host/x"], "unknown scheme"),
        (["--source", "synth:?size=axb"], "WIDTHxHEIGHT"),
        (["--source", "synth:?colour=1"], "unknown option"),
        (["--source", "rtsp:"], "no host"),
        (["--source", "synth:", "--sink", "out.avi"], "nothing is known"),
        (["--source", "synth:", "--sink", "http://0.0.0.0:0"], "token"),
        (["--source", "synth:", "--sink", "http://127.0.0.1"], "PORT"),
        (["--source", "synth:", "--sink", "window:"], "opencv-python-headless"),
        (["--source", "synth:", "--rate", "fast"], "realtime"),
        (["--source", "synth:", "--sink", "x.mp4?x=1", "--frames", "1"], "nothing is known"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    process = start(*arguments, cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = [line for line in err.strip().splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"not a video" * 100)
    code, _, err = run("--source", str(tmp_path / "x.mp4"))
    assert code == 1
    assert "error: " in err
    assert "Traceback" not in err


def test_an_existing_recording_is_replaced_only_by_force(pictures: Path, tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    video.write_bytes(b"precious")
    code, _, err = run("--source", str(pictures), "--sink", str(video))
    assert code == 1
    assert "exists" in err
    assert video.read_bytes() == b"precious"
    code, _, err = run("--source", str(pictures), "--sink", str(video), "--force")
    assert code == 0, err
    assert count_frames(video) == 12


def test_page_of_a_program_prints_its_url_and_hides_the_token(pictures: Path) -> None:
    process = start("--source", f"folder:{pictures}?loop=1", "--sink", "http://127.0.0.1:0", EDGESEG_TOKEN="hush-hush")
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.split()[-1]
        request = urllib.request.Request(url + "stats", headers={"Authorization": "Bearer hush-hush"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        assert json.loads(text)["source"]["state"] in ("starting", "opening", "playing")
        assert "hush-hush" not in text + line
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


@pytest.mark.parametrize("sink", ["exists.mp4", "file/new.mp4", "labels:full", "labels:file/new"])
def test_an_output_that_cannot_be_written_is_told_before_the_engine_is_built(
    sink: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exists.mp4").write_bytes(b"precious")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "000000.png").write_bytes(b"precious")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live, "_open_model", lambda *_: pytest.fail("built before it looked"))
    assert app.run(["live", "fake", "--source", "synth:", "--sink", "none:", "--sink", "labels:fresh", "--sink", sink]) == 1
    assert capfd.readouterr().err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("rate", "live", "recordings", "expected"),
    [
        ("auto", False, True, True),
        ("auto", False, False, False),
        ("auto", True, True, False),
        ("max", True, True, False),
        ("max", False, False, True),
        ("realtime", False, True, False),
    ],
)
def test_rate(rate: str, live: bool, recordings: bool, expected: bool) -> None:
    assert _lossless(rate, live, recordings) is expected


def test_unknown_rate() -> None:
    with pytest.raises(EdgesegError, match="auto, realtime, max"):
        _lossless("fast", False, True)


def test_status_line_tells_progress_and_faults() -> None:
    source = {"state": "waiting", "note": "unplugged; next try in 4 s", "width": 640, "height": 480}
    sinks = [{"uri": "out.mp4", "error": "disk full"}]
    report = {
        "source": source,
        "latency_ms": {"p50": 20.0, "p95": 31.0},
        "recent_fps": 24.9,
        "frames": 50,
        "dropped": 3,
        "sinks": sinks,
    }
    line = status_text(report, 100, 10.0)
    for part in ("waiting 640x480", "24.9 fps", "50/100", "dropped 3", "left 10 s", "unplugged", "out.mp4: disk full"):
        assert part in line


def test_what_is_no_label_map_is_told_before_the_engine_is_built_and_a_crf_is_left_out(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", 3)
    folder.update(crf=CrfSpec())
    with live._open_model(str(folder.path), "ort", "fp32", 1) as segmenter:
        assert segmenter.manifest.crf is None
    folder.update(crf=None, task="panoptic", output=OutputSpec(kind="panoptic"))
    with pytest.raises(EdgesegError, match="task panoptic, output panoptic; expected a model that gives one label map"):
        live._open_model(str(folder.path), "ort", "int8", 1)  # int8 has no ranges: it would be the first to complain
