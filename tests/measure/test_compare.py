"""Outputs and layers of two engines against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeseg.engines.build import prepared_graph
from edgeseg.errors import BackendError, EdgesegError
from edgeseg.folder import ModelFolder
from edgeseg.measure.compare import classes_of, compare, tensor_difference
from edgeseg.measure.layers import expose, layer_errors
from tests.tiny_model import calibrated, frames, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path / "tiny"))


def test_every_pair_once(folder: ModelFolder) -> None:
    kinds = [("ort", "fp32"), ("openvino", "fp32"), ("ort", "int8")]
    found = {(item.a, item.b): item for item in compare(folder, kinds, frames(3), threads=1)}
    assert list(found) == [("ort/fp32", "openvino/fp32"), ("ort/fp32", "ort/int8"), ("openvino/fp32", "ort/int8")]
    near, far = found["ort/fp32", "openvino/fp32"], found["ort/fp32", "ort/int8"]
    assert near.max_abs < 1e-4
    assert near.argmax_agreement == 1.0
    assert far.max_abs > near.max_abs
    assert 0 < far.max_rel < 0.2
    assert far.argmax_agreement > 0.8


def test_too_few_engines_or_frames(folder: ModelFolder) -> None:
    with pytest.raises(EdgesegError, match="at least two engines"):
        compare(folder, [("ort", "fp32")], frames(1), threads=1)
    with pytest.raises(EdgesegError, match="one frame"):
        compare(folder, [("ort", "fp32"), ("openvino", "fp32")], [], threads=1)


def test_tensor_difference() -> None:
    a = np.array([1.0, -4.0, 0.0])
    assert tensor_difference(a, a + np.array([0.0, 1.0, 0.0])) == (1.0, 0.25)
    assert tensor_difference(np.zeros(3), np.zeros(3)) == (0.0, 0.0)
    assert tensor_difference(np.zeros(3), np.ones(3)) == (1.0, float("inf"))
    assert tensor_difference(np.zeros(0), np.zeros(0)) == (0.0, 0.0)
    assert tensor_difference(np.array([np.nan]), np.array([1.0])) == (float("inf"), float("inf"))
    assert tensor_difference(np.array([np.inf]), np.array([np.inf])) == (0.0, 0.0)


def test_classes_of_outputs() -> None:
    scores = np.zeros((1, 2, 1, 2), np.float32)
    scores[0, 1, 0, 1] = 1
    assert classes_of(scores, 0.0).tolist() == [[[0, 1]]]
    assert classes_of(np.array([[[[-1.0, 0.5]]]]), 0.0).tolist() == [[[[False, True]]]]
    labels = np.array([[[3, 4]]])
    assert classes_of(labels, 0.5) is labels


def test_expose_gives_every_float_tensor(folder: ModelFolder) -> None:
    graph = prepared_graph(folder, "fp32", "ort")
    exposed = expose(graph)
    made = {name for node in graph.graph.node for name in node.output}
    assert {value.name for value in exposed.graph.output} == made
    assert len(graph.graph.output) == 1, "the given graph is left alone"
    onnx.checker.check_model(exposed)


def test_layer_errors_int8_grow_with_coarser_ranges(folder: ModelFolder) -> None:
    errors = {item.tensor: item for item in layer_errors(folder, ("ort", "fp32"), ("ort", "int8"), frames(2))}
    assert {"stem_relu", "body_relu", "logits"} <= errors.keys()
    assert all(item.sqnr_db is None or item.sqnr_db > 15 for item in errors.values())
    assert errors["logits"].max_abs > 0


def test_layer_errors_between_backends(folder: ModelFolder) -> None:
    errors = layer_errors(folder, ("ort", "fp32"), ("openvino", "fp32"), frames(1))
    assert errors
    assert all(item.max_rel < 1e-5 for item in errors)


@pytest.mark.parametrize("kind", [("openvino", "bf16"), ("torch", "fp32")])
def test_layers_need_a_graph(folder: ModelFolder, kind: tuple[str, str]) -> None:
    with pytest.raises(BackendError, match="--layers"):
        layer_errors(folder, ("ort", "fp32"), kind, frames(1))
