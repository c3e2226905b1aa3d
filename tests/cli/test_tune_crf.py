"""``edgeseg tune-crf``: it finds parameters that help, and writes nothing when none does."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.cli.app import run
from edgeseg.data.camvid import CLASSES
from edgeseg.folder import GRAPH, ModelFolder
from edgeseg.manifest import InputSpec, Manifest, OutputSpec
from edgeseg.measure import tune_crf as module
from edgeseg.metrics.boundary import BoundaryF1
from edgeseg.metrics.semantic import ConfusionMatrix
from tests.tiny_model import tiny_folder

HEIGHT, WIDTH, STRIDE = 48, 64, 8
OPTIONS = ["--backend", "ort", "--precision", "fp32", "--threads", "1"]


def by_colour(path: Path) -> ModelFolder:
    """A network that knows each class by its grey level, but sees only means over 8x8 pixels: blind to where borders lie."""
    levels = np.linspace(0, 1, len(CLASSES))
    weight = np.stack([8 * level * np.ones((3, 1, 1)) for level in levels]).astype(np.float32)
    bias = (-12 * levels**2).astype(np.float32)  # -(4 / 1) (mean - level)^2 up to what all classes share, over three channels
    nodes = [
        helper.make_node("AveragePool", ["image"], ["mean"], "pool", kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["mean", "weight", "bias"], ["scores"], "head", kernel_shape=[1, 1]),
        helper.make_node("Mul", ["scores", "sure"], ["logits"], "sharpen"),
    ]
    values = {"weight": weight, "bias": bias, "sure": np.float32(8)}
    graph = helper.make_graph(
        nodes,
        "by_colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(CLASSES), HEIGHT // STRIDE, WIDTH // STRIDE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path.mkdir()
    spec = InputSpec(width=WIDTH, height=HEIGHT, mean=(0, 0, 0), std=(1, 1, 1), colour_order="bgr")
    Manifest(name="by-colour", classes=list(CLASSES), input=spec).save(path / "model.json")
    onnx.save(model, str(path / GRAPH))
    folder = ModelFolder(path)
    folder.register(GRAPH)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return by_colour(tmp_path / "model")


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Discs and bars whose grey level is their class, with noise, in CamVid's layout."""
    rng, root = np.random.default_rng(5), tmp_path / "camvid"
    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        lines = []
        for index in range(3):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            for label in (5, 10):
                cv2.circle(labels, (int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))), int(rng.integers(8, 16)), label, -1)
            grey = labels[..., None] / (len(CLASSES) - 1) * 255 + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
            name = f"{split}{index}.png"
            cv2.imwrite(str(root / split / name), np.clip(grey, 0, 255).astype(np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / name), labels)
            lines.append(f"{split}/{name} {split}annot/{name}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return f"camvid:{root}"


@pytest.mark.parametrize("metric", module.METRICS)
def test_it_finds_what_helps_and_the_same_again(
    folder: ModelFolder, data: str, metric: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune-crf", str(folder.path), "--data", data, "--trials", "8", "--metric", metric, "--json", *OPTIONS]
    assert run(arguments) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["kept"] and report["best"] == report["trials"][0]
    assert len(report["trials"]) == 8
    values = [trial[metric] for trial in report["trials"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > report["baseline"][metric] + 0.02
    assert folder.manifest.crf is not None and folder.manifest.crf.model_dump() == report["best"]["crf"]
    folder.update(crf=None)
    assert run(arguments) == 0
    assert json.loads(capfd.readouterr().out) == report


def test_the_written_parameters_give_the_told_figures(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    from edgeseg.data import open_dataset
    from edgeseg.engines import load_predictor

    assert run(["tune-crf", str(folder.path), "--data", data, "--trials", "4", "--json", *OPTIONS]) == 0
    report = json.loads(capfd.readouterr().out)
    areas, lines = ConfusionMatrix(len(CLASSES)), BoundaryF1(len(CLASSES))
    with load_predictor(folder, "ort", "fp32", 1) as predictor:
        for sample in open_dataset(data, "val"):
            found = predictor(sample.image)
            areas.update(found, sample.labels)
            lines.update(found, sample.labels)
    assert report["best"]["mean_iou"] == pytest.approx(areas.mean_iou)
    assert report["best"]["boundary_f1"] == pytest.approx(lines.summary()["boundary_f1"])


def test_nothing_is_written_when_nothing_helps(
    folder: ModelFolder, data: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_search", lambda *_: iter([module.CrfSpec(w1=0, w2=0)]))
    before = (folder.path / "model.json").read_bytes()
    assert run(["tune-crf", str(folder.path), "--data", data, "--trials", "1", *OPTIONS]) == 0
    out, told = capfd.readouterr()
    assert "no CRF" in out and "sigma_alpha" in out
    assert "model.json is as it was" in told
    assert (folder.path / "model.json").read_bytes() == before


def test_unreadable_pictures_are_skipped_and_counted(folder: ModelFolder, data: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(data.removeprefix("camvid:"), "val", "val1.png").write_bytes(b"no picture")
    assert run(["tune-crf", str(folder.path), "--data", data, "--trials", "2", "--json", *OPTIONS]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["images"], report["skipped"]) == (2, 1)


def test_errors_are_one_line(folder: ModelFolder, data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tiny_folder(tmp_path / "other", 5)
    labels = by_colour(tmp_path / "labels")
    labels.update(output=OutputSpec(name="logits", kind="labels"))
    for arguments, told in (
        ([str(folder.path)], "--data"),
        ([str(folder.path), "--data", data, "--split", "test"], "test split"),
        ([str(folder.path), "--data", data, "--metric", "beauty"], "beauty"),
        ([str(other.path), "--data", data], "11 classes"),
        ([str(labels.path), "--data", data], "scores of pixels"),
    ):
        assert run(["tune-crf", *arguments, *OPTIONS]) == 1
        out, error = capfd.readouterr()
        assert out == ""
        assert told in error and "Traceback" not in error
    assert folder.manifest.crf is None


def test_the_second_stage_searches_around_the_best() -> None:
    rng = np.random.default_rng(0)
    tried = [module.Trial(None, 0.5, 0.5)]
    specs = []
    for spec in module._search(tried, "mean_iou", None, 200.0, 30, rng):
        specs.append(spec)
        # A hill in the logarithm of w1, whose top lies at 6.
        tried.append(module.Trial(spec, -abs(np.log(spec.w1 / 6)), 0.0))
    assert len(specs) == 30
    assert specs[0] == module.CrfSpec(iterations=module.ITERATIONS)
    low, high = module.RANGES["w1"]
    assert all(low * 0.999 <= spec.w1 <= high * 1.001 for spec in specs[:20])
    fine, best = specs[20:], max(tried[1:21], key=lambda trial: trial.mean_iou).crf
    assert best is not None
    assert all(0.1 < spec.sigma_beta / best.sigma_beta < 10 for spec in fine)
    assert abs(np.log(tried[-1].crf.w1 / 6)) < 0.5  # type: ignore[union-attr]
