"""The way of a prepared ONNX graph to what one backend reads: the rewrites of ``edgeseg.engines.passes``, put together.

``to_standard`` is for runtimes without our operators, ``to_plugins`` for TensorRT with our plugin library,
``to_primitive`` for TensorRT-RTX, which takes no plugins. Each gives a copy that no longer holds functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnx

from calibration.graph import opset
from calibration.prepare import remove_identities
from edgeseg.engines.passes.absorb import absorb
from edgeseg.engines.passes.half import halve
from edgeseg.engines.passes.operators import labels_to_ours, roi_align_to_ours
from edgeseg.engines.passes.opset import raise_opset
from edgeseg.engines.passes.pools import pools_to_ours, pools_to_standard
from edgeseg.engines.passes.scatter import scatter_unpools
from edgeseg.errors import OnnxError
from edgeseg.ops import functions

log = logging.getLogger("edgeseg.engines")
_MANY_LOST = 0.01  # of a weight's values: dead channels hold a few such numbers
PLUGIN_VERSION, PLUGIN_NAMESPACE = "1", "edgeseg"


def freeze_shape(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A copy whose input ``name`` has exactly ``shape``, with every shape that follows from it inferred again.

    Raises:
        OnnxError: there is no such input, or a size that the graph fixes differs.
    """
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    value = next((item for item in frozen.graph.input if item.name == name), None)
    if value is None:
        raise OnnxError(f"no input {name!r} in the graph", "the input that model.json names", "correct $.input.name")
    dims = value.type.tensor_type.shape.dim
    found = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    if len(found) != len(shape) or any(size not in (None, want) for size, want in zip(found, shape, strict=True)):
        raise OnnxError(f"the graph's input {name!r} is {found}", f"{shape} as model.json says", "import or export the model again")
    if None not in found:
        return frozen
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    del frozen.graph.value_info[:]
    for output in frozen.graph.output:
        output.type.tensor_type.ClearField("shape")
    return functions.infer(frozen)


def to_standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in standard operators alone: pools with their unpools as ONNX has them, the rest of ours by their bodies.

    Raises:
        OnnxError: an operator of ours that this version does not have.
    """
    lowered = functions.detach(model)
    pools_to_standard(lowered)
    return _with_bodies(lowered, "standard")


def to_plugins(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for TensorRT with our plugins: our operators bare, standard ones that TensorRT lacks or runs slowly made ours.

    MaxPool with Indices and MaxUnpool, RoiAlign, and Resize + ArgMax at an output are swapped; in an INT8 graph ours
    take and give codes. A label output becomes (N, H, W) uint8.
    """
    lowered = _swapped(model)
    labels_to_ours(lowered)
    absorb(lowered)
    for node in functions.walk(lowered.graph):
        if functions.is_ours(node):
            _name_plugin(node)
    return lowered


def to_primitive(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for TensorRT-RTX: our operators, and the standard ones that it lacks, in primitive operators.

    Raises:
        OnnxError: an operator of ours whose shapes are not fixed.
    """
    lowered = _swapped(model)
    if not any(functions.is_ours(node) for node in functions.walk(lowered.graph)):
        return lowered
    if opset(lowered) < functions.BODY_OPSETS[0]:
        lowered = _swapped(raise_opset(functions.inline(model), functions.BODY_OPSETS[0]))
    return _with_bodies(lowered, "primitive")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in FP16 with float32 inputs and outputs, for engines that compute in the graph's types (see ``passes.half``).

    Weights that FP16 cannot hold are told as warnings.
    """
    result = halve(functions.inline(model))
    for name, count in result.large.items():
        log.warning("%s: %d values beyond FP16's 65504; the nodes that read it stay float32", name, count)
    lost, total = (sum(column) for column in zip(*result.flushed.values(), strict=True)) if result.flushed else (0, 0)
    if lost:
        log.log(
            logging.WARNING if lost > _MANY_LOST * total else logging.INFO,
            "%d of %d values in %d weights are below FP16's smallest and became 0", lost, total, len(result.flushed),
        )  # fmt: skip
    return result.model


def lower_for_openvino(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that OpenVINO's ONNX reader takes: functions inlined, MaxUnpool as ScatterElements, RoiAlign's maximum as ours.

    OpenVINO's RoiAlign takes the largest sample where ONNX's takes the largest weighted corner of a sample.
    """
    lowered = functions.detach(model)
    pools_to_standard(lowered)
    roi_align_to_ours(lowered, mode="max")
    lowered = _with_bodies(lowered, lambda node: "primitive" if _is_largest(node) else "standard")
    scatter_unpools(lowered)
    return lowered


def _is_largest(node: onnx.NodeProto) -> bool:
    return functions.attributes(node).get("mode") == "max"


def _with_bodies(model: onnx.ModelProto, kind: str | Callable[[onnx.NodeProto], str]) -> onnx.ModelProto:
    """The model with our operators' bodies in their place, and what they only hand on (OpenVINO renames inputs behind it) gone."""
    inlined = functions.infer(functions.inline(functions.attach(model, kind)))
    remove_identities(inlined.graph)
    return inlined


def _swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    lowered = functions.inline(functions.detach(model))
    pools_to_ours(lowered)
    roi_align_to_ours(lowered)
    return lowered


def _name_plugin(node: onnx.NodeProto) -> None:
    # TensorRT's parser looks a plugin up by operator name and the first two; a plugin is not told how many results are read.
    more: dict[str, str | int] = {"plugin_version": PLUGIN_VERSION, "plugin_namespace": PLUGIN_NAMESPACE}
    if node.op_type == "UpsampleArgmax" and len(node.output) > 1 and node.output[1]:
        more["probability"] = 1
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in more.items())
