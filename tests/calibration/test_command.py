"""python -m calibration: pictures or arrays in, an INT8 model out; one line for a user's mistake and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from calibration import Ranges
from calibration.__main__ import main
from tests.calibration import nets, runtimes


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
