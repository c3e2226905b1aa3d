"""The canonical float graph that calibration observes and quantisation rewrites."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
from onnx import GraphProto, ModelProto, NodeProto, inliner

from calibration.batchnorm import fold_batchnorm
from calibration.errors import CalibrationError
from calibration.fold import fold_constants, infer_shapes
from calibration.graph import STANDARD_DOMAINS, attributes, index, nested_graphs, opset, remove_dead, rename_reads, unique_name

MIN_OPSET, MAX_OPSET = 13, 21  # per-channel DequantizeLinear came with 13; the runtimes we write for read up to 21
_QUANTISED_OPS = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"}


def prepare(model: ModelProto, keep_domains: Collection[str] = ()) -> ModelProto:
    """The float graph in the one form the rest of this package works on; ``model`` is left as it is.

    Functions inlined (those of ``keep_domains`` stay whole), opset 13 to 21, initialisers no longer inputs, weights
    stored in FP16 made float32, constants and BatchNormalization folded, Identity and Dropout gone, dead nodes gone,
    every node named, shapes inferred. Tensor names are kept. The same bytes in give the same
    :func:`calibration.graph_sha256` out.

    Raises:
        CalibrationError: the model is quantised already, invalid, or of an opset that cannot be converted.
    """
    prepared = _checked_copy(model)
    prepared = _inline(prepared, keep_domains)
    _drop_initializer_inputs(prepared)
    prepared = _convert_opset(prepared)
    _strip_notes(prepared)
    try:
        fold_constants(prepared)
        remove_identities(prepared.graph)
        fold_batchnorm(prepared.graph)
        remove_dead(prepared.graph)
        _name_nodes(prepared.graph)
        infer_shapes(prepared)
    except onnx.shape_inference.InferenceError as error:
        raise CalibrationError(f"the graph's shapes do not fit together: {_first_line(error)}", "a valid ONNX model") from error
    return prepared


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _checked_copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    bodies = [copy.graph.node, *[function.node for function in copy.functions]]
    found = next((node for body in bodies for node in body if node.op_type in _QUANTISED_OPS), None)
    if found is not None:
        raise CalibrationError(
            f"node {found.name or found.output[0]!r} is a {found.op_type}: the model is quantised already",
            "a float model",
            "give the float graph it was made from",
        )
    return copy


def _inline(model: ModelProto, keep_domains: Collection[str]) -> ModelProto:
    kept = [(function.domain, function.name) for function in model.functions if function.domain in keep_domains]
    if not kept:
        return inliner.inline_local_functions(model) if model.functions else model
    if len(kept) < len(model.functions):
        return inliner.inline_selected_functions(model, kept, exclude=True)
    return model


def _drop_initializer_inputs(model: ModelProto) -> None:
    names = {tensor.name for tensor in model.graph.initializer}
    for value in [v for v in model.graph.input if v.name in names]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, 8)


def _convert_opset(model: ModelProto) -> ModelProto:
    version = opset(model)
    target = min(max(version, MIN_OPSET), MAX_OPSET)
    if version == target:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, target)
        if not converted.functions:
            converted.functions.extend(model.functions)
        return converted
    except Exception as error:  # the converter raises RuntimeError and ConvertError alike, both from C++
        raise CalibrationError(
            f"opset {version} could not be converted to {target}: {_first_line(error)}",
            f"a model of opset {MIN_OPSET} to {MAX_OPSET}",
            f"export it with opset {target}",
        ) from error


def _strip_notes(model: ModelProto) -> None:
    """Documentation and metadata: they may hold paths and times, and say nothing of what is computed."""
    model.doc_string = ""
    del model.metadata_props[:]
    _strip_graph(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)


def _strip_graph(graph: GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in [*graph.initializer, *graph.input, *graph.output]:
        item.doc_string = ""
        del item.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
        for nested in nested_graphs(node):
            _strip_graph(nested)


def _is_identity(node: onnx.NodeProto, element_type: dict[str, int]) -> bool:
    if node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":  # inference: the mask output is not read, training_mode absent or false
        return len([name for name in node.output if name]) == 1 and len(node.input) < 3
    return node.op_type == "Cast" and element_type.get(node.input[0]) == attributes(node)["to"]


def remove_identities(graph: GraphProto) -> None:
    """Remove, in place, what gives its input back: Identity, Dropout, and Cast to the type that ``value_info`` says it has."""
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input]}
    for node in [n for n in graph.node if _is_identity(n, types)]:
        known = index(graph)
        source, result = node.input[0], node.output[0]
        if result not in known.pinned:
            rename_reads(graph, {result: source})
        elif source in known.producer and source not in known.pinned:
            # The graph's output keeps its name: its producer writes it directly.
            producer = known.producer[source]
            producer.output[list(producer.output).index(source)] = result
            rename_reads(graph, {source: result})
        else:
            continue
        graph.node.remove(node)


def _name_nodes(graph: GraphProto) -> None:
    taken: set[str] = set()
    for position, node in enumerate(graph.node):
        node.name = unique_name(node.name or f"{node.op_type}_{position}", taken)
