"""Reading ONNX files that are damaged, oversized or hostile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from edgeseg.errors import OnnxError
from edgeseg.onnx_guard import load_onnx, save_onnx

VALUES = np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3)


def model(nodes: list | None = None, weights: list | None = None, opset: int = 17) -> onnx.ModelProto:
    nodes = nodes or [h.make_node("Conv", ["x", "w"], ["y"], name="first", kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    weights = [numpy_helper.from_array(VALUES, "w")] if weights is None else weights
    inputs, outputs = [h.make_tensor_value_info("x", T.FLOAT, [1, 3, 8, 8])], [h.make_tensor_value_info("y", T.FLOAT, [1, 3, 8, 8])]
    graph = h.make_graph(nodes, "g", inputs, outputs, weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8)


def write(path: Path, item: onnx.ModelProto) -> Path:
    path.write_bytes(item.SerializeToString())
    return path


def external(location: str, **entries: object) -> onnx.ModelProto:
    """The model with its weights said to lie in ``location``."""
    item = model()
    tensor = item.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return item


def refusal(path: Path) -> str:
    with pytest.raises(OnnxError) as caught:
        load_onnx(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- external data -----------------------------------------------------------------------------------------------


def test_external_data_is_inlined(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"\0" * 16 + VALUES.tobytes() + b"tail")
    loaded = load_onnx(write(tmp_path / "m.onnx", external("sub/w.bin", offset=16, length=VALUES.nbytes)))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), VALUES)
    save_onnx(loaded, tmp_path / "copy.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "copy.onnx"))


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/passwd", "", ".", "C:\\w.bin", "..\\w.bin", "w\0.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    message = refusal(write(folder / "m.onnx", external(location)))
    assert "'w'" in message


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "directory_link", "fifo", "directory"])
def test_external_data_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir(), folder.mkdir()
    (outside / "w.bin").write_bytes(VALUES.tobytes())
    location = "w.bin"
    if kind == "symlink":
        (folder / "w.bin").symlink_to(outside / "w.bin")
    elif kind == "hardlink":
        os.link(outside / "w.bin", folder / "w.bin")
    elif kind == "directory_link":
        (folder / "sub").symlink_to(outside, target_is_directory=True)
        location = "sub/w.bin"
    elif kind == "fifo":
        os.mkfifo(folder / "w.bin")
    else:
        (folder / "w.bin").mkdir()
    message = refusal(write(folder / "m.onnx", external(location)))
    assert {"symlink": "symbolic link", "hardlink": "hard links", "directory_link": "symbolic link"}.get(
        kind, "regular file"
    ) in message


def test_missing_and_short_external_files_are_told_in_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", external("w.bin", offset=100))
    message = refusal(path)
    assert "No such file" in message
    assert f"at least {100 + VALUES.nbytes} bytes" in message
    (tmp_path / "w.bin").write_bytes(b"\0" * 50)
    message = refusal(path)
    assert "has 50 bytes" in message
    assert f"at least {100 + VALUES.nbytes} bytes" in message


@pytest.mark.parametrize("entries", [{"offset": -1}, {"length": "x"}, {"length": 4}, {"offset": "9" * 30}, {"offset": "0x10"}])
def test_wrong_external_numbers_are_refused(tmp_path: Path, entries: dict) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    assert "external" in refusal(write(tmp_path / "m.onnx", external("w.bin", **entries)))


def test_external_data_of_an_attribute_is_checked_too(tmp_path: Path) -> None:
    item = external("../w.bin")
    node = h.make_node("Constant", [], ["w"], value=item.graph.initializer[0])
    other = model([node, *item.graph.node], [])
    assert "w.bin" in refusal(write(tmp_path / "m.onnx", other))


def test_nothing_is_written_outside_or_through_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link.onnx").symlink_to(victim)
    os.link(victim, tmp_path / "hard.onnx")
    for name in ("link.onnx", "hard.onnx"):
        save_onnx(model(), tmp_path / name)
        assert load_onnx(tmp_path / name).graph.node[0].name == "first"
    assert victim.read_text() == "mine"
    with pytest.raises(OnnxError, match="another file"):
        save_onnx(external("../w.bin"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 32, 1 << 32], [-1, 3], [9], [82]])
@pytest.mark.parametrize("where", ["raw", "typed", "external", "attribute"])
def test_declared_size_must_be_there(tmp_path: Path, dims: list[int], where: str) -> None:
    item = external("w.bin") if where == "external" else model()
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    tensor = item.graph.initializer[0]
    if where == "typed":
        tensor.ClearField("raw_data")
        tensor.float_data.extend([0.0] * 5)
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    if where == "attribute":
        item = model([h.make_node("Constant", [], ["w"], name="const", value=tensor), *item.graph.node], [])
    message = refusal(write(tmp_path / "m.onnx", item))
    assert "'w'" in message or "const" in message


def test_huge_made_tensor_is_refused_before_it_is_made(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    item = model([h.make_node("ConstantOfShape", ["shape"], ["big"]), h.make_node("Relu", ["x"], ["y"])], [shape])
    assert "'big'" in refusal(write(tmp_path / "m.onnx", item))


def test_huge_input_is_refused(tmp_path: Path) -> None:
    item = model()
    item.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40
    assert "'x'" in refusal(write(tmp_path / "m.onnx", item))


# --- damaged files -----------------------------------------------------------------------------------------------


def test_empty_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "m.onnx", model().SerializeToString()
    for content in (b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"{}", data[: len(data) // 2], data[:-1]):
        path.write_bytes(content)
        refusal(path)
    assert "No such file" in refusal(tmp_path / "none.onnx")
    assert "regular file" in refusal(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 10_000))
def test_any_damage_is_a_told_error_or_a_model(tmp_path: Path, place: int, value: int, cut: int) -> None:
    data = bytearray(model().SerializeToString())
    data[place % len(data)] = value
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(data[: max(1, len(data) - cut % 5)]))
    try:  # any other exception fails the test
        assert load_onnx(path).graph.node
    except OnnxError as error:
        told = str(error)
    else:
        return
    assert str(path) in told


# --- graphs ------------------------------------------------------------------------------------------------------


def test_cycle_names_a_node_of_it(tmp_path: Path) -> None:
    nodes = [
        h.make_node("Add", ["x", "loop"], ["a"], name="in_cycle_1"),
        h.make_node("Relu", ["a"], ["loop"], name="in_cycle_2"),
        h.make_node("Relu", ["loop"], ["y"], name="after"),
    ]
    assert "in_cycle" in refusal(write(tmp_path / "m.onnx", model(nodes, [])))


def test_unordered_nodes_are_put_in_order(tmp_path: Path) -> None:
    nodes = [h.make_node("Relu", ["a"], ["y"], name="second"), h.make_node("Relu", ["x"], ["a"], name="first")]
    loaded = load_onnx(write(tmp_path / "m.onnx", model(nodes, [])))
    assert [node.name for node in loaded.graph.node] == ["first", "second"]


@pytest.mark.parametrize(("nodes", "told"), [
    ([h.make_node("Blur", ["x"], ["y"], name="n7")], "n7"),
    ([h.make_node("Relu", ["x"], ["y"], name="n7", domain="acme")], "acme"),
    ([h.make_node("Upsample", ["x"], ["y"], name="n7")], "n7"),
    ([h.make_node("Relu", ["nowhere"], ["y"], name="n7")], "'nowhere'"),
    ([h.make_node("Relu", ["x", "x"], ["y"], name="n7")], "2 inputs"),
    ([h.make_node("Relu", ["x"], ["y"], name="n7"), h.make_node("Abs", ["x"], ["y"], name="n8")], "made twice"),
    ([h.make_node("Relu", ["x"], ["z"], name="n7")], "'y'"),
])  # fmt: skip
def test_bad_nodes_are_named(tmp_path: Path, nodes: list, told: str) -> None:
    assert told in refusal(write(tmp_path / "m.onnx", model(nodes, [])))


@pytest.mark.parametrize("opset", [0, -1, 6, 9999])
def test_bad_opset_is_told(tmp_path: Path, opset: int) -> None:
    item = model()
    item.opset_import[0].version = opset
    assert f"opset {opset}" in refusal(write(tmp_path / "m.onnx", item))


def test_duplicates_are_refused(tmp_path: Path) -> None:
    item = model()
    item.graph.initializer.append(item.graph.initializer[0])
    assert "'w' appears twice" in refusal(write(tmp_path / "m.onnx", item))
    item = model()
    item.opset_import.append(h.make_opsetid("", 13))
    assert "17 and 13" in refusal(write(tmp_path / "m.onnx", item))


def test_recursive_function_is_refused(tmp_path: Path) -> None:
    body = [h.make_node("F", ["a"], ["b"], domain="d")]
    item = model([h.make_node("F", ["x"], ["y"], domain="d")], [])
    item.functions.append(h.make_function("d", "F", ["a"], ["b"], body, [h.make_opsetid("d", 1)]))
    item.opset_import.append(h.make_opsetid("d", 1))
    assert "calls itself" in refusal(write(tmp_path / "m.onnx", item))


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_weights_that_are_not_finite_name_the_tensor(tmp_path: Path, bad: float, dtype: type) -> None:
    values = VALUES.astype(dtype)
    values[1, 1, 1, 1] = bad
    item = model(weights=[numpy_helper.from_array(values, "w")])
    assert "tensor 'w'" in refusal(write(tmp_path / "m.onnx", item))


def test_bounds_and_masks_may_be_infinite(tmp_path: Path) -> None:
    weights = [
        numpy_helper.from_array(np.array(np.inf, np.float32), "high"),
        numpy_helper.from_array(np.zeros(8, np.float32) - np.inf, "m"),
    ]
    nodes = [h.make_node("Clip", ["x", "", "high"], ["a"]), h.make_node("Add", ["a", "m"], ["y"])]
    assert load_onnx(write(tmp_path / "m.onnx", model(nodes, weights))).graph.node
