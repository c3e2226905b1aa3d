"""``edgeseg check``: every verdict from a graph that earns it, in the table and as JSON, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from edgeseg.cli.app import run
from edgeseg.engines.targets import TARGETS, get_target
from edgeseg.engines.targets.check import Report, check_graph
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from tests.engines.graphs import INT64, OURS, POOL, UINT8, build, segnet
from tests.tiny_model import calibrated, tiny_folder

WEIGHT = np.ones((4, 3, 3, 3), np.float32)
CONV = helper.make_node("Conv", ["x", "w"], ["c"], "conv")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny model")


def check(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run(["check", *arguments, "--json"])
    return code, json.loads(capfd.readouterr().out)


def told(report: Report) -> dict[str, str]:
    """Operator -> verdict of its worst finding."""
    return {finding.operator: finding.verdict for finding in reversed(report.findings)}


def conv_and(*nodes: onnx.NodeProto, outputs: dict[str, Any], **constants: np.ndarray) -> ModelProto:
    return build([CONV, *nodes], {"x": [1, 3, 10, 10]}, outputs, {"w": WEIGHT, **constants})


# --- the command ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", list(TARGETS))
def test_a_plain_network_is_fine_everywhere(target: str, folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    code, report = check(capfd, str(folder.path), "--target", target)
    assert (code, report["ok"]) == (0, True)
    assert not [finding for finding in report["findings"] if finding["verdict"] != "note"]
    assert report["sources"]
    assert report["nodes"] > 0


def test_ranges_make_it_int8(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    assert check(capfd, str(folder.path), "--target", "tensorrt-10")[1]["precision"] == "fp16"
    calibrated(folder)
    code, report = check(capfd, str(folder.path), "--target", "tensorrt-10")
    assert (code, report["precision"], report["findings"]) == (0, "int8", [])
    assert check(capfd, str(folder.path), "--target", "ort")[1]["precision"] == "int8"
    assert check(capfd, str(folder.path), "--target", "rtx", "--precision", "fp32")[1]["precision"] == "fp32"


def test_the_table_names_operator_reason_fix_and_nodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(segnet(ours=False), path)
    assert run(["check", str(path), "--target", "jetson-orin-jp6"]) == 0
    out = capfd.readouterr().out
    for words in ("edgeseg::MaxPoolArgmax", "edgeseg::MaxUnpool", "plugin", "edgeseg plugins build", "nothing stands in the way"):
        assert words in out
    onnx.save(conv_and(helper.make_node("Det", ["c"], ["y"], "the_det"), outputs={"y": [1, 4]}), path)
    assert run(["check", str(path), "--target", "jetson-orin-jp6"]) == 1
    out, error = capfd.readouterr()
    assert "the_det" in out
    assert "refused: 1 finding to mend first" in out
    assert not error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "abacus"], "one of jetson-orin-jp6"),
        (["--target", "rtx", "--precision", "fp8"], "fp32, fp16 or int8"),
        (["--target", "jetson-thor-jp7", "--dla"], "Jetson Thor has no DLA"),
        (["--target", "jetson-orin-jp7", "--dla"], "10.7 was the last"),
        (["--target", "ort", "--dla"], "no DLA"),
        (["--target", "jetson-orin-jp6", "--dla", "--precision", "fp32"], "fp16 or int8"),
    ],
)
def test_what_cannot_be_asked(folder: ModelFolder, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(folder.path), *arguments]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert message in error
    assert "Traceback" not in error


def test_int8_of_a_bare_file_has_no_ranges(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(segnet(), path)
    assert run(["check", str(path), "--target", "rtx", "--precision", "int8"]) == 1
    assert "ranges.json" in capfd.readouterr().err


def test_missing_files_and_folders(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "nowhere.onnx", "--target", "rtx"]) == 1
    assert run(["check", "nowhere", "--target", "rtx"]) == 1
    assert capfd.readouterr().err.count("error:") == 2


# --- TensorRT ------------------------------------------------------------------------------------------------------------


def test_what_the_lowering_mends_is_no_finding() -> None:
    for graph in (segnet(), segnet(ours=False)):
        assert told(check_graph(graph, get_target("tensorrt-10"))) == {
            "edgeseg::MaxPoolArgmax": "plugin",
            "edgeseg::MaxUnpool": "plugin",
        }
        for target in ("rtx", "openvino", "ort"):
            assert not check_graph(graph, get_target(target)).findings


@pytest.mark.parametrize(
    ("node", "words", "more"),
    [
        (helper.make_node("Det", ["c"], ["y"]), "no such operator", {}),
        (helper.make_node("MaxPool", ["c"], ["y", "i"], kernel_shape=[2, 2], dilations=[2, 2]), "cannot express", {}),
        (helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), "dilated", {}),
        (helper.make_node("Resize", ["c", "", "s"], ["y"], mode="cubic"), "mode cubic", {"s": np.float32([1, 1, 2, 2])}),
        (helper.make_node("Resize", ["c", "", "s"], ["y"], antialias=1), "antialias", {"s": np.float32([1, 1, 2, 2])}),
        (
            helper.make_node("Resize", ["c", "", "s"], ["y"], coordinate_transformation_mode="half_pixel_symmetric"),
            "half_pixel_symmetric",
            {"s": np.float32([1, 1, 2, 2])},
        ),
        (helper.make_node("TopK", ["c", "k"], ["y", "i"]), "TopK of 5000", {"k": np.int64([5000])}),
        (helper.make_node("Mystery", ["c"], ["y"], domain="theirs"), "neither TensorRT nor our plugins", {}),
    ],
)
def test_single_operators_that_tensorrt_refuses(node: onnx.NodeProto, words: str, more: dict[str, np.ndarray]) -> None:
    outputs: dict[str, Any] = {"y": None}
    if "i" in node.output:
        outputs["i"] = (INT64, None)
    model = conv_and(node, outputs=outputs, **more)
    model.opset_import[0].version = 19
    if node.domain:
        model.opset_import.append(helper.make_opsetid(node.domain, 1))
    report = check_graph(model, get_target("tensorrt-10"))
    (finding,) = [finding for finding in report.findings if finding.verdict == "refused"]
    assert words in finding.reason
    assert finding.fix
    assert len(finding.nodes) == 1


def test_an_unpool_without_its_pool_and_indices_of_any_use() -> None:
    nodes = [helper.make_node("MaxUnpool", ["c", "i"], ["y"], **POOL)]
    model = build([CONV, *nodes], {"x": [1, 3, 10, 10], "i": (INT64, [1, 4, 8, 8])}, {"y": [1, 4, 16, 16]}, {"w": WEIGHT})
    assert told(check_graph(model, get_target("tensorrt-10"))) == {"edgeseg::MaxUnpoolIndices": "plugin"}


def test_codes_of_other_profiles_are_refused() -> None:
    constants = {"s": np.float32(0.1), "z": np.uint8(128), "b": np.ones(4, np.int32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["b", "s"], ["bias"]),
        helper.make_node("Conv", ["d", "w", "bias"], ["y"]),
    ]
    model = build(nodes, {"x": [1, 3, 10, 10]}, {"y": [1, 4, 8, 8]}, {"w": WEIGHT, **constants})
    for target in ("tensorrt-10", "rtx"):
        report = check_graph(model, get_target(target), "int8")
        assert told(report) == {"QuantizeLinear": "refused", "DequantizeLinear": "refused"}
        assert any("int32 bias" in finding.reason for finding in report.findings)


def test_results_sized_at_run_time_are_a_note_for_tensorrt_and_refused_by_rtx() -> None:
    model = conv_and(helper.make_node("NonZero", ["c"], ["y"]), outputs={"y": (INT64, None)})
    assert told(check_graph(model, get_target("tensorrt-11"))) == {"NonZero": "note"}
    assert told(check_graph(model, get_target("rtx"))) == {"NonZero": "refused"}


def test_deformable_convolution_runs_in_tensorrt_alone() -> None:
    node = helper.make_node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[3, 3])
    model = build([node], {"x": [1, 3, 10, 10], "o": [1, 18, 8, 8]}, {"y": [1, 4, 8, 8]}, {"w": WEIGHT}, opset=19)
    assert not check_graph(model, get_target("jetson-orin-jp6")).findings
    assert told(check_graph(model, get_target("rtx"))) == {"DeformConv": "refused"}


def test_uint8_between_nodes() -> None:
    nodes = [helper.make_node("Cast", ["c"], ["u"], to=UINT8), helper.make_node("Transpose", ["u"], ["y"])]
    report = check_graph(conv_and(*nodes, outputs={"y": (UINT8, None)}), get_target("tensorrt-10"))
    assert told(report) == {"Cast": "refused"}
    only = check_graph(
        conv_and(helper.make_node("Cast", ["c"], ["y"], to=UINT8), outputs={"y": (UINT8, None)}), get_target("tensorrt-10")
    )
    assert not only.findings


def test_opsets_free_sizes_and_large_weights() -> None:
    late = conv_and(outputs={"c": [1, 4, 8, 8]})
    late.opset_import[0].version = 22
    assert told(check_graph(late, get_target("jetson-orin-jp6"))) == {"model": "refused"}
    assert not check_graph(late, get_target("tensorrt-11")).findings
    free = build([CONV], {"x": ["n", 3, 10, 10]}, {"c": [None] * 4}, {"w": WEIGHT * 1e6})
    report = check_graph(free, get_target("rtx"))
    assert told(report) == {"model": "note", "weights": "note"}
    assert any("--shapes" in finding.fix for finding in report.findings)
    assert told(check_graph(free, get_target("rtx"), "fp32")) == {"model": "note"}


def test_primitive_bodies_need_fixed_sizes() -> None:
    nodes = [
        helper.make_node("MaxPoolArgmax", ["x"], ["p", "c"], **POOL, **OURS),
        helper.make_node("MaxUnpool", ["p", "c"], ["y"], **POOL, **OURS),
    ]
    report = check_graph(build(nodes, {"x": ["n", 3, "h", "w"]}, {"y": [None] * 4}), get_target("rtx"))
    assert report.refused
    assert any("static shapes" in finding.fix for finding in report.findings)


def test_runtimes_that_are_asked_say_what_they_lack() -> None:
    model = conv_and(helper.make_node("Mystery", ["c"], ["y"], domain="theirs"), outputs={"y": [1, 4, 8, 8]})
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    for target in ("ort", "openvino"):
        pytest.importorskip({"ort": "onnxruntime"}.get(target, target))
        report = check_graph(model, get_target(target), "fp32")
        assert report.refused
        assert "Mystery" in report.findings[0].reason


# --- the DLA -------------------------------------------------------------------------------------------------------------


def dla(model: ModelProto, precision: str = "fp16", target: str = "jetson-orin-jp6", fallback: bool = False) -> dict[str, str]:
    return told(check_graph(model, get_target(target), precision, dla=True, allow_gpu_fallback=fallback))


def test_a_network_of_its_operators_runs_on_the_dla() -> None:
    assert dla(conv_and(helper.make_node("Relu", ["c"], ["y"]), outputs={"y": [1, 4, 8, 8]})) == {}


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Elu", ["c"], ["y"]),
        helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[8, 9], strides=[9, 9], pads=[8, 0, 0, 0]),
        helper.make_node("AveragePool", ["c"], ["y"], kernel_shape=[2, 2], strides=[17, 17]),
        helper.make_node("ConvTranspose", ["c", "t"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["c", "t"], ["y"], group=4),
        helper.make_node("Resize", ["c", "", "s"], ["y"], mode="linear"),
        helper.make_node("Resize", ["c", "", "half"], ["y"], mode="nearest"),
        helper.make_node("Resize", ["c", "", "two"], ["y"], mode="linear", coordinate_transformation_mode="align_corners"),
        helper.make_node("Concat", ["c", "c"], ["y"], axis=2),
        helper.make_node("MatMul", ["c", "c"], ["y"]),
    ],
)
def test_what_the_dla_lacks_is_refused_or_falls_back(node: onnx.NodeProto) -> None:
    constants = {
        "t": np.ones((4, 1, 3, 3), np.float32),
        "s": np.float32([1, 1, 5, 5]),
        "half": np.float32([1, 1, 1.5, 1.5]),
        "two": np.float32([1, 1, 2, 2]),
    }
    used = {name: value for name, value in constants.items() if name in node.input}
    model = conv_and(node, outputs={"y": [None] * 4}, **used)
    assert dla(model) == {node.op_type: "refused"}
    assert dla(model, fallback=True) == {node.op_type: "fallback"}


@pytest.mark.parametrize("factor", [2, 4])
def test_whole_factors_run_on_the_dla(factor: int) -> None:
    node = helper.make_node("Resize", ["c", "", "s"], ["y"], mode="linear")
    assert dla(conv_and(node, outputs={"y": [None] * 4}, s=np.float32([1, 1, factor, factor]))) == {}


def test_plugins_codes_and_free_sizes_do_not_run_on_the_dla() -> None:
    found = dla(segnet())
    assert (found["edgeseg::MaxPoolArgmax"], found["edgeseg::MaxUnpool"]) == ("refused", "refused")
    constants = {"s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    quantised = conv_and(*nodes, outputs={"y": [1, 4, 8, 8]}, **constants)
    assert set(dla(quantised, "int8")) == {"QuantizeLinear", "DequantizeLinear"}
    assert dla(quantised, "int8", "tensorrt-11") == {}
    free = build([CONV], {"x": ["n", 3, 10, 10]}, {"c": [None] * 4}, {"w": WEIGHT})
    assert dla(free)["Conv"] == "refused"


def test_every_operator_of_the_tables_exists() -> None:
    from edgeseg.engines import targets

    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    for table in (targets.ABSENT_10, targets.DLA_OPERATORS, targets.SIZED_AT_RUN_TIME, targets.CONSTANT_INPUTS):
        assert set(table) <= known, set(table) - known
    assert not targets.DLA_OPERATORS & targets.ABSENT_10
    with pytest.raises(BackendError, match="--target abacus"):
        get_target("abacus")
