"""Graph to engine: through TensorRT-RTX, which builds without a GPU, and through a recording stand-in for what it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.engines.nvidia import builder, caches, layers
from edgeseg.engines.nvidia.messages import Log
from edgeseg.engines.options import BuildOptions, ShapeRange, check_options
from edgeseg.errors import BackendError
from tests.engines import fake_tensorrt
from tests.tiny_model import tiny_graph

RANGE = ShapeRange((1, 3, 16, 16), (1, 3, 32, 48), (2, 3, 64, 96))


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: no builder that works without a GPU")


def request(model: onnx.ModelProto, library: str = "tensorrt_rtx", precision: str = "fp32", **more: Any) -> builder.Request:
    paths = {name: more.pop(name) for name in ("plugins", "timing_cache") if name in more}
    return builder.Request(library, model.SerializeToString(), precision, "image", BuildOptions(**more), **paths)


def run(trt: Any, wanted: builder.Request, told: list[str] | None = None, stop: bool = False) -> tuple[builder.Built, Log]:
    log = Log(trt)
    return builder.build(trt, wanted, log, (told if told is not None else []).append, lambda: stop), log


def fake_config(wanted: builder.Request) -> fake_tensorrt.Config:
    fake_tensorrt.CONFIGS.clear()
    run(fake_tensorrt, wanted)
    return fake_tensorrt.CONFIGS[-1]


def upsampling() -> onnx.ModelProto:
    """The tiny graph with a Resize at its end, which the stand-in's DLA cannot run."""
    model = tiny_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"))
    model.graph.node.append(helper.make_node("Resize", ["logits", "", "scales"], ["full"], "upsample", mode="linear"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("full", TensorProto.FLOAT, [1, 5, 32, 48]))
    return model


# --- building ----------------------------------------------------------------------------------------------------


def test_progress_is_told_in_words(rtx: Any) -> None:
    told: list[str] = []
    built, _ = run(rtx, request(tiny_graph()), told)
    assert len(built.engine) > 1000
    assert "Building engine" in told
    assert any("/" in words for words in told)


def test_cancelled_build_ends(rtx: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(rtx, request(tiny_graph()), stop=True)


@pytest.mark.parametrize("targets", [("sm86",), ("sm89", "sm120"), ("sm75",)])
def test_targets(rtx: Any, targets: tuple[str, ...]) -> None:
    assert run(rtx, request(tiny_graph(), targets=targets))[0].engine


def test_unknown_target_lists_those_there_are(rtx: Any) -> None:
    with pytest.raises(BackendError, match=r"--target sm42; expected some of .*sm120.*sm86"):
        run(rtx, request(tiny_graph(), targets=("sm86", "sm42")))


def test_workspace_that_is_too_small_is_told(rtx: Any) -> None:
    with pytest.raises(BackendError, match="larger --workspace-mb"):
        run(rtx, request(large_convolution(), workspace_mb=1))


def large_convolution() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((256, 256, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["image", "w"], ["y"], "conv", pads=[1] * 4)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256, 256, 256]) for name in ("image", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_refused_node_is_named_with_operator_reason_and_fix(rtx: Any) -> None:
    nodes = [
        helper.make_node("MaxPool", ["image"], ["y", "i"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["y", "i"], ["z"], "unpool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("image", "z")]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    with pytest.raises(BackendError) as caught:
        run(rtx, request(model))
    assert "refuses node 'pool' (MaxPool)" in str(caught.value)
    assert "and 1 more" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parser_errors_of_10_3_have_no_names() -> None:
    error = SimpleNamespace(node=lambda: 7, desc=lambda: "Assertion failed: Non-zero zero point\nis not supported")
    refused = builder.refusal("tensorrt", [error])
    assert str(refused).startswith("tensorrt refuses node number 7: Non-zero zero point is not supported; fix: calibrate")


def test_networks_are_strongly_typed(rtx: Any) -> None:
    flags = builder.network_flags(rtx, BuildOptions())
    network = rtx.Builder(Log(rtx).sink).create_network(flags)
    assert network.get_flag(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert builder.network_flags(SimpleNamespace(NetworkDefinitionCreationFlag=object()), BuildOptions()) == 0


# --- shapes ------------------------------------------------------------------------------------------------------


def test_optimisation_profiles(rtx: Any) -> None:
    dynamic = tiny_graph(dynamic=True)
    assert run(rtx, request(dynamic, shapes=(RANGE,)))[0].engine
    with pytest.raises(BackendError, match=r"free dimensions.*--shapes"):
        run(rtx, request(dynamic))
    with pytest.raises(BackendError, match="fixed shapes"):
        run(rtx, request(tiny_graph(), shapes=(RANGE,)))
    wrong = ShapeRange((1, 4, 16, 16), (1, 4, 16, 16), (1, 4, 16, 16))
    with pytest.raises(BackendError, match="--shapes"):
        run(rtx, request(dynamic, shapes=(wrong,)))
    with pytest.raises(BackendError, match="--shapes"):
        run(rtx, request(dynamic, shapes=(ShapeRange((1, 3), (1, 3), (1, 3)),)))


def test_every_profile_is_added() -> None:
    other = ShapeRange.parse("4x3x64x96")
    config = fake_config(request(tiny_graph(dynamic=True), "tensorrt", shapes=(RANGE, other)))
    assert [profile.shapes["image"] for profile in config.profiles] == [(RANGE.min, RANGE.opt, RANGE.max), (other.min,) * 3]


@pytest.mark.parametrize("text", ["", "1x3", "1x3x4,1x3x4", "1x3x0", "2x3,1x3,2x3", "1x3,1x3x4,1x3", "ax3", "1x3x4,1x3x4,1x3x3"])
def test_shapes_are_read_strictly(text: str) -> None:
    if text == "1x3":
        assert ShapeRange.parse(text).max == (1, 3)
        return
    with pytest.raises(BackendError, match="--shapes"):
        ShapeRange.parse(text)


# --- options -----------------------------------------------------------------------------------------------------


def test_options_reach_the_configuration() -> None:
    library = Path("plugins.so")
    config = fake_config(
        request(
            tiny_graph(), "tensorrt", "fp16", plugins=library, workspace_mb=64, builder_level=5, hardware_compatible=True,
            version_compatible=True, refit=True,
        )
    )  # fmt: skip
    assert config.pools == {"WORKSPACE": 64 << 20}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level is fake_tensorrt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.flags == {"TF32", "VERSION_COMPATIBLE", "REFIT"}
    assert config.plugins_to_serialize == [str(library)]
    assert config.profiling_verbosity is fake_tensorrt.ProfilingVerbosity.DETAILED
    assert str(library) in fake_tensorrt.Registry.loaded


def test_fp32_is_float32() -> None:
    assert fake_config(request(tiny_graph(), "tensorrt", "fp32")).flags == set()


@pytest.mark.parametrize(("option", "enum"), [("hardware_compatible", "HardwareCompatibilityLevel"), ("refit", "BuilderFlag")])
def test_option_that_a_version_lacks_is_told(monkeypatch: pytest.MonkeyPatch, option: str, enum: str) -> None:
    monkeypatch.setattr(fake_tensorrt, enum, SimpleNamespace())
    with pytest.raises(BackendError, match=rf"--{option.replace('_', '-')}: .*fake has no {enum}"):
        run(fake_tensorrt, request(tiny_graph(), "tensorrt", "fp16", **{option: True}))


def test_plugin_library_that_does_not_load_is_named() -> None:
    with pytest.raises(BackendError, match=r"broken.so: cannot be loaded as a plugin library"):
        run(fake_tensorrt, request(tiny_graph(), "tensorrt", plugins=Path("broken.so")))


def test_backends_refuse_options_they_would_ignore() -> None:
    with pytest.raises(BackendError, match="ort has no option --target"):
        check_options("ort", (), BuildOptions(targets=("sm86",)))
    with pytest.raises(BackendError, match="--builder-level 6; expected 0 to 5"):
        check_options("tensorrt", ("builder_level",), BuildOptions(builder_level=6))
    with pytest.raises(BackendError, match="--allow-gpu-fallback without --dla"):
        check_options("tensorrt", ("allow_gpu_fallback",), BuildOptions(allow_gpu_fallback=True))
    check_options("ort", (), BuildOptions())


def test_options_survive_json_and_only_what_matters_is_in_the_key() -> None:
    options = BuildOptions(shapes=(RANGE,), workspace_mb=8, timing_cache="here", targets=("sm86",), timeout_s=5)
    assert BuildOptions.from_json(json.loads(json.dumps(options.given()))) == options
    assert set(options.fields()) == {"option.shapes", "option.workspace_mb", "option.targets"}
    assert BuildOptions().fields() == {}


# --- DLA ---------------------------------------------------------------------------------------------------------


def test_dla_refuses_layers_it_cannot_run_and_names_them() -> None:
    with pytest.raises(BackendError, match=r"1 of 7 layers cannot run there: upsample \(RESIZE\).*--allow-gpu-fallback"):
        run(fake_tensorrt, request(upsampling(), "tensorrt", "fp16", dla_core=0))


def test_dla_with_fallback_reports_every_layer() -> None:
    fake_tensorrt.CONFIGS.clear()
    built, _ = run(fake_tensorrt, request(upsampling(), "tensorrt", "fp16", dla_core=1, allow_gpu_fallback=True))
    config = fake_tensorrt.CONFIGS[-1]
    assert {item["name"]: item["dla"] for item in built.dla}["upsample"] is False
    assert sum(item["dla"] for item in built.dla) == 6
    assert config.DLA_core == 1
    assert config.default_device_type is fake_tensorrt.DeviceType.DLA
    assert {"FP16", "GPU_FALLBACK"} <= config.flags


def test_dla_without_fallback_flag_has_no_fallback() -> None:
    config = fake_config(request(tiny_graph(), "tensorrt", "int8", dla_core=0))
    assert "GPU_FALLBACK" not in config.flags
    assert {"FP16", "INT8"} <= config.flags


def test_dla_that_is_not_there(monkeypatch: pytest.MonkeyPatch, rtx: Any) -> None:
    with pytest.raises(BackendError, match="--dla with fp32"):
        run(fake_tensorrt, request(tiny_graph(), "tensorrt", "fp32", dla_core=0))
    monkeypatch.setattr(fake_tensorrt, "DLA_CORES", 0)
    with pytest.raises(BackendError, match="--dla 0: 0 DLA cores here"):
        run(fake_tensorrt, request(tiny_graph(), "tensorrt", "fp16", dla_core=0))
    with pytest.raises(BackendError, match="--dla 0: 0 DLA cores here"):
        run(rtx, request(tiny_graph(), precision="fp16", dla_core=0))


# --- the timing cache --------------------------------------------------------------------------------------------


def test_timing_cache_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "timing.cache"
    assert fake_config(request(tiny_graph(), "tensorrt", timing_cache=path)).cache.data == b""
    assert caches.read_sealed(path) == b"tactics"
    assert fake_config(request(tiny_graph(), "tensorrt", timing_cache=path)).cache.data == b"tactics"
    assert sorted(item.name for item in path.parent.iterdir()) == ["timing.cache", "timing.lock"]


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 64])
def test_damaged_timing_cache_counts_as_absent(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "timing.cache"
    path.write_bytes(damage)
    assert caches.read_sealed(path) == b""
    assert "damaged" in caplog.text
    assert fake_config(request(tiny_graph(), "tensorrt", timing_cache=path)).cache.data == b""
    assert caches.read_sealed(path) == b"tactics"


def test_failed_build_writes_no_timing_cache(tmp_path: Path) -> None:
    model = tiny_graph()
    model.doc_string = "refuse"
    with pytest.raises(BackendError, match=r"no tactic within the workspace.*--workspace-mb"):
        run(fake_tensorrt, request(model, "tensorrt", timing_cache=tmp_path / "t.cache"))
    assert not (tmp_path / "t.cache").exists()


def test_timing_cache_with_a_real_library(rtx: Any, tmp_path: Path) -> None:
    for _ in range(2):
        run(rtx, request(tiny_graph(), timing_cache=tmp_path / "t.cache"))
    assert len(caches.read_sealed(tmp_path / "t.cache")) > 0


# --- layers ------------------------------------------------------------------------------------------------------


def test_layers_of_a_real_build_name_the_nodes_they_fuse(rtx: Any) -> None:
    _, log = run(rtx, request(tiny_graph()))
    found = layers.from_log(log.layers)
    nodes = {node.name for node in tiny_graph().graph.node}
    named = {name for item in found for name in item["nodes"]}
    assert {"stem", "body", "head"} <= named <= nodes
    head = next(item for item in found if "head" in item["nodes"] and item["type"] == "correlation")
    assert head["outputs"][0]["shape"] == [1, 5, 8, 12]
    assert head["outputs"][0]["dtype"] == "float32"
    assert layers.summary(found)["fused"] >= 1


ONE_LINE = (
    "Layers:\nName: a(b, c), LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,3], Datatype: Half, Format: (Linear) Row, major "
    "}, { Name: y, Dimensions: [], Datatype: Int8, Format: NHWC }], Constants: [], Outputs: [ { Name: z, Dimensions: [-1,4], "
    "Datatype: Half, Format: NHWC }], TacticName: t_0x1, StreamId: 0, Metadata: [ONNX Layer: n1][ONNX Layer: n2]\n"
    "Name: s, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: \n\n"
    "I/O Tensors:\n Name: x, IOMode: Input"
)


def test_layers_from_one_line_text() -> None:
    first, second = layers.from_log(ONE_LINE)
    assert (first["name"], first["type"], first["tactic"], first["nodes"]) == ("a(b, c)", "kgen", "t_0x1", ["n1", "n2"])
    assert [tensor["dtype"] for tensor in first["inputs"]] == ["float16", "int8"]
    assert first["inputs"][0]["format"] == "(Linear) Row, major"
    assert first["outputs"][0]["shape"] == [-1, 4]
    assert second["type"] == "signal"
    assert layers.rows([first, second]) == [("n1 + n2", "kgen", "float16 int8 -> float16", "NHWC", "t_0x1")]
    assert layers.from_log("") == []


def test_layers_from_the_inspector_of_10_x_and_11_x() -> None:
    old = {"Name": "conv", "Dimensions": [1, 8], "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
    new = {"Name": "conv", "Dimensions": [1, 8], "Format": "NHWC", "DataType": "Int8"}
    for tensor in (old, new):
        text = json.dumps({"Layers": [{"Name": "l", "LayerType": "CaskConvolution", "Outputs": [tensor], "TacticValue": "0x2"}]})
        (found,) = layers.from_inspector(text)
        assert (found["outputs"][0]["dtype"], found["tactic"]) == ("int8", "0x2")
        assert "nt8" not in found["outputs"][0]["format"]
    assert layers.from_inspector('{"Layers": ["bare name"]}')[0]["name"] == "bare name"
    assert layers.from_inspector("not json") == []


def test_layers_by_the_inspector_of_an_opened_engine() -> None:
    built, log = run(fake_tensorrt, request(tiny_graph(), "tensorrt"))
    found = layers.describe(fake_tensorrt, built.engine, log)
    assert [item["nodes"] for item in found] == [[node.name] for node in tiny_graph().graph.node]
    assert found[0]["outputs"][0]["dtype"] == "float16"
    with pytest.raises(BackendError, match="cannot be opened again: serialization"):
        layers.describe(fake_tensorrt, b"rubbish", log)
