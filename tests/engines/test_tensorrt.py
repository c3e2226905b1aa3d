"""The ``tensorrt`` backend through the cache and the session, over a stand-in for the library where there is none."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeseg.cli.app import run
from edgeseg.engines import cache, load_segmenter
from edgeseg.engines.build import build_named, load_named
from edgeseg.engines.keys import engine_fields
from edgeseg.engines.lowering import to_plugins
from edgeseg.engines.nvidia import backend, device
from edgeseg.engines.nvidia.described import describe_engine
from edgeseg.engines.options import BuildOptions
from edgeseg.engines.session import BACKENDS, get_backend, installed
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from edgeseg.ops import functions
from tests.engines import fake_tensorrt
from tests.engines.fake_cuda import FakeCuda
from tests.engines.graphs import segnet
from tests.tiny_model import HEIGHT, WIDTH, calibrated, frames, tiny_folder

ORIN = device.Gpu("Orin", "sm87", "R36, CUDA 12.6", 8192)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path_factory.mktemp("tensorrt") / "tiny"))


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``edgeseg.engines.tensorrt`` over the stand-in, on a machine that says it has a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.delitem(sys.modules, BACKENDS["tensorrt"], raising=False)
    module = importlib.import_module(BACKENDS["tensorrt"])
    for place in (module, backend):
        monkeypatch.setattr(place, "why_no_gpu", lambda: "")
    monkeypatch.setattr(module, "gpu", lambda: ORIN)
    monkeypatch.setattr(backend, "Cuda", FakeCuda)
    yield module
    sys.modules.pop(BACKENDS["tensorrt"], None)


# --- absent ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed here")
@pytest.mark.parametrize("command", ["build", "bench", "eval"])
def test_without_the_library_every_command_says_how_to_get_it(
    folder: ModelFolder, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    more = ["--data", "streets"] if command == "eval" else []
    assert run([command, str(folder.path), "--backend", "tensorrt", *more]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("error: backend 'tensorrt' is not installed")
    assert "apt install python3-libnvinfer" in line
    assert "pip install 'edgeseg[tensorrt]'" in line


def test_without_a_gpu_it_says_so(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tensorrt" in installed()
    monkeypatch.setattr(adapter, "why_no_gpu", lambda: "no NVIDIA driver on this machine")
    with pytest.raises(BackendError, match="backend 'tensorrt' cannot be used: no NVIDIA driver on this machine"):
        get_backend("tensorrt")
    assert "tensorrt" not in installed()


def test_a_runtime_without_a_builder_says_so(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fake_tensorrt, "Builder")
    with pytest.raises(BackendError, match="without its builder"):
        get_backend("tensorrt")


# --- the key -----------------------------------------------------------------------------------------------------


def test_key_covers_gpu_driver_plugins_and_options(adapter: Any, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = engine_fields(folder, adapter, "int8", 4)
    assert fields["device.sm"] == "sm87"
    assert fields["device.gpu"] == "Orin"
    assert fields["device.driver"] == "R36, CUDA 12.6"
    assert fields["profile"] == "tensorrt"
    assert fields["threads"] == 1
    assert "device.cpu" not in fields
    keys = {cache.engine_key(fields)}
    for options in (
        BuildOptions(workspace_mb=64),
        BuildOptions(refit=True),
        BuildOptions(builder_level=1),
        BuildOptions(dla_core=0),
    ):
        keys.add(cache.engine_key(engine_fields(folder, adapter, "int8", 4, options)))
    monkeypatch.setattr(adapter, "gpu", lambda: device.Gpu("Thor", "sm110", "R38, CUDA 13.0", 8192))
    keys.add(cache.engine_key(engine_fields(folder, adapter, "int8", 4)))
    monkeypatch.setattr(adapter, "_plugins_sha256", lambda: "0" * 64)
    keys.add(cache.engine_key(engine_fields(folder, adapter, "int8", 4)))
    assert len(keys) == 7
    assert cache.engine_key(engine_fields(folder, adapter, "int8", 4, BuildOptions(timing_cache="x"))) != ""


def test_changed_driver_is_explained(adapter: Any, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    build_named(folder, "tensorrt", "fp32")
    monkeypatch.setattr(adapter, "gpu", lambda: device.Gpu("Orin", "sm87", "R36, CUDA 13.0", 8192))
    answer = cache.explain(folder, engine_fields(folder, adapter, "fp32", 1))
    assert answer["status"] == "stale"
    assert answer["reason"] == "device.driver was R36, CUDA 12.6, is R36, CUDA 13.0"


# --- build, load, run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_build_load_and_run(adapter: Any, folder: ModelFolder, precision: str) -> None:
    told: list[str] = []
    build_named(folder, "tensorrt", precision, progress=told.append, force=True)
    session = load_named(folder, "tensorrt", precision)
    tensor = np.random.default_rng(0).normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    plain = onnxruntime.InferenceSession(str(folder.graph), providers=["CPUExecutionProvider"]).run(None, {"image": tensor})[0]
    logits = session.run({"image": tensor})["logits"]
    assert (session.backend, session.precision, logits.dtype) == ("tensorrt", precision, np.float32)
    assert np.abs(logits - plain).max() <= {"fp32": 1e-5, "fp16": 0.01, "int8": 0.15}[precision] * np.abs(plain).max()
    assert any("Building" in words for words in told)
    session.close()


def test_graph_has_the_types_of_the_precision(adapter: Any, folder: ModelFolder) -> None:
    for precision, types in [("fp32", {1}), ("fp16", {10}), ("int8", {10})]:
        engine = build_named(folder, "tensorrt", precision)
        plan = json.loads((engine.directory / "engine.plan").read_bytes())
        model = onnx.load_from_string(bytes.fromhex(plan["model"]))
        weights = {item.data_type for item in model.graph.initializer if len(item.dims) == 4}
        assert weights <= ({3} if precision == "int8" else types), precision
        assert {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]} == {1}
        operators = {node.op_type for node in model.graph.node}
        assert ("QuantizeLinear" in operators) == (precision == "int8")


def unpooling_graph() -> onnx.ModelProto:
    """(1, 3, 32, 48) -> pooled with indices, unpooled again."""
    nodes = [
        helper.make_node("MaxPool", ["image"], ["pooled", "indices"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["pooled", "indices"], ["logits"], "unpool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "unpooling", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_operators_without_an_equal_in_tensorrt_become_plugins(
    adapter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    made = tiny_folder(tmp_path / "tiny", 3)
    onnx.save(unpooling_graph(), str(made.graph))
    made.register(made.graph.name)
    monkeypatch.setenv("EDGESEG_PLUGINS", str(tmp_path / "nowhere"))
    with pytest.raises(BackendError, match=r"no TensorRT plugin library there; .*edgeseg plugins build"):
        build_named(made, "tensorrt", precision)
    library = tmp_path / "libedgeseg_trt.so"
    library.write_bytes(b"stands in for the library")
    monkeypatch.setattr(backend, "plugin_path", lambda: library)
    engine = build_named(made, "tensorrt", precision)
    plan = json.loads((engine.directory / "engine.plan").read_bytes())
    nodes = {node.op_type: node for node in onnx.load_from_string(bytes.fromhex(plan["model"])).graph.node}
    for name in ("EdgesegMaxPoolArgmax", "EdgesegMaxUnpool"):
        said = functions.attributes(nodes[name])
        assert (said["plugin_version"], said["plugin_namespace"]) == ("1", "edgeseg")
    assert "MaxUnpool" not in nodes
    assert json.loads((engine.directory / "io.json").read_bytes())["plugins"] is True


def test_timing_cache_lies_beside_the_engines_and_goes_with_them(adapter: Any, folder: ModelFolder, tmp_path: Path) -> None:
    build_named(folder, "tensorrt", "fp32", force=True)
    kept = folder.engines / ".timing-tests.engines.fake_tensorrt.cache"
    assert kept.is_file()
    elsewhere = tmp_path / "tactics.bin"
    build_named(folder, "tensorrt", "fp32", force=True, options=BuildOptions(timing_cache=str(elsewhere)))
    assert elsewhere.is_file()
    cache.clear(folder)
    assert not list(folder.engines.glob(".timing*"))


def test_layers_are_described_as_they_were_built(adapter: Any, folder: ModelFolder) -> None:
    options = BuildOptions(dla_core=0, allow_gpu_fallback=True)
    key = build_named(folder, "tensorrt", "fp16", options=options).info["key"]
    found = describe_engine(folder, key)
    assert "head" in {row[0] for row in found["rows"]}
    assert found["summary"]["dtypes"] == {"float16": len(found["layers"])}
    assert all(item["dla"] for item in found["dla"])


def test_the_newest_engine_built_with_options_is_the_one_that_is_opened(adapter: Any, folder: ModelFolder) -> None:
    cache.clear(folder)
    for options in (BuildOptions(builder_level=1), BuildOptions(refit=True)):
        made = build_named(folder, "tensorrt", "fp32", options=options)
    assert build_named(folder, "tensorrt", "fp32").directory == made.directory
    assert len(cache.engines(folder)) == 2
    assert build_named(folder, "tensorrt", "fp32", options=BuildOptions(builder_level=2)).directory != made.directory
    plain = build_named(folder, "tensorrt", "fp32", force=True)
    assert not [name for name in plain.info["fields"] if name.startswith("option.")]
    assert build_named(folder, "tensorrt", "fp32").directory == plain.directory


def test_damaged_engine_is_built_again(adapter: Any, folder: ModelFolder) -> None:
    engine = build_named(folder, "tensorrt", "fp32")
    plan = engine.directory / "engine.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(bytes(data))
    load_named(folder, "tensorrt", "fp32").close()
    assert cache.verify(build_named(folder, "tensorrt", "fp32")) == ""


def test_frames_go_through_the_segmenter(adapter: Any, folder: ModelFolder) -> None:
    with load_segmenter(folder, "tensorrt", "fp32", 1) as ours, load_segmenter(folder, "ort", "fp32", 1) as plain:
        for frame in frames(3):
            assert np.mean(ours(frame) == plain(frame)) > 0.999


def test_engine_that_is_not_one_is_told(adapter: Any, folder: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"not an engine")
    (tmp_path / "io.json").write_text('{"dtypes": {}, "plugins": false}')
    with pytest.raises(BackendError, match="cannot open the engine: serialization"):
        adapter.load(tmp_path, "fp32", 1)


def test_failed_build_leaves_nothing(adapter: Any, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear(folder)
    with pytest.raises(BackendError, match="--dla 5: 2 DLA cores here"):
        build_named(folder, "tensorrt", "fp16", options=BuildOptions(dla_core=5))
    assert [path.name for path in folder.engines.iterdir()] == [".lock"]


def test_labels_of_a_plugin_are_int8_to_the_parser_and_uint8_to_the_session() -> None:
    model = to_plugins(segnet(labels=True))
    named = backend.named_as_plugins(model)
    assert {node.op_type for node in named.graph.node if node.domain == "edgeseg"} == {
        "EdgesegMaxPoolArgmax",
        "EdgesegMaxUnpool",
        "EdgesegUpsampleArgmax",
    }
    assert [value.type.tensor_type.elem_type for value in named.graph.output] == [TensorProto.INT8]
    assert all(value.type.tensor_type.elem_type != TensorProto.UINT8 for value in named.graph.value_info)
    assert backend._element_types(model)[model.graph.output[0].name] == "uint8"
