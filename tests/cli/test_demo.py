"""``edgeseg demo``: what is wrong is told before the long work. tests/test_end_to_end.py runs it whole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgeseg.cli.app import run
from edgeseg.folder import ModelFolder
from tests.tiny_model import camvid_copy, tiny_folder


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    folder: ModelFolder = tiny_folder(tmp_path / "tiny", 11)
    data = camvid_copy(tmp_path / "camvid", {"train": 2, "val": 1, "test": 1})
    monkeypatch.setattr("edgeseg.measure.calibrate.calibrate", lambda *_, **__: pytest.fail("worked before it looked"))
    monkeypatch.setattr("edgeseg.data.streets.write_clip", lambda *_, **__: pytest.fail("worked before it looked"))
    return ["demo", "--model", str(folder.path), "--data", f"camvid:{data}"]


def told(capfd: pytest.CaptureFixture[str]) -> str:
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_an_output_that_cannot_be_written_is_told_first(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run([*arguments, "-o", str(tmp_path / "file")]) == 1
    assert "can be written" in told(capfd)
    assert (tmp_path / "file").read_text() == "mine"

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert run([*arguments, "-o", str(tmp_path / "out")]) == 1
    assert "Read-only" in told(capfd)


def test_a_source_that_is_not_there_is_told_first(arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="needs the live extra")
    assert run([*arguments, "-o", str(tmp_path / "out"), "--source", str(tmp_path / "none.mp4")]) == 1
    assert "no such file" in told(capfd)
    assert not (tmp_path / "out").exists()
