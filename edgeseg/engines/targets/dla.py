"""What the deep learning accelerator of a Jetson cannot run, by the rules of ``edgeseg.engines.targets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from onnx import NodeProto

from calibration.graph import STANDARD_DOMAINS, attributes
from edgeseg.engines import targets
from edgeseg.engines.targets import Target
from edgeseg.engines.targets.nodes import Facts, Problem
from edgeseg.ops.functions import base_name, walk

_GPU = "--allow-gpu-fallback runs it on the GPU"
_QDQ = ("QuantizeLinear", "DequantizeLinear")


def off_the_dla(facts: Facts, target: Target) -> Iterator[tuple[str, Problem, str]]:
    """(operator, why, node) of every node that it cannot run."""
    for node in walk(facts.model.graph):
        operator = f"{node.domain}::{base_name(node.op_type)}" if node.domain not in STANDARD_DOMAINS else node.op_type
        for problem in _problems(node, operator, facts, target):
            yield operator, problem, node.name or node.output[0]
            break


def _problems(node: NodeProto, operator: str, facts: Facts, target: Target) -> Iterator[Problem]:
    if operator in _QDQ:
        if not target.dla_takes_codes:
            yield Problem("the DLA takes no explicit Q/DQ in TensorRT 10", "--precision fp16 for the DLA, int8 on the GPU")
        return
    if operator in ("Cast", "Identity") and all(name in facts.outer for name in [*node.input[:1]]):
        return  # at the network's input: a change of format
    if operator == "Cast" and node.output[0] in facts.outer:
        return
    if operator not in targets.DLA_OPERATORS:
        yield Problem("the DLA has no such operator", _GPU)
        return
    yield from _sizes(node, facts)
    rule = _RULES.get(operator)
    if rule is not None and (said := rule(node, facts)):
        yield Problem(said, _GPU)


def _sizes(node: NodeProto, facts: Facts) -> Iterator[Problem]:
    for name in [*node.input[:1], *node.output[:1]]:
        if name in facts.constants:
            continue
        shape = facts.shapes.get(name)
        if shape is None:
            yield Problem("a size that is not fixed", "export with fixed shapes")
        elif len(shape) > 4 or shape[0] > targets.DLA_MAX_BATCH or any(size > targets.DLA_MAX_SIZE for size in shape[1:]):
            most = f"4 dimensions, a batch of {targets.DLA_MAX_BATCH} and sides of {targets.DLA_MAX_SIZE}"
            yield Problem(f"{'x'.join(map(str, shape))}: more than {most}", _GPU)


def _within(values: Sequence[int], limits: tuple[int, int]) -> bool:
    return all(limits[0] <= value <= limits[1] for value in values)


def _conv(node: NodeProto, facts: Facts) -> str:
    options, weight = attributes(node), facts.shapes.get(node.input[1], ())
    if weight and (len(weight) != 4 or not _within(weight[2:], targets.DLA_KERNEL)):
        return f"a kernel that is not 2-D with sides of {targets.DLA_KERNEL[0]} to {targets.DLA_KERNEL[1]}"
    if not _within(options.get("strides", [1, 1]), targets.DLA_STRIDE):
        return f"strides beyond {targets.DLA_STRIDE[1]}"
    return "" if node.input[1] in facts.constants or _dequantised(node.input[1], facts) else "weights that are computed"


def _dequantised(name: str, facts: Facts) -> bool:
    made = next((node for node in facts.model.graph.node if name in node.output), None)
    return made is not None and made.op_type == "DequantizeLinear" and made.input[0] in facts.constants


def _conv_transpose(node: NodeProto, facts: Facts) -> str:
    options = attributes(node)
    if options.get("group", 1) != 1 or any(step != 1 for step in options.get("dilations", [])):
        return "a grouped or dilated deconvolution"
    if any(options.get("pads", [])) or any(options.get("output_padding", [])):
        return "a deconvolution with padding"
    weight = facts.shapes.get(node.input[1], ())
    return "" if not weight or _within(weight[2:], targets.DLA_KERNEL) else "a kernel beyond 32"


def _pool(node: NodeProto, facts: Facts) -> str:
    options = attributes(node)
    kernel = options["kernel_shape"]
    if len(kernel) != 2 or not _within(kernel, targets.DLA_POOL):
        return f"a window that is not 2-D with sides of {targets.DLA_POOL[0]} to {targets.DLA_POOL[1]}"
    if not _within(options.get("pads", []), targets.DLA_POOL_PADDING):
        return f"padding beyond {targets.DLA_POOL_PADDING[1]}"
    return (
        "" if _within(options.get("strides", [1, 1]), targets.DLA_POOL_STRIDE) else f"strides beyond {targets.DLA_POOL_STRIDE[1]}"
    )


def _resize(node: NodeProto, facts: Facts) -> str:
    options = attributes(node)
    mode = options.get("mode", "nearest")
    before, after = facts.shapes.get(node.input[0], ()), facts.shapes.get(node.output[0], ())
    if mode == "linear" and options.get("coordinate_transformation_mode", "half_pixel") != "half_pixel":
        return "bilinear resizing with other than half-pixel coordinates"
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2]:
        return "resizing of other than height and width"
    factors = np.array(after[2:]) / np.array(before[2:])
    most = targets.DLA_RESIZE.get(mode, 0)
    whole = bool((factors == np.rint(factors)).all()) and _within([int(factor) for factor in factors], (1, most))
    return "" if whole else f"resizing ({mode}) by other than whole factors of 1 to {most}"


def _concat(node: NodeProto, facts: Facts) -> str:
    rank = len(facts.shapes.get(node.output[0], (0,) * 4))
    return "" if attributes(node)["axis"] % rank == rank - 3 else "a Concat of other than channels"


def _mat_mul(node: NodeProto, facts: Facts) -> str:
    return "" if node.input[1] in facts.constants or _dequantised(node.input[1], facts) else "a product of two computed tensors"


_RULES: dict[str, Callable[[NodeProto, Facts], str]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
    "Concat": _concat,
    "MatMul": _mat_mul,
    "Gemm": _mat_mul,
}
