"""What TensorRT's parser refuses of single nodes, by the rules of ``edgeseg.engines.targets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calibration.graph import STANDARD_DOMAINS, attributes, element_types, static_shapes
from edgeseg.engines.targets import CONSTANT_INPUTS, RESIZE_COORDINATES, SIZED_AT_RUN_TIME, Target
from edgeseg.ops.functions import DOMAIN, walk

_STANDARD_POOL = "2-D windows without dilation become plugins; or pool without indices"
_ELSEWHERE = "rewrite it in other operators, or --backend ort"


@dataclass(frozen=True)
class Problem:
    """Why, and what to do about it."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Facts:
    """What is known of a graph's tensors."""

    model: ModelProto
    types: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, TensorProto]
    outer: frozenset[str]

    @classmethod
    def of(cls, model: ModelProto) -> Facts:
        """Facts of a graph whose shapes were inferred."""
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in walk(model.graph):
            if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
                constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
        outer = frozenset(value.name for value in [*model.graph.input, *model.graph.output])
        return cls(model, element_types(model.graph), static_shapes(model.graph), constants, outer)

    def constant(self, node: NodeProto, place: int) -> np.ndarray | None:
        """The value of an input, where it is a constant."""
        tensor = self.constants.get(node.input[place]) if place < len(node.input) else None
        return None if tensor is None else numpy_helper.to_array(tensor)


def in_tensorrt(node: NodeProto, facts: Facts, target: Target) -> Iterator[tuple[bool, Problem]]:
    """(refused, what) of one node; not refused is worth a note."""
    yield from _types(node, facts)
    if node.domain not in STANDARD_DOMAINS:
        return
    if node.op_type in target.absent:
        what = "its indices have no pool here" if node.op_type == "MaxUnpool" else f"{target.what} has no such operator"
        yield True, Problem(what, _STANDARD_POOL if node.op_type == "MaxUnpool" else _ELSEWHERE)
    if node.op_type in SIZED_AT_RUN_TIME:
        yield False, Problem("its result has a size known only at run time: no CUDA graph", "keep a fixed number, as TopK does")
    for place in CONSTANT_INPUTS.get(node.op_type, ()):
        if place < len(node.input) and node.input[place] and node.input[place] not in facts.constants:
            yield True, Problem(f"input {place} is computed; the parser wants a constant", "export with fixed shapes")
    rule = _RULES.get(node.op_type)
    if rule is not None and (problem := rule(node, facts)):
        yield True, problem


def _types(node: NodeProto, facts: Facts) -> Iterator[tuple[bool, Problem]]:
    for name in node.output:
        kind = facts.types.get(name)
        if kind == TensorProto.UINT8 and name not in facts.outer and node.domain != DOMAIN and node.op_type != "Constant":
            yield (
                True,
                Problem("uint8 between nodes: TensorRT has it at inputs and outputs only", "int32 inside, Cast at the border"),
            )
        if kind in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128):
            yield True, Problem("strings and complex numbers are no tensors there", _ELSEWHERE)
        if kind == TensorProto.DOUBLE:
            yield False, Problem("float64 is computed in float32", "cast to float32 in the model")


def _max_pool(node: NodeProto, facts: Facts) -> Problem | None:
    if len(node.output) > 1 and node.output[1]:
        return Problem("MaxPool with indices that our operators cannot express", _STANDARD_POOL)
    return _pool(node, facts)


def _pool(node: NodeProto, facts: Facts) -> Problem | None:
    options = attributes(node)
    if any(step != 1 for step in options.get("dilations", [])):
        return Problem("a dilated pool", "pool without dilation")
    if len(options.get("kernel_shape", [0, 0])) not in (2, 3):
        return Problem("a pool that is neither 2-D nor 3-D", "Unsqueeze to 2-D before it")
    return None


def _resize(node: NodeProto, facts: Facts) -> Problem | None:
    options = attributes(node)
    coordinates = options.get("coordinate_transformation_mode", "half_pixel")
    if options.get("mode", "nearest") not in ("nearest", "linear"):
        return Problem(f"Resize of mode {options['mode']}", "nearest or linear")
    if coordinates not in RESIZE_COORDINATES:
        return Problem(f"Resize with coordinates {coordinates}", f"one of {', '.join(sorted(RESIZE_COORDINATES))}")
    if options.get("antialias", 0) or options.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Problem("Resize with antialias or an aspect ratio policy", "plain stretching")
    return None


def _quantisation(node: NodeProto, facts: Facts) -> Problem | None:
    again = "give the float model and ranges.json: the `tensorrt` profile writes what it takes"
    stored = facts.constants.get(node.input[0])
    if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type == TensorProto.INT32:
        return Problem("an int32 bias behind a DequantizeLinear", again)
    zero = facts.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None and (len(node.input) < 3 or not node.input[2]) and node.op_type == "QuantizeLinear":
        return Problem("no zero point, which makes the codes uint8", again)
    if zero is not None and (zero.data_type == TensorProto.UINT8 or numpy_helper.to_array(zero).any()):
        return Problem("a zero point that is not 0, or uint8 codes", again)
    return None


def _grid_sample(node: NodeProto, facts: Facts) -> Problem | None:
    shape = facts.shapes.get(node.input[0])
    return Problem("GridSample of other than 4 dimensions", "4 dimensions") if shape is not None and len(shape) != 4 else None


def _layer_norm(node: NodeProto, facts: Facts) -> Problem | None:
    return (
        Problem("LayerNormalization with mean or deviation as outputs", "its first output alone") if len(node.output) > 1 else None
    )


def _top_k(node: NodeProto, facts: Facts) -> Problem | None:
    count = facts.constant(node, 1)
    if not attributes(node).get("sorted", 1):
        return Problem("TopK that does not sort", "sorted=1")
    return Problem(f"TopK of {int(count.max())}", "fewer than 3840") if count is not None and count.max() >= 3840 else None


def _scatter_nd(node: NodeProto, facts: Facts) -> Problem | None:
    reduction = attributes(node).get("reduction", "none")
    return None if reduction == "none" else Problem(f"ScatterND with reduction {reduction}", "ScatterElements, which may reduce")


_RULES: dict[str, Callable[[NodeProto, Facts], Problem | None]] = {
    "MaxPool": _max_pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
    "QuantizeLinear": _quantisation,
    "DequantizeLinear": _quantisation,
    "GridSample": _grid_sample,
    "LayerNormalization": _layer_norm,
    "TopK": _top_k,
    "ScatterND": _scatter_nd,
}
