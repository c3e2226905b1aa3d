"""A read-only index over an ONNX graph (who makes, who reads a tensor) and the few edits that every pass needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

STANDARD_DOMAINS = ("", "ai.onnx")


def operator(node: NodeProto) -> str:
    """The name of a node's operator in tables: ``Conv``, ``domain::Name``, and ``MaxPool/Indices`` where those are asked for.

    ``Name_2``, as a function of another configuration is named, is ``Name``.
    """
    if node.domain not in STANDARD_DOMAINS:
        return f"{node.domain}::{re.sub(r'_[0-9]+$', '', node.op_type)}"
    indices = node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1] != ""
    return "MaxPool/Indices" if indices else node.op_type


@dataclass
class Index:
    """Producers and consumers of every tensor of one graph, as they were when :func:`index` ran.

    ``pinned`` holds the tensors that must keep their name and value: graph outputs and what nested graphs read.
    """

    producer: dict[str, NodeProto]
    consumers: dict[str, list[tuple[NodeProto, int]]]
    initializers: dict[str, TensorProto]
    inputs: list[str]
    outputs: list[str]
    pinned: set[str]
    order: dict[str, int]

    def users(self, tensor: str) -> list[tuple[NodeProto, int]]:
        """(node, input position) of every reader in this graph, nested graphs left out."""
        return self.consumers.get(tensor, [])

    def only_user(self, tensor: str) -> NodeProto | None:
        """The single node that reads ``tensor``; None where there are more, or something else depends on it."""
        users = self.users(tensor)
        return users[0][0] if len(users) == 1 and tensor not in self.pinned else None

    def is_only_user(self, tensor: str, node: NodeProto) -> bool:
        """Whether ``node`` is the single reader of ``tensor``."""
        return self.only_user(tensor) is node

    def is_constant(self, tensor: str) -> bool:
        return tensor in self.initializers


def index(graph: GraphProto) -> Index:
    """Index ``graph``; one pass."""
    consumers: dict[str, list[tuple[NodeProto, int]]] = {}
    producer: dict[str, NodeProto] = {}
    order: dict[str, int] = {}
    outputs = [value.name for value in graph.output]
    pinned = set(outputs)
    for position, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name:
                consumers.setdefault(name, []).append((node, place))
        for name in node.output:
            if name:
                producer[name] = node
                order[name] = position
        for nested in nested_graphs(node):
            pinned |= _names_read(nested)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in initializers]
    return Index(producer, consumers, initializers, inputs, outputs, pinned, order)


def nested_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs a control-flow node carries as attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _names_read(graph: GraphProto) -> set[str]:
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(name for name in node.input if name)
        for nested in nested_graphs(node):
            names |= _names_read(nested)
    return names


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes as Python values; strings decoded."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Set one attribute, replacing what stood there."""
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def rename_reads(graph: GraphProto, renames: dict[str, str]) -> None:
    """Make every reader in ``graph`` read ``renames[name]`` where it read ``name``; chains are followed."""

    def final(name: str) -> str:
        while name in renames:
            name = renames[name]
        return name

    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in renames:
                node.input[place] = final(name)


def forget_types(graph: GraphProto, names: Collection[str]) -> None:
    """Remove, in place, what ``value_info`` says of the named tensors."""
    kept = [value for value in graph.value_info if value.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def remove_dead(graph: GraphProto) -> None:
    """Remove, in place, the nodes and initialisers that no output depends on."""
    while True:
        known = index(graph)
        alive = known.pinned | set(known.consumers)
        dead = [node for node in graph.node if not alive.intersection(node.output)]
        for node in dead:
            graph.node.remove(node)
        if not dead:
            break
    for tensor in [t for t in graph.initializer if t.name not in alive]:
        graph.initializer.remove(tensor)


def unique_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with the first free ``_2``, ``_3``...; the answer is added to ``taken``."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def tensor_names(graph: GraphProto) -> set[str]:
    """Every tensor name in use at the top level of ``graph``."""
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    for node in graph.node:
        names.update(node.output)
    return names


def element_types(graph: GraphProto) -> dict[str, int]:
    """TensorProto element type of every tensor whose type is known."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        types[value.name] = value.type.tensor_type.elem_type
    return types


def static_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors whose every dimension is a known number."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def ranks(graph: GraphProto) -> dict[str, int]:
    """Number of dimensions of every tensor whose rank is known."""
    known = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        if value.type.tensor_type.HasField("shape"):
            known[value.name] = len(value.type.tensor_type.shape.dim)
    return known


def opset(model: ModelProto) -> int:
    """Version of the standard operator set."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=0)


def _text(digest: hashlib._Hash, *parts: object) -> None:
    for part in parts:
        digest.update(str(part).encode() + b"\0")


def _hash_value(digest: hashlib._Hash, value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    _text(digest, "value", value.name, tensor.elem_type)
    _text(digest, *(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim))


def _hash_node(digest: hashlib._Hash, node: NodeProto) -> None:
    _text(digest, "node", node.domain, node.op_type, *node.input, "->", *node.output)
    for attribute in sorted(node.attribute, key=lambda a: a.name):
        digest.update(attribute.SerializeToString(deterministic=True))


def _hash_function(digest: hashlib._Hash, function: FunctionProto) -> None:
    _text(digest, "function", function.domain, function.name, *function.input, "->", *function.output)
    for entry in sorted(function.opset_import, key=lambda o: o.domain):
        _text(digest, "opset", entry.domain, entry.version)
    _text(digest, *sorted(function.attribute))
    for attribute in sorted(function.attribute_proto, key=lambda a: a.name):
        digest.update(attribute.SerializeToString(deterministic=True))
    for node in function.node:
        _hash_node(digest, node)


def graph_sha256(model: ModelProto) -> str:
    """Hex SHA-256 of what a graph computes: operator sets, nodes, attributes, inputs, outputs, weights and functions.

    Names of the producer, documentation, metadata and inferred shapes do not count, nor does the order or the
    storage (raw or typed fields) of initialisers.
    """
    digest = hashlib.sha256()
    for entry in sorted(model.opset_import, key=lambda o: o.domain):
        _text(digest, "opset", entry.domain, entry.version)
    for value in [*model.graph.input, *model.graph.output]:
        _hash_value(digest, value)
    for node in model.graph.node:
        _hash_node(digest, node)
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        _text(digest, "tensor", tensor.name, tensor.data_type, *tensor.dims)
        digest.update(np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes())
    for function in sorted(model.functions, key=lambda f: (f.domain, f.name)):
        _hash_function(digest, function)
    return digest.hexdigest()
