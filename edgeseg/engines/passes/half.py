"""FP16 as a rewrite of the graph, for engines that compute in the types the graph says.

Weights and activations become FP16; the network's inputs and outputs stay float32 behind one Cast each, and so does what
``half_rules`` names. In an INT8 graph the type of a scale says what DequantizeLinear gives (opset 19), so what is not
quantised becomes FP16 through FP16 scales.

Why not ``onnxruntime.transformers.float16`` (onnxconverter-common's, grown on; tried with 1.31): it takes a whole node or
none, so that our RoIAlign gets FP16 boxes with its FP16 features; it writes FP16 scales into opset 17, whose QuantizeLinear
has none, and leaves the codes as they were; it puts its Casts behind their readers, which ONNX's checker refuses; and what
of coordinates, sums and epsilons must stay float32 it would have to be told node by node.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.fold import constants_to_initializers
from calibration.graph import (
    attributes,
    element_types,
    index,
    opset,
    remove_dead,
    set_attribute,
    tensor_names,
    unique_name,
)
from calibration.prepare import remove_identities
from edgeseg.engines.passes.half_rules import LARGEST, SMALLEST, keep, key
from edgeseg.engines.passes.opset import raise_opset
from edgeseg.errors import OnnxError
from edgeseg.ops.functions import DOMAIN, infer

log = logging.getLogger("edgeseg.engines")

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_SCALED_BY_HALF = 19  # the opset since which scales may be FP16
_QDQ = ("QuantizeLinear", "DequantizeLinear")
# Our operators' inputs and outputs that are float32 whatever the rest is.
_FLOAT_INPUTS = {f"{DOMAIN}::RoIAlign": (0,)}
_FLOAT_OUTPUTS = {f"{DOMAIN}::UpsampleArgmax": (1,)}


@dataclass
class Half:
    """An FP16 graph and what became of the numbers that FP16 has not.

    Attributes:
        kept: node name -> why it stays float32.
        large: weight -> values beyond 65504; the nodes that read it stay float32.
        flushed: weight -> (values other than 0 that became 0, values).
    """

    model: ModelProto
    kept: dict[str, str] = field(default_factory=dict)
    large: dict[str, int] = field(default_factory=dict)
    flushed: dict[str, tuple[int, int]] = field(default_factory=dict)


def halve(model: ModelProto) -> Half:
    """``model``, which holds no functions, in FP16; the model itself is left as it is."""
    copy = ModelProto()
    copy.CopyFrom(_with_half_scales(model))
    constants_to_initializers(copy.graph)
    return _Halver(copy).run()


def _with_half_scales(model: ModelProto) -> ModelProto:
    if not any(node.op_type in _QDQ for node in model.graph.node):
        return model
    try:
        return raise_opset(model, _SCALED_BY_HALF)
    except OnnxError as error:
        log.warning("%s; scales stay float32, behind a Cast each", error)
        return model


class _Halver:
    def __init__(self, model: ModelProto) -> None:
        self.graph, self.version = model.graph, opset(model)
        self.types = element_types(infer(model).graph)
        self.known = index(model.graph)
        self.taken = tensor_names(model.graph)
        self.rules = keep(model, self.types)
        self.result = Half(model, large=self.rules.large)
        self.now = {value.name: self.types[value.name] for value in model.graph.input}  # tensor -> its type in the new graph
        self.renamed: dict[str, str] = {}  # FP16 tensor that had to leave its name to a float32 one
        self.casts: dict[tuple[str, int], str] = {}
        self.recoded: dict[tuple[str, str], str] = {}
        self.nodes: list[NodeProto] = []

    def run(self) -> Half:
        for node in self.graph.node:
            self._rewrite(node)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        del self.graph.value_info[:]
        self.result.model.CopyFrom(infer(self.result.model))
        remove_identities(self.result.model.graph)  # the graph's own Casts between types that became one
        remove_dead(self.result.model.graph)
        return self.result

    def _rewrite(self, node: NodeProto) -> None:
        half = self._becomes_half(node)
        if not half and id(node) in self.rules.nodes:
            self.result.kept[node.name or node.output[0]] = self.rules.nodes[id(node)]
        made = NodeProto()
        made.CopyFrom(node)
        if node.op_type in _QDQ and self.version >= _SCALED_BY_HALF and self.known.is_constant(node.input[1]):
            self._rescale(made, half)
        else:
            for place, name in enumerate(node.input):
                if self.types.get(name) == FLOAT:
                    made.input[place] = self._as(name, HALF if half and self._takes_half(node, place) else FLOAT, node)
        if node.op_type == "Cast" and half and attributes(node)["to"] == FLOAT:
            set_attribute(made, "to", HALF)
        self._emit(node, made, half)

    def _emit(self, node: NodeProto, made: NodeProto, half: bool) -> None:
        """Append the node; a float32 name that others rely on is kept by a Cast behind it."""
        after = []
        for place, name in enumerate(node.output):
            halved = half and self.types.get(name) == FLOAT and self._gives_half(node, place)
            self.now[name] = HALF if halved else self.types.get(name, TensorProto.UNDEFINED)
            if halved and name in self.known.pinned:
                self.renamed[name] = made.output[place] = unique_name(f"{name}_half", self.taken)
                self.casts[name, FLOAT] = name
                after.append(helper.make_node("Cast", [made.output[place]], [name], f"{name}_to_float", to=FLOAT))
        self.nodes += [made, *after]

    def _as(self, name: str, kind: int, reader: NodeProto) -> str:
        """The tensor ``name`` in that type: itself, a converted constant, or a Cast that all readers share."""
        if self.known.is_constant(name):
            return name if kind == FLOAT else self._half_constant(name, reader)
        if self.now[name] == kind:
            return self.renamed.get(name, name)
        if (name, kind) not in self.casts:
            made = unique_name(f"{name}_{'half' if kind == HALF else 'float'}", self.taken)
            source = self.renamed.get(name, name)
            self.nodes.append(helper.make_node("Cast", [source], [made], f"{made}_cast", to=kind))
            self.casts[name, kind] = made
        return self.casts[name, kind]

    def _half_constant(self, name: str, reader: NodeProto) -> str:
        if (name, HALF) not in self.casts:
            values = numpy_helper.to_array(self.known.initializers[name])
            # Only Clip's bounds come here beyond the range; there the end of the range is as good.
            clipped = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
            halved = clipped.astype(np.float16)
            if count := int(((halved == 0) & (values != 0)).sum()):
                self.result.flushed[name] = count, values.size
            self.casts[name, HALF] = self._constant(f"{name}_half", halved)
        return self.casts[name, HALF]

    def _constant(self, wanted: str, values: np.ndarray) -> str:
        name = unique_name(wanted, self.taken)
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    # --- what a node takes and gives ---------------------------------------------------------------------------------

    def _becomes_half(self, node: NodeProto) -> bool:
        if id(node) in self.rules.nodes:
            return False
        if node.op_type == "QuantizeLinear":  # as its input, so that no Cast stands before it
            return self.now.get(node.input[0]) == HALF
        if node.op_type == "DequantizeLinear":  # as its readers
            users = self.known.users(node.output[0])
            return any(id(user) not in self.rules.nodes and self._takes_half(user, place) for user, place in users)
        return any(self.types.get(name) == FLOAT for name in [*node.input, *node.output])

    def _takes_half(self, node: NodeProto, place: int) -> bool:
        if node.domain == DOMAIN:
            return place not in _FLOAT_INPUTS.get(key(node), ())
        schema = onnx.defs.get_schema(node.op_type, self.version, "")
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        return "tensor(float16)" in formal.types

    def _gives_half(self, node: NodeProto, place: int) -> bool:
        if node.domain == DOMAIN:
            return place not in _FLOAT_OUTPUTS.get(key(node), ())
        schema = onnx.defs.get_schema(node.op_type, self.version, "")
        return "tensor(float16)" in schema.outputs[min(place, len(schema.outputs) - 1)].types

    # --- scales ------------------------------------------------------------------------------------------------------

    def _rescale(self, made: NodeProto, half: bool) -> None:
        """Give a Q or DQ the scale rounded up to FP16, in the node's type; weights are coded again for it."""
        name, data = made.input[1], made.input[0]
        scale = numpy_helper.to_array(self.known.initializers[name]).astype(np.float32)
        rounded = round_up(scale)
        if made.op_type == "QuantizeLinear":
            made.input[0] = self._as(data, HALF if half else FLOAT, made)
        elif self.known.is_constant(data) and self.types[data] == TensorProto.INT8:
            made.input[0] = self._recode(data, name, scale, rounded, attributes(made).get("axis", 1))
        elif self.types.get(data) == TensorProto.INT32:
            return
        suffix, kind = ("half", np.float16) if half else ("rounded", np.float32)
        if (f"{name}_{suffix}", HALF) not in self.casts:
            self.casts[f"{name}_{suffix}", HALF] = self._constant(f"{name}_{suffix}", rounded.astype(kind))
        made.input[1] = self.casts[f"{name}_{suffix}", HALF]

    def _recode(self, data: str, scale_name: str, scale: np.ndarray, rounded: np.ndarray, axis: int) -> str:
        if (data, scale_name) not in self.recoded:
            codes = numpy_helper.to_array(self.known.initializers[data])
            ratio = scale / rounded
            if ratio.ndim:
                ratio = ratio.reshape([-1 if dim == axis % codes.ndim else 1 for dim in range(codes.ndim)])
            fresh = np.rint(codes * ratio).astype(np.int8)
            self.recoded[data, scale_name] = data if np.array_equal(fresh, codes) else self._constant(f"{data}_half", fresh)
        return self.recoded[data, scale_name]


def round_up(scale: np.ndarray) -> np.ndarray:
    """Positive float32 scales rounded up to values of FP16 (so that no code grows), as float32; at least 2**-24."""
    nearest = np.asarray(np.clip(scale, SMALLEST, LARGEST).astype(np.float16))
    short = (nearest.astype(np.float32) < scale) & (nearest < LARGEST)
    nearest[short] = np.nextafter(nearest[short], np.float16(np.inf))
    return nearest.astype(np.float32)
