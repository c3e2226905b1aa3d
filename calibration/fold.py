"""Constant folding: what does not depend on an input becomes an initialiser."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.graph import STANDARD_DOMAINS, attributes, index, nested_graphs, rename_reads, static_shapes

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "EyeLike", "Pad", "Resize", "Upsample", "OneHot"}
_MAX_GROWN_ELEMENTS = 1 << 20
_ROUNDS = 8


def fold_constants(model: ModelProto) -> None:
    """Fold in place until nothing changes: Constant nodes, Shape of static tensors, and every node over initialisers.

    A weight stored in FP16 behind its own Cast keeps its name and becomes float32. Nodes that would turn a small
    constant into a large one (Expand and the like, over 2**20 elements) stay.
    """
    constants_to_initializers(model.graph)
    for _ in range(_ROUNDS):
        infer_shapes(model)
        changed = _fold_shapes(model.graph)
        changed |= _fold_stored_weights(model.graph)
        changed |= _fold_computed(model)
        if not changed:
            return


def infer_shapes(model: ModelProto) -> None:
    """Replace the inferred shapes of ``model`` in place."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.value_info.extend(inferred.graph.value_info)
    for mine, found in zip(model.graph.output, inferred.graph.output, strict=True):
        mine.type.CopyFrom(found.type)


def constants_to_initializers(graph: GraphProto) -> None:
    """Move the value of every Constant node at the top level into an initialiser of the same name."""
    outputs = {value.name for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "Constant" and n.domain in STANDARD_DOMAINS]:
        tensor = _constant_value(node)
        if tensor is not None and node.output[0] not in outputs:
            graph.initializer.append(tensor)
            graph.node.remove(node)


def _constant_value(node: NodeProto) -> TensorProto | None:
    name, value = next(iter(attributes(node).items()))
    if name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        tensor.doc_string = ""
        return tensor
    dtype = np.float32 if name.startswith("value_float") else np.int64 if name.startswith("value_int") else None
    return None if dtype is None else numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def _fold_shapes(graph: GraphProto) -> bool:
    shapes, folded = static_shapes(graph), []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes and node.output[0] not in outputs:
            shape, options = shapes[node.input[0]], attributes(node)
            part = shape[options.get("start", 0) : options.get("end", len(shape))]
            graph.initializer.append(numpy_helper.from_array(np.asarray(part, np.int64), node.output[0]))
            folded.append(node)
    for node in folded:
        graph.node.remove(node)
    return bool(folded)


def _fold_stored_weights(graph: GraphProto) -> bool:
    """initialiser -> Cast(float): the initialiser itself becomes float32 under its own name."""
    known, renames = index(graph), {}
    for node in list(graph.node):
        if node.op_type != "Cast" or node.output[0] in known.pinned or attributes(node)["to"] != TensorProto.FLOAT:
            continue
        name = node.input[0]
        if name in known.initializers and known.is_only_user(name, node):
            tensor = known.initializers[name]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
            renames[node.output[0]] = name
            graph.node.remove(node)
    rename_reads(graph, renames)
    return bool(renames)


def _foldable(node: NodeProto, constants: set[str], shapes: dict[str, tuple[int, ...]]) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type in _RANDOM or any(True for _ in nested_graphs(node)):
        return False
    if not all(name in constants for name in node.input if name):
        return False
    if node.op_type in _GROWING:
        return all(name in shapes and np.prod(shapes[name]) <= _MAX_GROWN_ELEMENTS for name in node.output if name)
    return True


def _fold_computed(model: ModelProto) -> bool:
    graph = model.graph
    known, shapes = index(graph), static_shapes(graph)
    constants, nodes = set(known.initializers), []
    for node in graph.node:
        if _foldable(node, constants, shapes) and not known.pinned.intersection(node.output):
            nodes.append(node)
            constants.update(name for name in node.output if name)
    made = {name for node in nodes for name in node.output if name}
    chosen = {id(node) for node in nodes}
    wanted = [n for n in made if any(id(user) not in chosen for user, _ in known.users(n))]
    wanted.sort(key=lambda name: known.order[name])
    if wanted:
        for name, value in zip(wanted, _evaluate(model, nodes, wanted), strict=True):
            graph.initializer.append(numpy_helper.from_array(value, name))
    for node in nodes:
        graph.node.remove(node)
    return bool(nodes)


def _evaluate(model: ModelProto, nodes: list[NodeProto], wanted: list[str]) -> list[np.ndarray]:
    used = {name for node in nodes for name in node.input if name}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(nodes, "constants", [], outputs, initializers)
    types = {v.name: v.type for v in model.graph.value_info}
    for value in graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(wanted, {})
