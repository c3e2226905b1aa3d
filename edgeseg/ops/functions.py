"""Our operators as ONNX nodes: domain, names, result types, and the function bodies that let any other runtime run them.

A node of domain ``edgeseg`` carries its settings as attributes and, as a model-local function of the same name, what it
computes in standard operators. A runtime with our kernel uses the attributes; any other runs the function. A second
node whose function differs is named ``NAME_2``: function overloads, ONNX's own means, are not read by every runtime.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
)

from edgeseg.errors import OnnxError
from edgeseg.ops.window import Window

DOMAIN = "edgeseg"
VERSION = 1
BODY_OPSETS = (18, 21)  # bodies are written in operators that mean the same in all of these

Shape = tuple[int, ...] | None
Body = Callable[[str, dict[str, Any], list[Shape]], FunctionProto]


@dataclass(frozen=True)
class Bodies:
    """The two function bodies of one operator, each made from (function name, node attributes, one shape per input).

    A shape is None where it is unknown.

    Attributes:
        standard: in operators that ONNX Runtime has; needs no shapes.
        primitive: without RoiAlign, MaxPool's indices, MaxUnpool, NonZero; for static shapes.
    """

    standard: Body
    primitive: Body


REGISTRY: dict[str, str] = {
    "RoIAlign": "edgeseg.ops.roi_align",
    "MaxPoolArgmax": "edgeseg.ops.max_pool",
    "MaxUnpool": "edgeseg.ops.max_pool",
    "MaxPoolIndices": "edgeseg.ops.max_pool",
    "MaxUnpoolIndices": "edgeseg.ops.max_pool",
    "UpsampleArgmax": "edgeseg.ops.upsample_argmax",
}
"""Operator -> module; its ``BODIES`` dict holds the operator's ``Bodies``."""


def base_name(op_type: str) -> str:
    """The operator behind a function name: ``RoIAlign_2`` is ``RoIAlign``."""
    return re.sub(r"_\d+$", "", op_type)


def bodies(op_type: str) -> Bodies:
    """The bodies of an operator; imports its module.

    Raises:
        OnnxError: there is no such operator.
    """
    name = base_name(op_type)
    if name not in REGISTRY:
        raise OnnxError(f"operator {DOMAIN}::{op_type}", f"one of {', '.join(REGISTRY)}", "use the edgeseg that wrote the graph")
    found: Bodies = import_module(REGISTRY[name]).BODIES[name]
    return found


def is_ours(node: NodeProto) -> bool:
    """Whether a node is one of our operators."""
    return node.domain == DOMAIN


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes as Python values; strings decoded."""
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def attach(model: ModelProto, kind: str | Callable[[NodeProto], str] = "standard") -> ModelProto:
    """A copy in which every node of ours has a function body of ``kind``; bodies that were there are replaced.

    Nodes whose bodies are equal share one function. Bodies are told the shapes that inference finds; primitive ones need them.

    Args:
        kind: "standard" or "primitive", a field of ``Bodies``; or what says so for each node.

    Raises:
        OnnxError: an operator that this version does not have.
    """
    attached = detach(model)
    nodes = [node for node in walk(attached.graph) if is_ours(node)]
    if not nodes:
        return attached
    shapes = known_shapes(attached)
    made: dict[str, list[FunctionProto]] = {}
    for node in nodes:
        inputs = [shapes.get(name) if name else None for name in node.input]
        make: Body = getattr(bodies(node.op_type), kind if isinstance(kind, str) else kind(node))
        _assign(node, make, inputs, made.setdefault(node.op_type, []), _standard_opset(attached))
    attached.functions.extend(function for functions in made.values() for function in functions)
    return attached


def detach(model: ModelProto) -> ModelProto:
    """A copy whose nodes of ours bear the operators' own names and have no bodies: what a runtime with our kernels reads."""
    bare = ModelProto()
    bare.CopyFrom(model)
    others = [function for function in model.functions if function.domain != DOMAIN]
    del bare.functions[:]
    bare.functions.extend(others)
    for node in walk(bare.graph):
        if is_ours(node):
            node.op_type = base_name(node.op_type)
    declare(bare)
    return bare


def declare(model: ModelProto) -> None:
    """Name our operator set among those that ``model`` imports, in place, if it has nodes of ours."""
    if not any(entry.domain == DOMAIN for entry in model.opset_import) and any(map(is_ours, walk(model.graph))):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def inline(model: ModelProto) -> ModelProto:
    """A model without functions: every call is replaced by the body. Operator sets that nobody uses any more go."""
    if not model.functions:
        return model
    inlined = inliner.inline_local_functions(model)
    used = {node.domain or "ai.onnx" for node in walk(inlined.graph)} | {"ai.onnx"}
    kept = [entry for entry in inlined.opset_import if (entry.domain or "ai.onnx") in used]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined


