"""Is this a graph that a runtime can take? Opsets, operators, names, order and declared sizes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from edgeseg.errors import OnnxError

LIMIT_BYTES = 8 << 30
"""The largest tensor, and the largest sum of external weights, that is taken."""

OLDEST_OPSET = 7
_STANDARD = {"", "ai.onnx"}
# Operators of ONNX Runtime's own: it alone knows their schemas, and says so itself when it cannot run them.
_FOREIGN = {"com.microsoft"}
_EXPLICIT = "export the model with standard operators"


def node_label(node: NodeProto) -> str:
    """How messages name a node: operator, its name, else its first output."""
    return (
        f"node {node.name or (node.output[0] if node.output else '?')!r} ({node.domain + '.' if node.domain else ''}{node.op_type})"
    )


def check_structure(model: ModelProto) -> None:
    """Check opsets, operators, names and sizes; put the main graph's nodes in topological order.

    Raises:
        OnnxError: names the node, tensor or opset at fault.
    """
    versions = check_opsets(model)
    functions = {(function.domain, function.name) for function in model.functions}
    for node in _all_nodes(model.graph):
        _check_operator(node, versions, functions)
    _check_functions(model, functions)
    _check_graph(model.graph, set())
    _check_declared_sizes(model)


def check_opsets(model: ModelProto) -> dict[str, int]:
    """Version of each imported domain ("" is ONNX).

    Raises:
        OnnxError: a domain twice, or an ONNX opset outside 7 .. the newest known.
    """
    versions: dict[str, int] = {}
    for item in model.opset_import:
        domain = "" if item.domain in _STANDARD else item.domain
        if versions.setdefault(domain, item.version) != item.version:
            raise OnnxError(
                f"opset_import lists domain {domain!r} as {versions[domain]} and {item.version}", "one version for each domain"
            )
    newest, found = onnx.defs.onnx_opset_version(), versions.get("")
    if found is None or not OLDEST_OPSET <= found <= newest:
        raise OnnxError(f"opset {found}", f"an ONNX opset from {OLDEST_OPSET} to {newest}", "export it again with opset 17")
    return versions


def _check_operator(node: NodeProto, versions: dict[str, int], functions: set[tuple[str, str]]) -> None:
    domain = "" if node.domain in _STANDARD else node.domain
    if domain not in versions:
        raise OnnxError(f"{node_label(node)}: domain {domain!r} is not imported", "an opset_import for it", _EXPLICIT)
    if (node.domain, node.op_type) in functions or domain in _FOREIGN:
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, versions[domain], domain)
    except onnx.defs.SchemaError as error:
        where = f"opset {versions[domain]}" if not domain else f"domain {domain!r}"
        raise OnnxError(f"{node_label(node)}: unknown operator", f"an operator of {where}", _EXPLICIT) from error
    if schema.deprecated:
        raise OnnxError(f"{node_label(node)}: removed from opset {versions[domain]}", "an operator of that opset", _EXPLICIT)
    if (
        not schema.min_input <= len(node.input) <= schema.max_input
        or not schema.min_output <= len(node.output) <= schema.max_output
    ):
        raise OnnxError(
            f"{node_label(node)}: {len(node.input)} inputs and {len(node.output)} outputs",
            f"{schema.min_input}..{schema.max_input} inputs and {schema.min_output}..{schema.max_output} outputs",
        )


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    found = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found + [graph for attribute in node.attribute for graph in attribute.graphs]


def _all_nodes(graph: GraphProto) -> Iterable[NodeProto]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _all_nodes(inner)


def _check_functions(model: ModelProto, functions: set[tuple[str, str]]) -> None:
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for function in model.functions:
        key = (function.domain, function.name)
        if key in calls:
            raise OnnxError(f"function {function.domain}.{function.name} is defined twice", "one definition")
        versions = {"" if item.domain in _STANDARD else item.domain: item.version for item in function.opset_import}
        for node in function.node:
            _check_operator(node, versions, functions)
        calls[key] = {(node.domain, node.op_type) for node in function.node} & functions
    while calls:
        ends = [key for key, called in calls.items() if not called & calls.keys()]
        if not ends:
            domain, name = min(calls)
            raise OnnxError(f"function {domain}.{name} calls itself", "functions without recursion")
        for key in ends:
            del calls[key]


# --- names and order ---------------------------------------------------------------------------------------------


def _check_graph(graph: GraphProto, outer: set[str]) -> None:
    _check_duplicates(graph)
    known = outer | {item.name for item in graph.input} | {item.name for item in graph.initializer}
    known |= {item.values.name for item in graph.sparse_initializer}
    order = sort_nodes(graph.node, known)
    if order != list(range(len(graph.node))):
        nodes = [graph.node[index] for index in order]
        del graph.node[:]
        graph.node.extend(nodes)
    made = known | {name for node in graph.node for name in node.output}
    for output in graph.output:
        if output.name not in made:
            raise OnnxError(f"graph output {output.name!r} is made by no node", "an output of some node")
    for node in graph.node:
        for inner in _subgraphs(node):
            _check_graph(inner, made)


def _check_duplicates(graph: GraphProto) -> None:
    _refuse_repeated([item.name for item in graph.input], "graph input")
    _refuse_repeated([item.name for item in graph.output], "graph output")
    weights = [item.name for item in graph.initializer]
    _refuse_repeated(weights, "initialiser")
    makers = dict.fromkeys([*weights, *(item.name for item in graph.input)], "an input or initialiser of that name exists")
    for node in graph.node:
        for name in filter(None, node.output):
            if name in makers:
                raise OnnxError(f"{node_label(node)}: output {name!r} is made twice ({makers[name]})", "one maker for each tensor")
            makers[name] = node_label(node)


def _refuse_repeated(names: Sequence[str], kind: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen or not name:
            raise OnnxError(f"{kind} {name!r} {'appears twice' if name else 'has no name'}", "one distinct name each")
        seen.add(name)


def _needs(node: NodeProto) -> set[str]:
    """Names a node reads, those that its subgraphs take from outside included."""
    names = {name for name in node.input if name}
    for graph in _subgraphs(node):
        inner: set[str] = set().union(*(_needs(item) for item in graph.node)) if graph.node else set()
        inner |= {item.name for item in graph.output}
        own = {item.name for item in graph.input} | {item.name for item in graph.initializer}
        names |= inner - own - {name for item in graph.node for name in item.output}
    return names


def sort_nodes(nodes: Sequence[NodeProto], known: set[str]) -> list[int]:
    """Stable topological order of ``nodes`` as indices.

    Raises:
        OnnxError: names a node of a cycle, or one that reads a tensor nobody makes.
    """
    needs = [_needs(node) for node in nodes]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waits_for: list[set[int]] = []
    for node, names in zip(nodes, needs, strict=True):
        for name in sorted(names - known):
            if name not in maker:
                raise OnnxError(f"{node_label(node)}: input {name!r} is made by no node", "an output of some node or a graph input")
        waits_for.append({maker[name] for name in names - known})
    order = _topological(waits_for)
    if len(order) < len(nodes):
        raise OnnxError(
            f"{node_label(nodes[_in_cycle(waits_for, set(order))])}: its input depends on its own output", "a graph without cycles"
        )
    return order


def _topological(waits_for: list[set[int]]) -> list[int]:
    """Kahn's algorithm; the lowest index first, so that a sorted list stays as it is. Members of cycles are left out."""
    readers: list[list[int]] = [[] for _ in waits_for]
    for index, makers in enumerate(waits_for):
        for maker in makers:
            readers[maker].append(index)
    open_inputs = [len(makers) for makers in waits_for]
    ready = [index for index, count in enumerate(open_inputs) if count == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            open_inputs[reader] -= 1
            if open_inputs[reader] == 0:
                heapq.heappush(ready, reader)
    return order


def _in_cycle(waits_for: list[set[int]], done: set[int]) -> int:
    """A node that lies on a cycle: going upstream among nodes that never got ready must come back to one."""
    index, seen = next(index for index in range(len(waits_for)) if index not in done), set()
    while index not in seen:
        seen.add(index)
        index = min(waits_for[index] - done)
    return index


# --- declared sizes ----------------------------------------------------------------------------------------------


def _check_declared_sizes(model: ModelProto) -> None:
    inferred = infer_shapes(model)
    for item in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        _check_value(item)


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with inferred shapes where ONNX can infer them, else as it is."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model  # larger than a protobuf, or foreign operators: the runtime decides


def dimensions(value: ValueInfoProto) -> list[int | str | None] | None:
    """Dims of a tensor value: a number, a symbol, or None if unknown; None if even the rank is unknown."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return [_dimension(dim) for dim in kind.shape.dim]


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _check_value(item: ValueInfoProto) -> None:
    size = 1
    for dim in dimensions(item) or []:
        if isinstance(dim, int) and dim < -1:
            raise OnnxError(f"tensor {item.name!r} has dimension {dim}", "a dimension of 0 or more")
        size *= max(dim, 1) if isinstance(dim, int) else 1
    if size > LIMIT_BYTES:
        raise OnnxError(f"tensor {item.name!r} declares {size} values", f"at most {LIMIT_BYTES}", "export it for a smaller input")
