"""Writing explicit QuantizeLinear / DequantizeLinear into a prepared graph, as a profile places them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from calibration.errors import CalibrationError
from calibration.graph import graph_sha256, index, set_attribute, tensor_names, unique_name
from calibration.placement import Placement, Weight, place
from calibration.profiles import Profile, resolve
from calibration.ranges import Ranges

_SMALLEST_SCALE = 1e-9  # keeps scale_x * scale_w a normal float32
_BIAS_LIMIT = float(2**30)  # of int32's 2**31: the accumulator adds to it


@dataclass(frozen=True)
class Scale:
    """Affine code of one activation: real = (code - zero_point) * scale."""

    scale: np.float32
    zero_point: np.ndarray


def quantize(model: ModelProto, ranges: Ranges, profile: str | Profile = "x86", skip: Collection[str] = ()) -> ModelProto:
    """The INT8 graph: ``model`` with Q/DQ pairs around what ``profile`` runs in INT8.

    Args:
        model: a prepared graph; left as it is.
        ranges: measured on that very graph.
        profile: one of :data:`calibration.profiles.PROFILES`.
        skip: names of nodes to keep in float besides ``ranges.float_nodes``.

    Raises:
        CalibrationError: ranges of another graph, a tensor without a range, an unknown node or profile.
    """
    rules = resolve(profile)
    ranges.check_graph(graph_sha256(model))
    skipped = [*ranges.float_nodes, *skip]
    _check_names(model, skipped)
    quantised = ModelProto()
    quantised.CopyFrom(model)
    placement = place(quantised, rules, skipped)
    _Writer(quantised, placement, _scales(placement, ranges, rules), rules).write()
    helper.set_model_props(quantised, {"calibration.profile": rules.name, "calibration.method": ranges.method})
    return quantised


def _check_names(model: ModelProto, names: Collection[str]) -> None:
    known = {node.name for node in model.graph.node}
    if unknown := [name for name in names if name not in known]:
        raise CalibrationError(f"node {unknown[0]!r} to keep in float is not in the graph", "names of the prepared graph's nodes")


def activation_scale(low: float, high: float, unsigned: bool, symmetric: bool) -> Scale:
    """Scale and zero point of a range; zero is always a code, and the scale never 0 or infinite."""
    low, high = min(low, 0.0), max(high, 0.0)
    if not symmetric:
        scale = np.float32(max((high - low) / 255.0, _SMALLEST_SCALE))
        zero_point = int(np.clip(round(-low / float(scale)), 0, 255))
        return Scale(scale, np.array(zero_point, np.uint8) if unsigned else np.array(zero_point - 128, np.int8))
    return Scale(np.float32(max(max(-low, high) / 127.0, _SMALLEST_SCALE)), np.array(0, np.int8))


def _scales(placement: Placement, ranges: Ranges, profile: Profile) -> dict[str, Scale]:
    """Scale of each group: it spans the ranges of all its tensors."""
    spans: dict[str, tuple[float, float]] = {}
    for tensor, group in placement.groups.items():
        if tensor not in ranges.tensors:
            raise CalibrationError(f"tensor {tensor!r} has no range", "ranges of every quantised tensor", "calibrate again")
        low, high = ranges.tensors[tensor]
        if group in spans:
            low, high = min(low, spans[group][0]), max(high, spans[group][1])
        spans[group] = low, high
    return {group: activation_scale(low, high, profile.unsigned, profile.symmetric) for group, (low, high) in spans.items()}


def weight_scales(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """Symmetric int8 scales, float32: (channels,) along ``axis``, or () for one scale. All-zero channels get 1/127."""
    axes = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=axes).astype(np.float64)
    largest = np.where(largest > 127 * _SMALLEST_SCALE, largest, 1.0)
    return np.asarray(largest / 127.0, np.float32)


class _Writer:
    def __init__(self, model: ModelProto, placement: Placement, scales: dict[str, Scale], profile: Profile) -> None:
        self.graph, self.placement, self.scales, self.profile = model.graph, placement, scales, profile
        self.known = index(model.graph)
        self.taken = tensor_names(model.graph)
        self.before: dict[int, list[NodeProto]] = {}
        self.after: dict[str, list[NodeProto]] = {}
        self.group_names: dict[str, tuple[str, str]] = {}

    def write(self) -> None:
        for weight in self.placement.weights:
            self._write_weight(weight)
        for tensor, group in self.placement.groups.items():
            self._write_activation(tensor, group)
        self._rebuild()

    def _constant(self, name: str, value: np.ndarray | np.floating) -> str:
        name = unique_name(name, self.taken)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _write_activation(self, tensor: str, group: str) -> None:
        """tensor -> Q -> DQ -> everyone who read it; a graph output keeps its name behind the DQ."""
        if group not in self.group_names:
            scale = self.scales[group]
            self.group_names[group] = (
                self._constant(f"{group}_scale", scale.scale),
                self._constant(f"{group}_zero_point", scale.zero_point),
            )
        parameters = self.group_names[group]
        codes = unique_name(f"{tensor}_quantized", self.taken)
        if tensor in self.known.outputs:
            raw, result = unique_name(f"{tensor}_float", self.taken), tensor
            producer = self.known.producer[tensor]
            producer.output[list(producer.output).index(tensor)] = raw
        else:
            raw, result = tensor, unique_name(f"{tensor}_dequantized", self.taken)
        for node, position in self.known.users(tensor):
            node.input[position] = result
        self.after[raw] = [
            helper.make_node("QuantizeLinear", [raw, *parameters], [codes], f"{tensor}_QuantizeLinear"),
            helper.make_node("DequantizeLinear", [codes, *parameters], [result], f"{tensor}_DequantizeLinear"),
        ]

    def _write_weight(self, weight: Weight) -> None:
        node, name = weight.node, weight.node.input[weight.place]
        values = numpy_helper.to_array(self.known.initializers[name]).astype(np.float32)
        scales = weight_scales(values, weight.axis)
        bias = self._int32_bias(node, weight)
        if bias is not None:
            scales = self._widen_for_bias(scales, bias, node)
        shape = [1] * values.ndim
        if scales.ndim:
            shape[weight.axis or 0] = -1
        codes = np.clip(np.rint(values / scales.reshape(shape)), -127, 127).astype(np.int8)
        node.input[weight.place] = self._dequantised(node, name, codes, scales, weight.axis)
        if bias is not None:
            step = np.asarray(self._input_scale(node) * scales, np.float32)
            codes = np.rint(bias / np.broadcast_to(step.astype(np.float64), bias.shape)).astype(np.int32)
            node.input[2] = self._dequantised(node, node.input[2], codes, step, 0 if step.ndim else None)

    def _dequantised(self, node: NodeProto, name: str, codes: np.ndarray, scales: np.ndarray, axis: int | None) -> str:
        result = unique_name(f"{name}_dequantized", self.taken)
        inputs = [
            self._constant(f"{name}_quantized", codes),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(scales.shape, codes.dtype)),
        ]
        made = helper.make_node("DequantizeLinear", inputs, [result], f"{result}_DequantizeLinear")
        if axis is not None:
            set_attribute(made, "axis", axis)
        self.before.setdefault(id(node), []).append(made)
        return result

    def _input_scale(self, node: NodeProto) -> np.float32:
        return self.scales[self.placement.groups[self.placement.source[node.input[0]]]].scale

    def _int32_bias(self, node: NodeProto, weight: Weight) -> np.ndarray | None:
        if not self.profile.int32_bias or weight.place != 1 or len(node.input) < 3 or node.op_type == "MatMul":
            return None
        tensor = self.known.initializers.get(node.input[2])
        per_channel = tensor is not None and len(tensor.dims) == 1
        return numpy_helper.to_array(tensor).astype(np.float64) if tensor is not None and per_channel else None

    def _widen_for_bias(self, scales: np.ndarray, bias: np.ndarray, node: NodeProto) -> np.ndarray:
        """A channel of tiny weights and large bias needs a larger weight scale: its bias must fit int32."""
        needed = np.abs(bias) / (float(self._input_scale(node)) * _BIAS_LIMIT)
        return np.maximum(scales, needed if scales.ndim else needed.max()).astype(np.float32)

    def _rebuild(self) -> None:
        nodes: list[NodeProto] = []
        for value in self.graph.input:
            nodes += self.after.get(value.name, [])
        for node in self.graph.node:
            nodes += self.before.get(id(node), [])
            nodes.append(node)
            for name in node.output:
                nodes += self.after.get(name, [])
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | set(self.known.pinned)
        for tensor in [t for t in self.graph.initializer if t.name not in used]:
            self.graph.initializer.remove(tensor)
