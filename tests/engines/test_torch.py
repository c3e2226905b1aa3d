"""The torch backend: the network rebuilt from the manifest's architecture, against its own exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from safetensors.torch import save_file

from edgeseg import models
from edgeseg.engines import build_engine, load_engine, load_segmenter
from edgeseg.engines.cache import explain
from edgeseg.engines.keys import engine_fields
from edgeseg.engines.session import get_backend
from edgeseg.errors import EdgesegError
from edgeseg.export.torch_onnx import export_folder
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Architecture
from tests.tiny_model import HEIGHT, WIDTH, frames, tiny_folder

OPTIONS = {"widths": [8, 8, 16], "depths": [1, 1, 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    import torch

    folder = tiny_folder(tmp_path_factory.mktemp("torch") / "tiny")
    folder.update(architecture=Architecture(name="unet", options=OPTIONS))
    torch.manual_seed(0)
    save_file(models.create("unet", num_classes=5, **OPTIONS).state_dict(), folder.weights)
    folder.register("model.safetensors")
    export_folder(folder)
    return folder


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_agrees_with_the_exported_graph(folder: ModelFolder, precision: str, tolerance: float) -> None:
    tensor = np.random.default_rng(0).normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    expected = load_engine(folder, "ort", "fp32", 1).run({"image": tensor})["logits"]
    session = load_engine(folder, "torch", precision, 1)
    found = session.run({"image": tensor})["logits"]
    assert (session.backend, session.precision, session.input_names, session.output_names) == (
        "torch",
        precision,
        ["image"],
        ["logits"],
    )
    assert session.outputs[0].shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    out = np.empty_like(expected)
    session.run_into({"image": tensor}, {"logits": out})
    assert np.array_equal(out, found)
    session.close()
    with pytest.raises(EdgesegError, match="closed"):
        session.run({"image": tensor})


def test_segmenter_labels_agree(folder: ModelFolder) -> None:
    with load_segmenter(folder, "torch", "fp32", 1) as torch_segmenter, load_segmenter(folder, "ort", "fp32", 1) as ort_segmenter:
        for frame in frames(2):
            assert np.mean(torch_segmenter(frame) == ort_segmenter(frame)) > 0.999


def test_without_safetensors_the_graph_has_the_weights(folder: ModelFolder, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder.path, tmp_path / "shipped", ignore=shutil.ignore_patterns("engines", "*.safetensors"))
    shipped = ModelFolder(tmp_path / "shipped")
    shipped.update(files={name: info for name, info in shipped.manifest.files.items() if name != "model.safetensors"})
    tensor = np.random.default_rng(1).normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    results = [load_engine(item, "torch", "fp32", 1).run({"image": tensor})["logits"] for item in (folder, shipped)]
    assert np.array_equal(*results)


def test_changed_weights_rebuild(folder: ModelFolder) -> None:
    build_engine(folder, "torch", "fp32", 1)
    fields = engine_fields(folder, get_backend("torch"), "fp32", 1)
    assert explain(folder, fields)["status"] == "hit"
    answer = explain(folder, {**fields, "weights": "0" * 64})
    assert list(answer["changed"]) == ["weights"]


def test_adopted_graph_has_no_network(tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match="no PyTorch network"):
        build_engine(tiny_folder(tmp_path / "tiny"), "torch", "fp32", 1)
