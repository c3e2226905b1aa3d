"""edgeseg predict: files that other tools read, big pictures in windows, broken ones skipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeseg.cli.app import main
from edgeseg.engines import load_segmenter
from edgeseg.errors import DataError
from edgeseg.folder import ModelFolder
from edgeseg.measure.predict import _run_lengths, find_pictures
from tests.tiny_model import tiny_folder

HEIGHT, WIDTH = 70, 90
ENGINE = ("--backend", "ort", "--precision", "fp32")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny", 5)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "inner/b.png"):
        cv2.imwrite(str(root / name), cv2.resize(rng.integers(0, 256, (7, 9, 3), np.uint8), (WIDTH, HEIGHT)))
    return root


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_labels_are_palette_pictures_and_are_what_the_engine_gives(
    folder: ModelFolder, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert run("predict", folder.path, photos, "-o", tmp_path / "out", *ENGINE, "--overlay") == 0
    assert "2 pictures, 1 skipped: 4 files" in capsys.readouterr().out
    with load_segmenter(folder, "ort", "fp32", 1) as segmenter:
        for name in ("a", "b"):
            (source,) = photos.rglob(f"{name}.png")
            picture = Image.open(tmp_path / "out" / f"{name}.png")
            assert picture.mode == "P"
            assert np.array_equal(np.array(picture), segmenter(cv2.imread(str(source))))
            colours = np.array(picture.getpalette()[: 3 * 5]).reshape(-1, 3)
            assert colours.tolist() == [list(item.colour) for item in folder.manifest.classes]
            assert cv2.imread(str(tmp_path / "out" / f"{name}_overlay.jpg")).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the file that is made here is of no place on earth
def test_tiles_of_a_tiff_are_read_and_written_in_windows(folder: ModelFolder, photos: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="windows need the large extra")
    frame = cv2.imread(str(photos / "a.png"))
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=3, dtype="uint8") as target:
        target.write(frame[..., ::-1].transpose(2, 0, 1))
    for source in (tmp_path / "a.tif", photos / "a.png"):
        assert run("predict", folder.path, source, "-o", tmp_path / "out", *ENGINE, "--tile", "6") == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as made:
        assert made.colormap(1)[1][:3] == folder.manifest.classes[1].colour
        windows = made.read(1)
    assert np.array_equal(windows, np.array(Image.open(tmp_path / "out" / "a.png")))


def test_mistakes_are_told_before_the_engine_is_opened(folder: ModelFolder, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        find_pictures([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        find_pictures([tmp_path / "empty"])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="two pictures named a"):
        find_pictures([photos, tmp_path / "a.png"])
    (tmp_path / "only.jpg").write_bytes(b"no picture")
    assert run("predict", folder.path, tmp_path / "only.jpg", "-o", tmp_path / "out", *ENGINE) == 1


def test_run_lengths_go_down_the_columns_and_start_with_zeros() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)
    assert _run_lengths(mask) == {"size": [2, 3], "counts": [2, 3, 1]}
    assert _run_lengths(1 - mask)["counts"] == [0, 2, 3, 1]
    assert _run_lengths(np.zeros((2, 2), np.uint8))["counts"] == [4]
    masks = pytest.importorskip("pycocotools.mask", reason="the train extra brings it")
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = (rng.random((9, 7)) < 0.4).astype(np.uint8)
        packed = masks.frPyObjects(_run_lengths(mask), 9, 7)
        assert np.array_equal(masks.decode(packed), mask)
