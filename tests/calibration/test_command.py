"""python -m calibration: pictures or arrays in, an INT8 model out; one line for a user's mistake and nothing left behind."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from calibration import Ranges
from calibration.__main__ import main
from tests.calibration import nets, runtimes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(nets.unet(8, (32, 32)), path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:02}.png"), random.integers(0, 256, (40, 60, 3), np.uint8))
    return folder


def test_pictures_to_int8(model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = tmp_path / "int8.onnx", tmp_path / "ranges.json"
    given = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--method", "percentile"]
    assert main([str(model), "--images", str(pictures), *given, "-o", str(out), "--save-ranges", str(saved)]) == 0
    told = capsys.readouterr()
    assert "12 images" in told.out
    assert "only 12 images" in told.err
    ranges = Ranges.load(saved)
    low, high = ranges.tensors["input"]
    assert -2.2 < low < high < 2.7
    assert runtimes.ort_output(onnx.load(out), {"input": np.zeros((1, 3, 32, 32), np.float32)}).shape[1] == 5
    again = tmp_path / "again.onnx"
    assert main([str(model), "--ranges", str(saved), "-o", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_functions_are_kept_on_request(tmp_path: Path) -> None:
    from tests.calibration.test_prepare import shuffled

    model, arrays = tmp_path / "net.onnx", tmp_path / "arrays"
    onnx.save(shuffled(), model)
    arrays.mkdir()
    np.save(arrays / "a.npy", nets.batches(shuffled(), 1)[0]["input"])
    for options, functions in ([], []), (["--keep-functions", "net"], ["Double"]):
        out = tmp_path / f"int8_{len(functions)}.onnx"
        assert main([str(model), "--images", str(arrays), *options, "-o", str(out)]) == 0
        assert [function.name for function in onnx.load(out).functions] == functions


def test_arrays_to_int8(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    batch = nets.batches(onnx.load(model), 2)
    np.save(folder / "a.npy", batch[0]["input"])
    np.savez(folder / "b.npz", **batch[1])
    out = tmp_path / "int8.onnx"
    assert main([str(model), "--images", str(folder), "--method", "minmax", "--profile", "tensorrt", "-o", str(out)]) == 0
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(out).graph.node)


def test_a_corrupt_picture_is_left_out_and_counted(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "00.png").write_bytes(b"not a picture")
    out = tmp_path / "int8.onnx"
    assert main([str(model), "--images", str(pictures), "--method", "minmax", "-o", str(out)]) == 0
    assert "1 files could not be read and were left out: 00.png" in capsys.readouterr().err
    for number in range(1, 4):
        (pictures / f"{number:02}.png").write_bytes(b"")
    out.unlink()
    assert main([str(model), "--images", str(pictures), "--method", "minmax", "-o", str(out)]) == 1
    assert "4 of 12 files could not be read" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "none.onnx"}, "none.onnx: No such file"),
        ({"model": "text.onnx"}, "not an ONNX model"),
        ({"--images": "nowhere"}, "no such folder"),
        ({"--images": "empty"}, "no images"),
        ({"-o": "net.onnx"}, "net.onnx exists"),
        ({"-o": "missing/out.onnx"}, "its folder does not exist"),
        ({"--keep-float": "nobody"}, "'nobody' to keep in float"),
        ({"--colour": "gray"}, "pictures of 1 channels"),
    ],
)
def test_mistakes_are_told_in_one_line(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], match: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("not a protobuf")
    given = {"model": "net.onnx", "--images": "pictures", "-o": "out.onnx", "--method": "minmax"} | change
    paths = {"model", "--images", "-o"}
    given = {key: str(tmp_path / value) if key in paths else value for key, value in given.items()}
    before = {path.name for path in tmp_path.iterdir()}
    arguments = [given.pop("model")] + [part for pair in given.items() for part in pair]
    assert main(arguments) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert len(told) == 1
    assert told[0].startswith("error: ")
    assert match in told[0]
    assert {path.name for path in tmp_path.iterdir()} == before


def test_an_output_is_replaced_only_by_force(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"precious")
    given = [str(model), "--images", str(pictures), "--method", "minmax", "--limit", "2", "-o", str(out)]
    assert main(given) == 1
    assert "int8.onnx exists" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert main([*given, "--force"]) == 0
    assert onnx.load(out).graph.node


def test_a_read_only_folder_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["none.onnx", "--images", "none", "-o", str(tmp_path / "out.onnx")]) == 1
    assert "Read-only" in capsys.readouterr().err


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "link.bin", "none.bin"])
def test_weights_outside_the_folder_are_refused(
    location: str, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = onnx.load(model)
    tensor = item.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "w.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (inside / "net.onnx").write_bytes(item.SerializeToString())
    assert main([str(inside / "net.onnx"), "--images", str(pictures), "-o", str(tmp_path / "out.onnx")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert tensor.name in told[0]
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_temporary_file(model: Path, pictures: Path, tmp_path: Path, number: int, code: int) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    program = (
        "import os, runpy, sys, time\n"
        "def slow(descriptor):\n    print('ready', flush=True); time.sleep(60)\n"
        "os.fsync = slow\nrunpy.run_module('calibration', run_name='__main__')"
    )
    given = [str(model), "--images", str(pictures), "--method", "minmax", "-o", str(tmp_path / "out.onnx")]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert {path.name for path in tmp_path.iterdir()} == before
