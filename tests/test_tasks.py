"""Every task, whole: trained a little, exported, calibrated, run on engines, and measured there by its own figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
import torch

from edgeseg.data import open_dataset, rooms
from edgeseg.engines import load_predictor
from edgeseg.export.torch_onnx import export_folder
from edgeseg.folder import ModelFolder
from edgeseg.measure.calibrate import calibrate
from edgeseg.measure.evaluate import evaluate
from edgeseg.measure.predict import predict_file
from edgeseg.metrics import FIGURES
from edgeseg.metrics.score import Score
from edgeseg.models.weights import load_network
from edgeseg.training.config import TrainConfig
from edgeseg.training.loop import train
from edgeseg.training.validate import NetworkPredictor

DETECTOR: dict[str, Any] = {
    "backbone": "resnet18", "fpn_channels": 16, "box_channels": 32, "mask_channels": 16, "anchor_sizes": [8, 16, 32, 48, 64],
    "pre_nms": 40, "post_nms": 40, "train_pre_nms": 60, "train_post_nms": 60, "rpn_samples": 32, "roi_samples": 16,
    "candidates": 60, "detections": 12, "canonical_size": 56,
}  # fmt: skip
QUERIES: dict[str, Any] = {
    "backbone": "resnet18", "backbone_options": {"width": 8}, "queries": 8, "dim": 16, "mask_dim": 16, "layers": 2, "heads": 2,
    "hidden": 32,
}  # fmt: skip
# name, architecture, its options, data, task
CASES = [
    ("instance", "mask_rcnn", DETECTOR, "rooms:96x64", "instance"),
    ("detection", "faster_rcnn", DETECTOR, "rooms:96x64", "detection"),
    ("keypoint", "keypoint_rcnn", {**DETECTOR, "keypoint_channels": 16}, "rooms:96x64,people", "keypoint"),
    ("panoptic", "panoptic_fpn", {**DETECTOR, "semantic_channels": 16}, "rooms:96x64", "panoptic"),
    ("queries", "maskformer", {**QUERIES, "task": "panoptic"}, "rooms:96x64", "panoptic"),
    ("depth", "rgbd_fcn", {"fusion": "late", "width": 0.125, "fc_channels": 16}, "rooms:64x48,rgb-hha", "semantic"),
    ("spaces", "joint_fcn", {"width": 0.125, "fc_channels": 16}, "rooms:64x48", "semantic"),
]


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_SPLIT_SEEDS", {"train": (0, 6), "val": (100_000, 3), "test": (200_000, 4)})


def trained(directory: Path, arch: str, options: dict[str, Any], data: str, **more: Any) -> ModelFolder:
    torch.set_num_threads(1)
    size = tuple(int(side) for side in data.partition(":")[2].split(",")[0].split("x"))
    settings = {"scale": (0.9, 1.1), "epochs": 2, "batch": 2, "lr": 1e-3, "ema": 0.0, "bf16": False, "workers": 0, "eval_every": 2}
    config = TrainConfig(arch=arch, data=data, options=options, size=size, **{**settings, **more})  # type: ignore[arg-type]
    return train(config, directory)


@pytest.mark.parametrize(("name", "arch", "options", "data", "task"), CASES, ids=[case[0] for case in CASES])
def test_a_task_from_training_to_its_figure_on_engines(
    name: str, arch: str, options: dict[str, Any], data: str, task: str, tmp_path: Path
) -> None:
    folder = trained(tmp_path / name, arch, options, data)
    manifest = export_folder(folder)
    assert manifest.task == task
    assert manifest.parity is not None and manifest.parity.argmax_agreement > 0.999
    calibrate(folder, data, "train", "minmax")
    figures = {}
    for backend, precision in (("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32"), ("openvino", "int8")):
        pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
        with load_predictor(folder, backend, precision, 1) as predictor:
            result = evaluate(folder, predictor, data, "test")
        assert result.headline == FIGURES[task][0]
        assert result.images == 4
        assert np.isfinite(result.value)
        assert set(result.per_class) == set(manifest.class_names)
        figures[backend, precision] = result.value
    assert figures["openvino", "fp32"] == pytest.approx(figures["ort", "fp32"], abs=0.02)
    assert by_pytorch(folder, data) == pytest.approx(figures["ort", "fp32"], abs=0.02), "the engine measures what PyTorch does"
    assert len([item for item in folder.manifest.measurements if item.what == "eval"]) == 4


def by_pytorch(folder: ModelFolder, data: str) -> float:
    """The figure of the PyTorch network through the same decoding."""
    manifest = folder.manifest
    predictor = NetworkPredictor(load_network(folder), manifest, torch.device("cpu"), bf16=False)
    score, dataset = Score(manifest), open_dataset(data, "test")
    for index in range(len(dataset)):
        sample = dataset[index]
        score.update(predictor(sample.image), sample)
    return score.summary()[score.headline]


@pytest.mark.parametrize("name", ["instance", "panoptic"])
def test_predictions_are_written_for_other_tools(name: str, tmp_path: Path) -> None:
    import cv2

    _, arch, options, data, _ = next(case for case in CASES if case[0] == name)
    folder = trained(tmp_path / "model", arch, options, data, epochs=1, eval_every=1)
    export_folder(folder)
    picture = tmp_path / "room.png"
    cv2.imwrite(str(picture), open_dataset(data, "test")[0].image)
    with load_predictor(folder, "ort", "fp32", 1) as predictor:
        written = predict_file(predictor, picture, tmp_path, draw=True)
    names = {"instance": {"room.json", "room_overlay.jpg"}, "panoptic": {"room.png", "room.json", "room_overlay.jpg"}}[name]
    assert {path.name for path in written} == names
    assert all(path.stat().st_size for path in written)


def test_letterboxed_frames_come_back_at_their_own_size(tmp_path: Path) -> None:
    folder = trained(tmp_path / "model", "mask_rcnn", DETECTOR, "rooms:96x64", resize="letterbox", epochs=1, eval_every=1)
    assert folder.manifest.input.resize == "letterbox"
    export_folder(folder)
    frame = open_dataset("rooms:60x120", "test")[0].image
    with load_predictor(folder, "ort", "fp32", 1) as predictor:
        found = predictor(frame)
    assert found.masks.shape[1:] == (120, 60)  # type: ignore[union-attr]
    assert (found.boxes[:, 2] <= 60).all() and (found.boxes[:, 3] <= 120).all()  # type: ignore[union-attr]


def test_data_without_the_truth_of_the_task_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from edgeseg.errors import EdgesegError
    from tests.training.scenes import write_scenes

    data = f"folder:{write_scenes(tmp_path / 'scenes', {'train': 4, 'val': 2})}"
    with pytest.raises(EdgesegError, match="truth for semantic; expected for instance"):
        train(TrainConfig(arch="mask_rcnn", data=data, options={**DETECTOR, "things": [0, 1, 2]}), tmp_path / "model")
    assert not (tmp_path / "model").exists()
