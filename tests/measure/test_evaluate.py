"""Accuracy on the built engine, and the wall between calibration and evaluation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data import open_dataset
from edgeseg.engines import Segmenter, load_segmenter
from edgeseg.errors import DataError
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Provenance
from edgeseg.measure.calibrate import calibrate
from edgeseg.measure.evaluate import evaluate
from edgeseg.measure.samples import (
    check_classes,
    default_data,
    judging_frames,
    require_data,
    sample_frames,
    spread,
    synthetic_frames,
)
from tests.tiny_model import calibrated, camvid_copy, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny", 11)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return f"camvid:{camvid_copy(tmp_path / 'camvid', {'train': 6, 'val': 2, 'test': 5})}"


def opened(folder: ModelFolder, precision: str = "fp32") -> Segmenter:
    return load_segmenter(folder, "ort", precision, 1)


def test_figures_equal_a_confusion_matrix_by_hand(folder: ModelFolder, data: str) -> None:
    segmenter = opened(folder)
    result = evaluate(folder, segmenter, data, "test")
    counts = np.zeros((11, 11))
    for sample in open_dataset(data, "test"):
        for true, predicted in zip(sample.labels.ravel(), segmenter(sample.image).ravel(), strict=True):
            if true != 255:
                counts[true, predicted] += 1
    hits, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    present = true + predicted > 0
    ious = hits[present] / (true + predicted - hits)[present]
    assert result.figures["pixel_accuracy"] == pytest.approx(hits.sum() / counts.sum(), abs=1e-12)
    assert result.figures["mean_accuracy"] == pytest.approx(np.mean((hits / np.maximum(true, 1))[true > 0]), abs=1e-12)
    assert result.figures["mean_iou"] == pytest.approx(ious.mean(), abs=1e-12)
    assert result.figures["fw_iou"] == pytest.approx((true[present] * ious).sum() / true.sum(), abs=1e-12)
    assert [value for value in result.per_class.values() if value is not None] == pytest.approx(list(ious), abs=1e-12)
    assert list(result.per_class) == folder.manifest.class_names
    assert (result.images, result.skipped, result.backend, result.precision) == (5, 0, "ort", "fp32")


def test_whole_split_is_kept_in_the_manifest_and_a_part_is_not(folder: ModelFolder, data: str) -> None:
    segmenter = opened(folder)
    assert evaluate(folder, segmenter, data, "test", frames=2).images == 2
    assert folder.manifest.measurements == []
    result = evaluate(folder, segmenter, data, "test")
    (kept,) = folder.manifest.measurements
    assert (kept.what, kept.backend, kept.precision, kept.data) == ("eval", "ort", "fp32", "camvid test")
    assert kept.values["mean_iou"] == result.figures["mean_iou"]


def test_calibrate_then_evaluate_int8(folder: ModelFolder, data: str) -> None:
    ranges = calibrate(folder, data, "train", "minmax")
    assert ranges.images == 6
    assert ranges.data["ids"] == open_dataset(data, "train").ids()
    assert any("6 images" in warning for warning in ranges.warnings)
    assert folder.manifest.files["ranges.json"].bytes == folder.ranges.stat().st_size
    result = evaluate(folder, opened(folder, "int8"), data, "test")
    assert result.precision == "int8"
    with pytest.raises(DataError, match=r"6 of the train pictures .* used in calibration.*--split train"):
        evaluate(folder, opened(folder, "int8"), data, "train")
    assert evaluate(folder, opened(folder, "fp32"), data, "train").images == 6, "float owes nothing to calibration"


@pytest.mark.parametrize("split", ["test", "val"])
def test_calibration_refuses_evaluation_splits(folder: ModelFolder, data: str, split: str) -> None:
    with pytest.raises(DataError, match=f"{split} split"):
        calibrate(folder, data, split, "minmax")
    assert not folder.ranges.exists()


def test_same_picture_under_another_name_is_found(folder: ModelFolder, data: str) -> None:
    calibrate(folder, data, "train", "minmax")
    root = Path(data.partition(":")[2])
    cv2.imwrite(str(root / "test" / "test_003.png"), cv2.imread(str(root / "train" / "train_001.png")))
    with pytest.raises(DataError, match=r"used in calibration, the first test_003"):
        evaluate(folder, opened(folder, "int8"), data, "test")


def test_same_names_in_another_data_set_are_no_overlap(folder: ModelFolder, data: str, tmp_path: Path) -> None:
    calibrated(folder)
    assert evaluate(folder, opened(folder, "int8"), data, "train").images == 6


def test_corrupt_pictures_are_skipped_and_counted(folder: ModelFolder, data: str) -> None:
    root = Path(data.partition(":")[2])
    (root / "test" / "test_001.png").write_bytes(b"not a picture")
    result = evaluate(folder, opened(folder), data, "test")
    assert (result.images, result.skipped) == (4, 1)
    (root / "testannot" / "test_002.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 unreadable pictures"):
        evaluate(folder, opened(folder), data, "test")


def test_corrupt_pictures_in_calibration(folder: ModelFolder, data: str) -> None:
    root = Path(data.partition(":")[2])
    (root / "train" / "train_004.png").unlink()
    ranges = calibrate(folder, data, "train", "minmax")
    assert (ranges.images, ranges.data["skipped"], len(ranges.data["ids"])) == (5, 1, 5)


def test_nothing_readable_is_an_error(folder: ModelFolder, tmp_path: Path) -> None:
    root = camvid_copy(tmp_path / "one", {"train": 1, "test": 1})
    (root / "test" / "test_000.png").write_bytes(b"")
    (root / "train" / "train_000.png").write_bytes(b"")
    with pytest.raises(DataError, match="no picture could be read"):
        evaluate(folder, opened(folder), f"camvid:{root}", "test")
    with pytest.raises(DataError, match="no picture could be read"):
        calibrate(folder, f"camvid:{root}", "train", "minmax")
    assert not folder.ranges.exists()


def test_wrong_label_is_an_error_and_not_skipped(folder: ModelFolder, data: str) -> None:
    root = Path(data.partition(":")[2])
    cv2.imwrite(str(root / "testannot" / "test_002.png"), np.full((60, 80), 77, np.uint8))
    with pytest.raises(DataError, match="label 77"):
        evaluate(folder, opened(folder), data, "test")


def test_other_number_of_classes_is_refused(tmp_path: Path, data: str) -> None:
    folder = tiny_folder(tmp_path / "five", 5)
    with pytest.raises(DataError, match="camvid has 11 classes"):
        evaluate(folder, opened(folder), data, "test")


def test_other_names_are_told(folder: ModelFolder, data: str, caplog: pytest.LogCaptureFixture) -> None:
    manifest = folder.manifest
    renamed = [manifest.classes[0].model_copy(update={"name": "heaven"}), *manifest.classes[1:]]
    check_classes(manifest.model_copy(update={"classes": renamed}), open_dataset(data, "test"))
    assert "heaven" in caplog.text


def test_default_data_is_the_training_scenes(folder: ModelFolder) -> None:
    with pytest.raises(DataError, match="--data"):
        require_data(folder.manifest, None)
    trained = folder.manifest.model_copy(update={"provenance": Provenance(training_data="streets, 800 procedural scenes")})
    assert default_data(trained) == "streets"
    assert require_data(trained, "camvid:x") == "camvid:x"


def test_frames_to_judge_on(folder: ModelFolder, data: str) -> None:
    own = judging_frames(folder, data)
    assert own is not None
    assert [frame.shape for frame in own()] == [(60, 80, 3)] * 2
    assert judging_frames(folder) is None, "no data of its own: auto draws stand-ins and is less strict"
    assert sample_frames(folder, None, "val", 3)[0].shape == (32, 48, 3)


def test_spread() -> None:
    assert spread(5, None) == [0, 1, 2, 3, 4]
    assert spread(10, 3) == [0, 3, 6]
    assert spread(3, 9) == [0, 1, 2]
    assert spread(0, 4) == []


def test_batched_graphs_calibrate(tmp_path: Path, data: str) -> None:
    single, batched = tiny_folder(tmp_path / "b1", 11), tiny_folder(tmp_path / "b4", 11, batch=4)
    one = calibrate(single, data, "train", "minmax").tensors
    four = calibrate(batched, data, "train", "minmax").tensors
    assert one.keys() == four.keys()
    assert all(np.allclose(one[name], four[name], rtol=1e-4, atol=1e-5) for name in one)


def test_synthetic_frames_are_deterministic_and_varied() -> None:
    first, second = synthetic_frames(40, 50, 3), synthetic_frames(40, 50, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape == (40, 50, 3)
    assert not np.array_equal(first[0], first[1])
    assert synthetic_frames(1, 1, 1)[0].shape == (1, 1, 3)
