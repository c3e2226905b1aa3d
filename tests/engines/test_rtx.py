"""TensorRT-RTX: real engines of every shipped model and of each family, built without a GPU; what is refused, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.cli.app import run
from edgeseg.data.camvid import CLASSES
from edgeseg.engines import build_engine, cache, load_engine
from edgeseg.engines.build import build_named, load_named, prepared_graph
from edgeseg.engines.keys import engine_fields, target_profile
from edgeseg.engines.nvidia import device
from edgeseg.engines.nvidia.described import describe_engine
from edgeseg.engines.nvidia.rules import check_for_rtx, refusals
from edgeseg.engines.options import BuildOptions, ShapeRange
from edgeseg.engines.session import get_backend, installed
from edgeseg.errors import BackendError
from edgeseg.folder import GRAPH, ModelFolder, open_folder, shipped_models
from edgeseg.manifest import InputSpec, Manifest
from tests.tiny_model import calibrated, tiny_folder

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (pip install 'edgeseg[rtx]')")

TARGETS = ("sm86", "sm89", "sm120")
NO_GPU = device.gpu() is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path_factory.mktemp("rtx") / "tiny"))


def outputs_of(folder: ModelFolder, precision: str) -> dict[str, int]:
    dtypes: dict[str, int] = describe_engine(folder, f"rtx-{precision}")["summary"]["dtypes"]
    return dtypes


# --- every model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_are_built(name: str, precision: str, target: str) -> None:
    shipped = open_folder(name)
    engine = build_named(shipped, "rtx", precision, options=BuildOptions(targets=(target,)))
    assert engine.bytes > 100_000
    assert engine.info["fields"]["option.targets"] == [target]
    dtypes = outputs_of(shipped, precision)
    # What the builder says of its own layers: the precision of the graph is that of the engine.
    assert dtypes.get("float16", 0) > 0
    assert (dtypes.get("int8", 0) > 0) == (precision == "int8")


FAMILIES: dict[str, dict[str, object]] = {
    "segnet": {},
    "fcn8s": {"fc_channels": 32},
    "unet": {"widths": (8, 16, 32)},
    "deeplab_v3_plus": {"backbone": "mobilenet_v2", "width": 32, "low_width": 16},
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "segnet" else name for name in FAMILIES]


@pytest.fixture(scope="module", params=SLOW)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    torch = pytest.importorskip("torch", reason="torch is not installed: no families to export")
    from edgeseg import models
    from edgeseg.export.torch_onnx import to_onnx

    torch.manual_seed(0)
    spec = InputSpec(width=96, height=64, mean=(0.4, 0.45, 0.5), std=(0.25, 0.2, 0.3), colour_order="rgb")
    network = models.create(request.param, len(CLASSES), **FAMILIES[request.param]).eval()
    path = tmp_path_factory.mktemp("families") / request.param
    path.mkdir()
    Manifest(name=request.param, classes=list(CLASSES), input=spec).save(path / "model.json")
    onnx.save(to_onnx(network, spec.shape, spec.name, "logits", False), str(path / GRAPH))
    made = ModelFolder(path)
    made.register(GRAPH)
    return calibrated(made, count=2)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_each_family_is_built_for_all_targets_at_once(family: ModelFolder, precision: str) -> None:
    engine = build_named(family, "rtx", precision, options=BuildOptions(targets=TARGETS))
    assert engine.bytes > 10_000
    dtypes = outputs_of(family, precision)
    assert dtypes.get("float16", 0) > 0
    assert (dtypes.get("int8", 0) > 0) == (precision == "int8")


# --- the cache ---------------------------------------------------------------------------------------------------


def test_an_engine_is_for_its_targets_wherever_it_was_built(folder: ModelFolder) -> None:
    adapter = get_backend("rtx")
    fields = engine_fields(folder, adapter, "fp16", 1, BuildOptions(targets=("sm89",)))
    assert not [name for name in fields if name.startswith("device.")]
    assert fields == engine_fields(folder, adapter, "fp16", 7, BuildOptions(targets=("sm89",)))
    assert fields["option.targets"] == ["sm89"]
    assert target_profile("rtx") == target_profile("tensorrt") == "tensorrt"
    other = engine_fields(folder, adapter, "fp16", 1, BuildOptions(targets=("sm86",)))
    assert cache.engine_key(fields) != cache.engine_key(other)


def test_second_build_is_found_in_the_cache(folder: ModelFolder) -> None:
    options = BuildOptions(targets=("sm89",))
    first = build_named(folder, "rtx", "int8", options=options)
    assert build_named(folder, "rtx", "int8", options=options).info == first.info
    assert build_named(folder, "rtx", "int8", options=options, force=True).info["created"] >= first.info["created"]
    assert sorted(first.info["files"]) == ["engine.plan", "io.json", "layers.json"]


def test_damaged_engine_is_built_again(folder: ModelFolder) -> None:
    engine = build_named(folder, "rtx", "fp32")
    plan = engine.directory / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    again = build_named(folder, "rtx", "fp32")
    assert cache.verify(again) == ""


def test_an_engine_of_the_gpus_target_stands_in(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = get_backend("rtx")
    built = engine_fields(folder, adapter, "fp16", 1, BuildOptions(targets=("sm86", "sm89")))
    wanted = engine_fields(folder, adapter, "fp16", 1)
    built = json.loads(json.dumps(built))
    for sm, serves in [("sm89", True), ("sm120", False)]:
        monkeypatch.setattr(adapter, "gpu", lambda sm=sm: device.Gpu("RTX", sm, "580", 8192))
        assert adapter.serves(built, wanted) is serves
        assert not adapter.serves({**built, "graph": "other"}, wanted)
    monkeypatch.setattr(adapter, "gpu", lambda: None)
    assert not adapter.serves(built, wanted)


def test_dynamic_models_with_a_range_of_shapes(tmp_path: Path) -> None:
    dynamic = tiny_folder(tmp_path / "dynamic", dynamic=True)
    shapes = (ShapeRange.parse("1x3x32x48,1x3x32x48,2x3x64x96"),)
    engine = build_named(dynamic, "rtx", "fp16", options=BuildOptions(shapes=shapes))
    layers = json.loads((engine.directory / "layers.json").read_bytes())["layers"]
    assert any(-1 in tensor["shape"] for item in layers for tensor in item["outputs"])
    assert engine.directory != build_named(dynamic, "rtx", "fp16").directory


# --- without a GPU -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU here")
def test_without_a_gpu_auto_leaves_it_out_and_loading_says_why(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    assert "rtx" not in installed()
    before = {path.name for path in folder.engines.glob("rtx-*")}
    for opened in (load_engine, load_named):
        with pytest.raises(BackendError, match=r"rtx engines .* not run: no NVIDIA .*copy the model folder"):
            opened(folder, "rtx", "fp16")
    assert {path.name for path in folder.engines.glob("rtx-*")} == before, "nothing is built in vain"
    assert build_engine(folder, "auto", "int8").backend != "rtx"
    with pytest.raises(BackendError, match=r"built here but not measured.*--precision fp16"):
        build_engine(folder, "rtx", "auto")
    assert run(["bench", str(folder.path), "--backend", "rtx", "--precision", "fp16"]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert [line for line in error.splitlines() if line.startswith("error: rtx engines can be built here but not run: no NVIDIA")]
    assert "Traceback" not in error


def test_command_line_builds_and_inspects(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    target = ["--target", "SM86, sm120"]
    assert run(["build", str(folder.path), "--backend", "rtx", "--precision", "int8", *target, "--json"]) == 0
    key = json.loads(capfd.readouterr().out)["key"]
    assert run(["inspect", str(folder.path), "--engine", key, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["key"] == key
    assert shown["summary"]["dtypes"]["int8"] > 0
    assert run(["inspect", str(folder.path), "--engine", "rtx-int8"]) == 0
    out = capfd.readouterr().out
    assert "-> int8" in out
    assert "head" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "sm90"], "--target sm90; expected some of sm75"),
        (["--dla", "0"], "rtx has no option --dla"),
        (["--hardware-compatible"], "rtx has no option --hardware-compatible"),
        (["--shapes", "1x3x32x48"], "fixed shapes"),
        (["--workspace-mb", "0"], "1 to 1048576"),
        (["--timeout", "0.01", "--force"], "took longer than 0.01 s"),
    ],
)
def test_bad_options_are_one_error_line(
    folder: ModelFolder, arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", str(folder.path), "--backend", "rtx", "--precision", "fp16", *arguments]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_options_need_a_named_backend(folder: ModelFolder) -> None:
    with pytest.raises(BackendError, match="options targets with auto"):
        build_engine(folder, "auto", "int8", options=BuildOptions(targets=("sm86",)))


def test_inspecting_other_engines_says_what_there_is(folder: ModelFolder) -> None:
    build_named(folder, "ort", "fp32", 1)
    with pytest.raises(BackendError, match="ort does not describe its layers"):
        describe_engine(folder, "ort-fp32")
    with pytest.raises(BackendError, match=r"no engine 'nothing'; expected one of .*ort-fp32"):
        describe_engine(folder, "nothing")


# --- what is refused ---------------------------------------------------------------------------------------------


def graph_of(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = (), opset: int = 18) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("custom", 1)], ir_version=9)


def scalar(name: str, value: float, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


SCALE = scalar("scale", 0.1, np.float32)
REFUSED = {
    "plugin": (graph_of(helper.make_node("Mine", ["x"], ["y"], "mine", domain="custom")), "'mine' .custom::Mine.: .*plugin"),
    "plugin of NVIDIA": (graph_of(helper.make_node("NonZero", ["x"], ["y"], "where")), "'where' .NonZero.: .*only as a plugin"),
    "absent": (graph_of(helper.make_node("Det", ["x"], ["y"], "det")), "'det' .Det.: TensorRT-RTX has no such operator"),
    "indices": (
        graph_of(helper.make_node("MaxPool", ["x"], ["y", "i"], "pool", kernel_shape=[2, 2])),
        "'pool' .MaxPool.: TensorRT-RTX has no MaxPool with indices",
    ),
    "int32 bias": (
        graph_of(
            helper.make_node("DequantizeLinear", ["bias", "scale"], ["b"], "bias_dq"),
            helper.make_node("Add", ["x", "b"], ["y"], "add"),
            tensors=(numpy_helper.from_array(np.ones((1, 4, 1, 1), np.int32), "bias"), SCALE),
        ),
        "'bias_dq' .DequantizeLinear.: an int32 bias",
    ),
    "zero point": (
        graph_of(
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quant"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dequant"),
            tensors=(SCALE, scalar("zero", 3, np.int8)),
        ),
        "'quant' .QuantizeLinear.: a zero point that is not 0.* .and 1 more.",
    ),
    "unsigned": (
        graph_of(
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quant"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dequant"),
            tensors=(SCALE, scalar("zero", 0, np.uint8)),
        ),
        "'quant' .QuantizeLinear.: uint8 codes",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_graphs_name_the_node_and_the_reason(kind: str) -> None:
    model, told = REFUSED[kind]
    with pytest.raises(BackendError, match=told):
        check_for_rtx(model)


@pytest.mark.parametrize("kind", sorted(REFUSED.keys() - {"unsigned"}))
def test_the_parser_itself_refuses_them(kind: str) -> None:
    """What the rules say is true of the library; where it takes the graph the rule would be needless."""
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    parsed = trt.OnnxParser(network := trt.Builder(log).create_network(0), log).parse(REFUSED[kind][0].SerializeToString())
    assert not parsed, network.num_layers


def test_unsigned_codes_would_silently_become_signed() -> None:
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(log).create_network(0)
    assert trt.OnnxParser(network, log).parse(REFUSED["unsigned"][0].SerializeToString())
    kinds = {network.get_layer(index).get_output(0).dtype for index in range(network.num_layers)}
    assert trt.DataType.INT8 in kinds
    assert trt.DataType.UINT8 not in kinds, "it has uint8 now: the rule can go"


def test_rules_agree_with_the_parser_on_every_operator() -> None:
    import tensorrt_rtx as trt

    from edgeseg.engines.nvidia.rules import _ABSENT, _PLUGINS

    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    parser = trt.OnnxParser(trt.Builder(log).create_network(0), log)
    assert [name for name in sorted(_ABSENT) if parser.supports_operator(name)] == []
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    missing = {name for name in names if not parser.supports_operator(name)}
    known = {"RegexFullMatch", "StringConcat", "StringSplit"}  # of strings, which no graph of ours has
    training = {"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "SwiGLU"}
    assert missing - _ABSENT - _PLUGINS - known - training == set()


def test_graphs_in_the_way_of_other_backends_are_refused_before_the_builder(folder: ModelFolder) -> None:
    assert list(refusals(prepared_graph(folder, "int8", "rtx"))) == []
    assert [item for item in refusals(prepared_graph(folder, "int8", "ort")) if "int32" in item.reason or "uint8" in item.reason]
