"""Observing: the right tensors, exact extremes, constant memory, and the errors of empty, constant and NaN data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration import CalibrationError, Ranges, collect, graph_sha256, observe, prepare, quantize
from calibration.histogram import BINS
from calibration.placement import observed
from tests.calibration import nets


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return prepare(nets.unet(8, (32, 32)))


@pytest.fixture(scope="module")
def found(net: onnx.ModelProto) -> Ranges:
    return collect(net, nets.batches(net, 3), "minmax")


def test_minmax_is_exact(net: onnx.ModelProto, found: Ranges) -> None:
    watching = onnx.ModelProto()
    watching.CopyFrom(net)
    names = [name for name in observed(net) if name != "input"]
    del watching.graph.output[:]
    watching.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(watching.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(names, batch) for batch in nets.batches(net, 3)]
    for place, name in enumerate(names):
        low, high = min(r[place].min() for r in runs), max(r[place].max() for r in runs)
        assert found.tensors[name] == pytest.approx((low, high), rel=1e-5, abs=1e-6)
    assert found.images == 3
    assert found.graph_sha256 == graph_sha256(net)
    assert "only 3 images" in found.warnings[0]


def test_only_what_can_be_quantised_is_watched(net: onnx.ModelProto) -> None:
    watched = set(observed(net))
    kinds = {node.output[0]: node.op_type for node in net.graph.node}
    before_relu = {node.input[0] for node in net.graph.node if node.op_type == "Relu" and kinds[node.input[0]] == "Conv"}
    assert before_relu
    assert not before_relu & watched
    assert net.graph.output[0].name not in watched


def test_state_does_not_grow_with_images(net: onnx.ModelProto) -> None:
    few, many = observe(net, nets.batches(net, 2)), observe(net, iter(nets.batches(net, 12)))
    assert few.tensors.keys() == many.tensors.keys()
    assert {h.counts.nbytes for h in [*few.tensors.values(), *many.tensors.values()]} == {8 * BINS}
    for name in few.tensors:
        assert many.tensors[name].total == 6 * few.tensors[name].total


def test_batches_are_read_one_at_a_time(net: onnx.ModelProto) -> None:
    seen: list[int] = []
    given: list[int] = []

    def stream() -> Iterator[dict[str, np.ndarray]]:
        for number, batch in enumerate(nets.batches(net, 4)):
            assert seen == list(range(1, number + 1)), "the batch before was not finished"
            given.append(number)
            yield batch

    collect(net, stream(), "minmax", progress=seen.append)
    assert (seen, given) == ([1, 2, 3, 4], [0, 1, 2, 3])


def test_several_images_a_batch_count() -> None:
    net = prepare(nets.unet(8, (32, 32), batch="n"))
    pictures = [b["input"] for b in nets.batches(net, 4)]
    apart = collect(net, [{"input": p} for p in pictures], "minmax")
    together = collect(net, [{"input": np.concatenate(pictures)}], "minmax")
    assert together.images == 4
    for name, pair in apart.tensors.items():
        assert together.tensors[name] == pytest.approx(pair, rel=1e-4, abs=1e-5)


def test_no_images_is_an_error(net: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no images"):
        collect(net, [], "minmax")


def test_nan_names_the_node(net: onnx.ModelProto) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(net)
    conv = next(node for node in broken.graph.node if node.op_type == "Conv")
    tensor = next(t for t in broken.graph.initializer if t.name == conv.input[2])
    tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.inf, np.float32), tensor.name))
    with pytest.raises(CalibrationError, match=r"of node '.*' \(.*\) holds a value that is"):
        collect(broken, nets.batches(net, 1), "minmax")
    batch = nets.batches(net, 1)[0]
    batch["input"][0, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match="tensor 'input' of the graph's input holds a value that is NaN"):
        collect(net, [batch], "entropy")


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("value", [0.0, 3.0, -2e-30])
def test_constant_activations_give_a_valid_scale(net: onnx.ModelProto, method: str, value: float) -> None:
    batch = {"input": np.full((1, 3, 32, 32), value, np.float32)}
    ranges = collect(net, [batch], method)
    for profile in ("x86", "openvino", "arm", "tensorrt"):
        quantised = quantize(net, ranges, profile)
        scales = [t for t in quantised.graph.initializer if t.name.endswith("_scale")]
        for tensor in scales:
            values = numpy_helper.to_array(tensor)
            assert np.isfinite(values).all()
            assert (values > 0).all()
        out = onnxruntime.InferenceSession(quantised.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, batch)[0]
        assert np.isfinite(out).all()


def test_wrong_inputs_are_told(net: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match=r"inputs \['picture'\].*\['input'\]"):
        collect(net, [{"picture": np.zeros((1, 3, 32, 32), np.float32)}], "minmax")
    with pytest.raises(CalibrationError, match="does not run"):
        collect(net, [{"input": np.zeros((1, 3, 16, 32), np.float32)}], "minmax")


def test_ranges_survive_json(found: Ranges, tmp_path: Path) -> None:
    found.float_nodes.append("Conv_0")
    path = tmp_path / "ranges.json"
    found.save(path)
    assert Ranges.load(path) == found
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]
    found.float_nodes.clear()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"extra": 1}, "extra: unknown key"),
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "format 'other'"),
        ({"images": "3"}, "images: str"),
        ({"images": True}, "images: bool"),
        ({"tensors": {"x": [1, 0]}}, "tensors\\['x'\\]"),
        ({"tensors": {"x": [0, float("inf")]}}, "tensors\\['x'\\]"),
        ({"tensors": {"x": [0]}}, "tensors\\['x'\\]"),
        ({"float_nodes": [1]}, "float_nodes"),
    ],
)
def test_ranges_are_read_strictly(found: Ranges, tmp_path: Path, change: dict[str, object], match: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(found.to_json() | change))
    with pytest.raises(CalibrationError, match=match):
        Ranges.load(path)


def test_unreadable_ranges_are_told(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.json"):
        Ranges.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": ')
    with pytest.raises(CalibrationError, match="not JSON"):
        Ranges.load(tmp_path / "half.json")


def test_ranges_of_another_model_are_refused(found: Ranges) -> None:
    with pytest.raises(CalibrationError, match="ranges of another model"):
        quantize(prepare(nets.unet(8, (32, 32), seed=5)), found)
