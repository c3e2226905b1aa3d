"""Graph passes that turn a foreign ONNX graph into the shape every step of edgeseg takes.

Afterwards: opset 13 to 21, no functions, one input ``(1, C, H, W) float32`` of fixed size, weights only as initialisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import OnnxError
from edgeseg.onnx_guard import node_tensors
from edgeseg.onnx_structure import check_opsets, check_structure, dimensions
from edgeseg.ops.functions import DOMAIN

OPSET_MIN, OPSET_MAX = 13, 21
_IR_VERSION = 8
_HALF_COMPUTE = TensorProto.FLOAT16


def tensor_names(model: ModelProto) -> set[str]:
    """Every tensor name of the main graph."""
    graph = model.graph
    names = {name for node in graph.node for name in [*node.input, *node.output]}
    return names | {item.name for item in [*graph.input, *graph.output, *graph.initializer]}


def fresh_name(model: ModelProto, wanted: str) -> str:
    """``wanted``, or with a number behind it if a tensor has that name already."""
    taken, name, count = tensor_names(model), wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    return name


def drop_initialiser_inputs(model: ModelProto) -> int:
    """Remove initialisers from the list of inputs (before IR version 4 each had to be there); returns how many."""
    weights = {item.name for item in model.graph.initializer}
    kept = [item for item in model.graph.input if item.name not in weights]
    dropped = len(model.graph.input) - len(kept)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return dropped


def inline_functions(model: ModelProto) -> ModelProto:
    """The graph without model-local functions but for our own operators, which every step from here on knows."""
    ours = [(function.domain, function.name) for function in model.functions if function.domain == DOMAIN]
    if len(ours) == len(model.functions):
        return model
    return onnx.inliner.inline_selected_functions(model, ours, exclude=True)


# --- opset -------------------------------------------------------------------------------------------------------


def convert_opset(model: ModelProto) -> ModelProto:
    """The model at an opset from 13 to 21, with the same meaning.

    Raises:
        OnnxError: an operator cannot be converted.
    """
    found = check_opsets(model)[""]
    if OPSET_MIN <= found <= OPSET_MAX:
        return model
    model.ir_version = max(model.ir_version, _IR_VERSION)
    target = OPSET_MIN if found < OPSET_MIN else OPSET_MAX
    if found > OPSET_MAX and (lowered := _relabel(model, target)) is not None:
        return lowered
    try:
        converted = onnx.version_converter.convert_version(model, target)
    except Exception as error:  # the converter raises bare C++ errors of several types
        reason = " ".join(str(error).split())[:200]
        raise OnnxError(f"opset {found} cannot be converted to {target}: {reason}", fix="export it with opset 13 to 21") from error
    if found < 11:
        _keep_old_resize(converted)
    return converted


def _keep_old_resize(model: ModelProto) -> None:
    # Upsample and Resize before opset 11 sample at x / scale; the converter leaves the half-pixel default of 11.
    for node in model.graph.node:
        if node.op_type == "Resize":
            kept = [item for item in node.attribute if item.name not in ("coordinate_transformation_mode", "nearest_mode")]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _relabel(model: ModelProto, target: int) -> ModelProto | None:
    """The graph under a lower opset number, if it is valid there: newer versions of most operators only add types."""
    lowered = ModelProto()
    lowered.CopyFrom(model)
    for item in lowered.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = target
    try:
        check_structure(lowered)
        onnx.checker.check_model(lowered)
    except (OnnxError, onnx.checker.ValidationError, ValueError):
        return None
    return lowered


# --- number types ------------------------------------------------------------------------------------------------


def promote_half(model: ModelProto) -> bool:
    """Compute in float32 what the file computes in float16; returns whether anything changed.

    Weights stay stored as float16 with a Cast behind them, as in the shipped models: the file does not grow, and
    calibration sees an ordinary float graph.
    """
    graph = model.graph
    halves = [tensor for tensor in graph.initializer if tensor.data_type == _HALF_COMPUTE]
    computes = any(item.type.tensor_type.elem_type == _HALF_COMPUTE for item in [*graph.input, *graph.output])
    if not computes and not _casts_to_half(model):
        return False
    weights = {tensor.name for tensor in halves}
    _widen_attributes(model)
    casts, renamed = [], {}
    for name in sorted(weights):
        renamed[name] = fresh_name(model, f"{name}.float32")
        casts.append(helper.make_node("Cast", [name], [renamed[name]], name=f"{name}.cast", to=TensorProto.FLOAT))
    for node in _all_nodes(graph):
        if not _is_weight_cast(node, weights):
            _replace(node.input, renamed)
    _insert_front(graph, casts)
    for item in [*graph.input, *graph.output]:
        if item.type.tensor_type.elem_type == _HALF_COMPUTE:
            item.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    return True


def _is_weight_cast(node: NodeProto, weights: set[str]) -> bool:
    return node.op_type == "Cast" and node.input[0] in weights


def _casts_to_half(model: ModelProto) -> bool:
    return any(
        item.name in ("to", "dtype") and item.i == _HALF_COMPUTE for node in _all_nodes(model.graph) for item in node.attribute
    ) or any(item.type.tensor_type.elem_type == _HALF_COMPUTE for item in model.graph.value_info)


def _widen_attributes(model: ModelProto) -> None:
    for _, tensor in node_tensors(model.graph.node):
        if tensor.data_type == _HALF_COMPUTE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in _all_nodes(model.graph):
        for item in node.attribute:
            if item.name in ("to", "dtype") and item.i == _HALF_COMPUTE:
                item.i = TensorProto.FLOAT


def _all_nodes(graph: Any) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for item in node.attribute:
            for inner in [*([item.g] if item.HasField("g") else []), *item.graphs]:
                yield from _all_nodes(inner)


def _replace(names: Any, renamed: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = renamed.get(name, name)


def _insert_front(graph: Any, nodes: list[NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


# --- input -------------------------------------------------------------------------------------------------------


def find_input(model: ModelProto, channels: int, layout: str) -> tuple[Any, str]:
    """The image input and its layout, "nchw" or "nhwc", told by where the channels stand.

    Raises:
        OnnxError: not one input of rank 4, or its channels do not fit ``channels``.
    """
    inputs = list(model.graph.input)
    if len(inputs) != 1:
        names = ", ".join(repr(item.name) for item in inputs) or "none"
        raise OnnxError(
            f"the graph has {len(inputs)} inputs ({names})", "one image input", "export it with the image as its only input"
        )
    dims = dimensions(inputs[0])
    if dims is not None and len(dims) != 4:
        raise OnnxError(f"input {inputs[0].name!r} has rank {len(dims)} {dims}", "rank 4: (N, C, H, W) or (N, H, W, C)")
    first, last = (dims[1], dims[3]) if dims else (None, None)
    found = layout if layout != "auto" else "nhwc" if last == channels and first != channels else "nchw"
    given = first if found == "nchw" else last
    if isinstance(given, int) and given > 0 and given != channels:
        raise OnnxError(
            f"input {inputs[0].name!r} {dims} has {given} channels",
            f"{channels} by --colour-order and --mean",
            "give one --mean and one --std for each channel of the input, and --colour-order grey for one channel",
        )
    return inputs[0], found


def input_size(value: Any, layout: str, size: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) of the input: what the graph fixes, else ``size``.

    Raises:
        OnnxError: the graph fixes another size than ``size``, or neither gives one.
    """
    dims = dimensions(value) or [None] * 4
    height, width = (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])
    fixed = [item if isinstance(item, int) and item > 0 else None for item in (width, height)]
    chosen = [item if item is not None else size[index] if size else None for index, item in enumerate(fixed)]
    if chosen[0] is None or chosen[1] is None:
        raise OnnxError(
            f"input {value.name!r} {dims} has no fixed size", "--size WIDTHxHEIGHT", "give the size the model is to run at"
        )
    if size and (chosen[0], chosen[1]) != size:
        raise OnnxError(f"input {value.name!r} is fixed at {chosen[0]}x{chosen[1]}", f"--size {chosen[0]}x{chosen[1]}, or none")
    return chosen[0], chosen[1]


