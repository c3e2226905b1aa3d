"""Our plugins read and write 8-bit codes themselves: the Q/DQ pairs around them go.

``DequantizeLinear -> operator -> QuantizeLinear`` of one scale is the operator on codes where it only moves or averages
values. UpsampleArgmax takes codes with their scale as an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calibration.graph import STANDARD_DOMAINS, Index, index, remove_dead, rename_reads, set_attribute
from edgeseg.ops.functions import DOMAIN, base_name

# Operator -> the inputs whose values it moves to its first output.
_MOVED: Mapping[str, slice] = {
    "MaxPoolArgmax": slice(0, 1),
    "MaxUnpool": slice(0, 1),
    "MaxPoolIndices": slice(0, 1),
    "MaxUnpoolIndices": slice(0, 1),
    "RoIAlign": slice(2, None),
}


def absorb(model: ModelProto) -> None:
    """Put our operators on int8 wherever the Q/DQ around them allow it, in place."""
    graph = model.graph
    for node in list(graph.node):
        if node.domain != DOMAIN:
            continue
        known = index(graph)  # absorbing changed who reads what
        if base_name(node.op_type) == "UpsampleArgmax":
            _absorb_logits(node, known)
        elif base_name(node.op_type) in _MOVED:
            _absorb_around(model, node, known)
    del graph.value_info[:]  # some tensors are int8 now
    remove_dead(graph)


def _absorb_logits(node: NodeProto, known: Index) -> None:
    dequantise = known.producer.get(node.input[0])
    scale = _int8_scale(dequantise, known)
    if dequantise is not None and dequantise.op_type == "DequantizeLinear" and scale is not None:
        node.input[0] = dequantise.input[0]
        set_attribute(node, "logit_scale", scale)


def _absorb_around(model: ModelProto, node: NodeProto, known: Index) -> None:
    places = range(len(node.input))[_MOVED[base_name(node.op_type)]]
    sources = [known.producer.get(node.input[place]) for place in places]
    readers = [reader for reader, _ in known.users(node.output[0])]
    scales = {_int8_scale(item, known) for item in [*sources, *readers]}
    if len(scales) != 1 or None in scales or not readers or node.output[0] in known.pinned:
        return
    if any(reader.op_type != "QuantizeLinear" or reader.output[0] in known.pinned for reader in readers):
        return
    producers = [source for source in sources if source is not None and source.op_type == "DequantizeLinear"]
    if len(producers) != len(places):
        return
    for place, source in zip(places, producers, strict=True):
        node.input[place] = source.input[0]
    node.output[0] = readers[0].output[0]
    rename_reads(model.graph, {reader.output[0]: node.output[0] for reader in readers[1:]})
    for reader in readers:
        model.graph.node.remove(reader)  # found by value: outputs make every node another


def _int8_scale(node: NodeProto | None, known: Index) -> float | None:
    """The scale of a Q or DQ between a tensor and int8 codes with one scale and zero point 0, else None."""
    if node is None or node.domain not in STANDARD_DOMAINS or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    scale = known.initializers.get(node.input[1])
    zero = known.initializers.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
        return None
    values = numpy_helper.to_array(scale)
    return float(values.item()) if values.size == 1 else None
