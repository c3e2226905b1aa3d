"""What of a network must stay float32 when the rest becomes FP16, and why.

FP16 has 11 bits and ends at 65504: whole numbers are exact to 2048 only, so coordinates and sizes stay float32, and sums
over many elements, squares and exponentials leave its range, so they stay float32 as well. Both are a small part of the work
of a segmentation network; convolutions, pooling, resizing and pointwise arithmetic are FP16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calibration.graph import STANDARD_DOMAINS, attributes, index, nested_graphs, opset
from edgeseg.ops.functions import DOMAIN, base_name

LARGEST = 65504.0
SMALLEST = 2.0**-24

# Sums over a plane, a row or a whole axis, and functions that leave FP16's range or digits for ordinary arguments.
SUMS = frozenset({
    "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
    "GlobalAveragePool", "GlobalLpPool", "LpPool", "LpNormalization", "CumSum", "Softmax", "LogSoftmax",
    "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization",
})  # fmt: skip
LONGEST_SUM = 256  # elements of an average that FP16 may sum up
RANGES = frozenset({"Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus"})
# Whole numbers, coordinates or an order that FP16 would not keep.
# GridSample: TensorRT wants one type for the map and its coordinates.
EXACT = frozenset({"GridSample", "TopK", "Range", "Floor", "Ceil", "Round", "Mod", "NonMaxSuppression", "RoiAlign", "AffineGrid"})
# Operator -> inputs that hold coordinates, sizes or factors; all that computes them stays float32 too.
COORDINATES = {
    "Resize": (1, 2), "GridSample": (1,), "RoiAlign": (1,), "NonMaxSuppression": (0, 1), "Floor": (0,), "Ceil": (0,),
    "Round": (0,), "Mod": (0, 1), "Range": (0, 1, 2), "AffineGrid": (0,), f"{DOMAIN}::RoIAlign": (0,),
}  # fmt: skip
# Pointwise operators: float32 between float32 neighbours, and careful with constants.
POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Where", "Sqrt", "Reciprocal", "Pow", "Exp", "Log"})
# Work ends what is computed for coordinates: a convolution's result is rounded to FP16 once, wherever it goes.
WORK = frozenset({
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "MaxPool", "AveragePool", "GlobalMaxPool", "MaxUnpool", "Resize",
    "GridSample", "QuantizeLinear", "DequantizeLinear", "BatchNormalization", "LayerNormalization",
})  # fmt: skip
INTEGERS = {kind for name, kind in TensorProto.DataType.items() if name.startswith(("INT", "UINT"))}


@dataclass
class Kept:
    """Which nodes stay float32.

    Attributes:
        nodes: ``id`` of a node -> why.
        large: weight -> how many of its values FP16 cannot hold; the nodes that read it stay float32.
    """

    nodes: dict[int, str] = field(default_factory=dict)
    large: dict[str, int] = field(default_factory=dict)


def keep(model: ModelProto, types: dict[str, int]) -> Kept:
    """Decide for every node of the main graph; ``types`` are the tensors' element types."""
    return _Keeper(model, types).run()


def key(node: NodeProto) -> str:
    """The name of an operator in the tables above."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{base_name(node.op_type)}"


class _Keeper:
    def __init__(self, model: ModelProto, types: dict[str, int]) -> None:
        self.graph, self.types, self.version = model.graph, types, opset(model)
        self.known = index(model.graph)
        self.kept = Kept()
        self.exact: set[str] = set()  # tensors whose sources are kept already

    def run(self) -> Kept:
        for node in self.graph.node:
            if reason := self._reason(node):
                self.kept.nodes[id(node)] = reason
        for node in self.graph.node:
            for name in self._coordinates(node):
                self._keep_source(name)
        for node in self.graph.node:
            if key(node) in POINTWISE and self._between(node):
                self.kept.nodes.setdefault(id(node), "between float32 neighbours")
        return self.kept

    def _reason(self, node: NodeProto) -> str:
        name = key(node)
        if any(True for _ in nested_graphs(node)):
            return "control flow"
        if node.domain not in (*STANDARD_DOMAINS, DOMAIN):
            return "an operator of unknown types"
        if name in EXACT:
            return "coordinates or order"
        if name in SUMS or name in RANGES or (name == "AveragePool" and prod(attributes(node)["kernel_shape"]) > LONGEST_SUM):
            return "sums or a range that FP16 lacks"
        if name == "DequantizeLinear" and self.types.get(node.input[0]) == TensorProto.INT32:
            return "a bias whose scale FP16 cannot hold"
        if any(item.type == onnx.AttributeProto.TENSOR for item in node.attribute) or any(
            item.name == "dtype" for item in node.attribute
        ):
            return "its type is an attribute"
        return self._constants(node)

    def _constants(self, node: NodeProto) -> str:
        """Constants out of FP16's range: too large for it, or (an epsilon) rounded to 0."""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Clip"):
            return ""
        for name in node.input:
            tensor = self.known.initializers.get(name)
            if tensor is None or tensor.data_type != TensorProto.FLOAT:
                continue
            values = np.abs(numpy_helper.to_array(tensor))
            if count := int(((values > LARGEST) & np.isfinite(values)).sum()):
                self.kept.large[name] = count
                return "a weight beyond 65504"
            if key(node) in POINTWISE and values.size == 1 and 0 < values.item() < SMALLEST:
                return "a constant that FP16 rounds to 0"
        return ""

    def _coordinates(self, node: NodeProto) -> Iterator[str]:
        if node.op_type == "Cast" and attributes(node)["to"] in INTEGERS:
            yield node.input[0]
        for place in COORDINATES.get(key(node), ()):
            if place < len(node.input) and node.input[place]:
                yield node.input[place]

    def _keep_source(self, tensor: str) -> None:
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            node = self.known.producer.get(name)
            if node is None or self.types.get(name) != TensorProto.FLOAT or key(node) in WORK or node.domain == DOMAIN:
                continue
            self.kept.nodes.setdefault(id(node), "coordinates or sizes")
            fresh = [item for item in node.input if item and item not in self.exact]
            self.exact.update(fresh)
            waiting += fresh

    def _between(self, node: NodeProto) -> bool:
        """Whether everything that a pointwise node reads is float32 by itself: a round trip through FP16 would only lose."""
        sources = [name for name in node.input if name and not self.known.is_constant(name)]
        floats = [name for name in sources if self.types.get(name) == TensorProto.FLOAT]
        return bool(floats) and all(id(self.known.producer.get(name)) in self.kept.nodes for name in floats)