def set_input(model: ModelProto, value: Any, layout: str, shape: tuple[int, int, int, int]) -> list[str]:
    """Make ``value`` a float32 input of ``shape`` (N, C, H, W), with Transpose and Cast behind it as needed.

    Returns:
        What was inserted, in words.
    """
    name, kind = value.name, value.type.tensor_type.elem_type
    nodes: list[NodeProto] = []
    said: list[str] = []
    current = name
    if kind != TensorProto.FLOAT:
        label = TensorProto.DataType.Name(kind).lower()
        if kind not in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
            current = _append(model, nodes, "Round", current, f"{name}.rounded")  # a resized pixel lies between integers
        current = _append(model, nodes, "Cast", current, f"{name}.{label}", to=kind)
        said.append(f"input {name!r} takes {label}: a Cast from float32 was inserted")
    if layout == "nhwc":
        current = _append(model, nodes, "Transpose", current, f"{name}.nhwc", perm=[0, 2, 3, 1])
        said.append(f"input {name!r} is NHWC: a Transpose from NCHW was inserted")
    if nodes:
        for node in _all_nodes(model.graph):
            _replace(node.input, {name: current})
        _insert_front(model.graph, nodes)
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
    del model.graph.value_info[:]
    return said


def _append(model: ModelProto, nodes: list[NodeProto], operator: str, source: str, wanted: str, **attributes: Any) -> str:
    made = fresh_name(model, wanted)
    nodes.append(helper.make_node(operator, [source], [made], name=made, **attributes))
    return made


def prune(model: ModelProto) -> int:
    """Remove nodes and initialisers that no output needs; returns the number of nodes removed."""
    graph, needed = model.graph, {item.name for item in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            kept.append(node)
            needed |= {name for item in [node, *_inner_nodes(node)] for name in item.input}
            needed |= {item.name for inner in _inner_graphs(node) for item in inner.output}
    removed = len(graph.node) - len(kept)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    return removed


def _inner_graphs(node: NodeProto) -> list[Any]:
    direct = [graph for item in node.attribute for graph in [*([item.g] if item.HasField("g") else []), *item.graphs]]
    return direct + [deep for graph in direct for inner in graph.node for deep in _inner_graphs(inner)]


def _inner_nodes(node: NodeProto) -> list[NodeProto]:
    return [inner for graph in _inner_graphs(node) for inner in graph.node]