def walk(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph and of the graphs nested in its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from walk(attribute.g)
            for nested in attribute.graphs:
                yield from walk(nested)


def _assign(node: NodeProto, make: Body, inputs: list[Shape], made: list[FunctionProto], opset: int) -> None:
    # The name may occur in the body (as a prefix, say), so bodies are compared as made under one name.
    base = base_name(node.op_type)
    wanted = _finish(make(base, attributes(node), inputs), node, opset)
    for number, function in enumerate(made, 1):
        same = FunctionProto()
        same.CopyFrom(function)
        same.name = base
        if same == wanted:
            node.op_type = base if number == 1 else f"{base}_{number}"
            return
    wanted.name = base if not made else f"{base}_{len(made) + 1}"
    made.append(wanted)
    node.op_type = wanted.name


def _finish(function: FunctionProto, node: NodeProto, opset: int) -> FunctionProto:
    """ONNX Runtime refuses attributes that a function does not declare, and inlines only bodies of the model's own opset."""
    declared = {*function.attribute, *(item.name for item in function.attribute_proto)}
    function.attribute.extend(item.name for item in node.attribute if item.name not in declared)
    function.domain = DOMAIN
    if len(node.output) < len(function.output):
        _trim(function, len(node.output))
    if BODY_OPSETS[0] <= opset <= BODY_OPSETS[1]:
        for entry in function.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = opset
    return function


def _trim(function: FunctionProto, results: int) -> None:
    """Drop the results that a node does not take, and what only they need: shape inference allows no result without a taker."""
    del function.output[results:]
    needed, kept = set(function.output), []
    for node in reversed(function.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del function.node[:]
    function.node.extend(nodes)


def _standard_opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


# --- types and shapes of results -----------------------------------------------------------------------------------

Dims = list[int | str | None]


def known_shapes(model: ModelProto) -> dict[str, Shape]:
    """The shape of every tensor of the main graph whose every dimension is known."""
    inferred = infer(model).graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in _values(inferred):
        dims = _dims(value)
        if dims is not None and all(isinstance(size, int) for size in dims):
            shapes[value.name] = tuple(size for size in dims if isinstance(size, int))
    return shapes


def infer(model: ModelProto) -> ModelProto:
    """A copy with types and shapes inferred, through our operators too, whether they have bodies or not."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    while _fill(inferred.graph):
        inferred = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
    return inferred


def _fill(graph: GraphProto) -> bool:
    """Write the types of our nodes' results that inference did not find, where those of the inputs are known."""
    values = {value.name: value for value in _values(graph)}
    missing: dict[str, ValueInfoProto] = {}
    for node in filter(is_ours, graph.node):
        for name, result in zip(node.output, _results(node, values), strict=False):
            if name and result is not None and _says_more(result[1], _dims(values.get(name))):
                missing[name] = helper.make_tensor_value_info(name, *result)
    for name, made in missing.items():
        if name in values:
            values[name].type.CopyFrom(made.type)
        else:
            graph.value_info.append(made)
    return bool(missing)


def _says_more(found: Dims, known: Dims | None) -> bool:
    if known is None or len(known) != len(found):
        return known is None
    return any(isinstance(mine, int) and not isinstance(other, int) for mine, other in zip(found, known, strict=True))


def _values(graph: GraphProto) -> list[ValueInfoProto]:
    return [*graph.input, *graph.value_info, *graph.output]


def _dims(value: ValueInfoProto | None) -> Dims | None:
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in sizes]


def _results(node: NodeProto, values: dict[str, ValueInfoProto]) -> list[tuple[int, Dims] | None]:
    """(element type, dimensions) of each result; None where an input's are unknown."""
    first = values.get(node.input[2 if base_name(node.op_type) == "RoIAlign" else 0])
    dims = _dims(first)
    if first is None or dims is None or len(dims) != 4:
        return [None]
    element, options = first.type.tensor_type.elem_type, attributes(node)
    match base_name(node.op_type):
        case "RoIAlign":
            rois = _dims(values.get(node.input[0])) or [None]
            return [(element, [rois[0], dims[1], options["output_height"], options["output_width"]])]
        case "MaxPoolArgmax" | "MaxPoolIndices":
            codes = TensorProto.UINT8 if base_name(node.op_type) == "MaxPoolArgmax" else TensorProto.INT64
            pooled = dims[:2] + _pooled(dims[2:], options)
            return [(element, pooled), (codes, pooled)]
        case "MaxUnpool" | "MaxUnpoolIndices":
            return [(element, dims[:2] + _unpooled(dims[2:], options))]
    plane: Dims = [dims[0], *options["size"]]
    return [(TensorProto.UINT8, plane), (TensorProto.FLOAT, plane)]


def _pooled(plane: Dims, options: dict[str, Any]) -> Dims:
    window = Window.of(options)
    return [window.pooled_side(axis, side) if isinstance(side, int) else None for axis, side in enumerate(plane)]


def _unpooled(plane: Dims, options: dict[str, Any]) -> Dims:
    if options.get("output_size"):
        return list(options["output_size"])
    window = Window.of(options)
    return [window.unpooled_side(axis, side) if isinstance(side, int) else None for axis, side in enumerate(plane)]
