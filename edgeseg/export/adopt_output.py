"""Which output of a foreign graph is the segmentation, what kind it is, and how it becomes ``(1, C, h, w)`` or labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.errors import OnnxError
from edgeseg.export.adopt_graph import fresh_name, prune
from edgeseg.manifest import OutputKind
from edgeseg.onnx_structure import dimensions, infer_shapes

_PASS_THROUGH = {
    "Identity", "Cast", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten", "Resize", "Upsample", "Slice", "Dropout", "Clip",
}  # fmt: skip
_KINDS: dict[str, OutputKind] = {"Softmax": "softmax", "Sigmoid": "sigmoid", "ArgMax": "labels", "LogSoftmax": "logits"}
_LABEL_TYPES = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int32): TensorProto.INT32, np.dtype(np.int64): TensorProto.INT64}


@dataclass
class Output:
    """One output of the graph as it ran: ``layout`` is the order of its axes, such as NCHW, CHW, NHW or NHWC."""

    name: str
    kind: OutputKind
    layout: str
    channels: int | None
    dtype: np.dtype[Any]
    notes: list[str] = field(default_factory=list)


def detect_kind(model: ModelProto, name: str) -> tuple[OutputKind | None, NodeProto | None]:
    """What the graph ends in, seen through reshapes, casts and resizes; (None, None) if nothing tells."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(name)
    while node is not None and node.op_type in _PASS_THROUGH:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in _KINDS:
        return None, None
    return _KINDS[node.op_type], node


def read_output(
    model: ModelProto, name: str, value: np.ndarray, classes: int, kind: OutputKind | None, frame: tuple[int, int]
) -> Output:
    """Describe output ``name`` from one run of the graph at input (height, width) ``frame``.

    Raises:
        OnnxError: its shape is no segmentation, or it has another number of classes than ``classes``.
    """
    found, source = detect_kind(model, name)
    if kind is None:
        kind = found or ("labels" if value.dtype.kind in "iub" else "logits")
    if kind == "labels":
        layout = _label_layout(name, value.shape, frame)
        _check_label_source(model, name, source, classes)
        return Output(name, kind, layout, None, value.dtype)
    layout = _score_layout(name, value.shape, classes)
    channels = value.shape[layout.index("C")] if "C" in layout else 1
    if channels != classes and not (channels == 1 and classes == 2):
        raise _wrong_count(name, channels, classes, list(value.shape))
    return Output(name, kind, layout, channels, value.dtype)


def _wrong_count(name: str, channels: int, classes: int, shape: list[int]) -> OnnxError:
    wanted = "2 names for its 1 channel (background and object)" if channels == 1 else f"{channels} names"
    return OnnxError(f"output {name!r} {shape} has {channels} channels, --classes has {classes} names", f"--classes with {wanted}")


def _label_layout(name: str, shape: tuple[int, ...], frame: tuple[int, int]) -> str:
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3 and (shape[0] == 1 or shape[2] != 1):
        return "NHW"
    if len(shape) == 3:
        return "HW1"
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        return "N1HW" if shape[1] == 1 else "NHW1"
    raise OnnxError(
        f"output {name!r} {list(shape)} is no label map",
        f"(N, h, w) or (N, 1, h, w) for a {frame[1]}x{frame[0]} frame",
        "choose with --output",
    )


def _score_layout(name: str, shape: tuple[int, ...], classes: int) -> str:
    if len(shape) == 4:
        fits = {classes, 1} if classes == 2 else {classes}
        return "NHWC" if shape[3] in fits and shape[1] not in fits else "NCHW"
    if len(shape) == 3:
        if shape[0] == classes and classes > 1:
            return "CHW"
        if shape[2] == classes and classes > 1:
            return "HWC"
        if classes == 2 and shape[0] == 1:
            return "NHW"
    raise OnnxError(
        f"output {name!r} {list(shape)} is no segmentation of {classes} classes",
        f"(N, {classes}, h, w) scores, or (N, h, w) labels",
        "choose with --output, say what it is with --kind, or correct --classes",
    )


def _check_label_source(model: ModelProto, name: str, source: NodeProto | None, classes: int) -> None:
    """The ArgMax says how many labels there are, where shape inference can tell."""
    if source is None or source.op_type != "ArgMax":
        return
    axis = next((item.i for item in source.attribute if item.name == "axis"), 0)
    inferred = infer_shapes(model).graph
    for item in [*inferred.value_info, *inferred.input]:
        if item.name == source.input[0] and (dims := dimensions(item)):
            count = dims[axis]
            if isinstance(count, int) and count > 1 and count != classes:
                raise _wrong_count(name, count, classes, [item if isinstance(item, int) else -1 for item in dims])


# --- choosing ----------------------------------------------------------------------------------------------------


def choose_output(
    model: ModelProto,
    values: Mapping[str, np.ndarray],
    classes: int,
    wanted: str | None,
    kind: OutputKind | None,
    frame: tuple[int, int],
) -> Output:
    """The segmentation among the outputs: ``wanted``, else the first that fits the classes; auxiliary heads come last.

    Raises:
        OnnxError: no output fits, or there is none named ``wanted``.
    """
    if wanted is not None:
        if wanted not in values:
            raise OnnxError(f"--output {wanted!r}: no such output", f"one of {', '.join(map(repr, values))}")
        return read_output(model, wanted, values[wanted], classes, kind, frame)
    fitting, problems = [], []
    for name, value in values.items():
        try:
            fitting.append(read_output(model, name, value, classes, kind, frame))
        except OnnxError as error:
            problems.append(error)
    if not fitting:
        raise problems[0]
    fitting.sort(key=lambda item: ("aux" in item.name.lower(), item.kind == "labels"))
    best = fitting[0]
    if len(values) > 1:
        others = ", ".join(repr(name) for name in values if name != best.name)
        best.notes.append(f"took output {best.name!r} and dropped {others} (choose another with --output)")
    return best


# --- normalising -------------------------------------------------------------------------------------------------


def normalise_output(model: ModelProto, output: Output) -> str:
    """Make ``output`` the graph's only one, as (N, C, h, w) float32 scores or (N, h, w) labels; returns its name."""
    current = output.name
    if output.kind == "labels":
        current = _labels(model, output, current)
        element = _LABEL_TYPES.get(output.dtype, TensorProto.INT32)
    else:
        current = _scores(model, output, current)
        element = TensorProto.FLOAT
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(current, element, None))
    removed = prune(model)
    if removed:
        output.notes.append(f"{removed} nodes that only other outputs needed were removed")
    return current


def _labels(model: ModelProto, output: Output, current: str) -> str:
    axes = {"NHW": None, "HW": ([0], "Unsqueeze"), "HW1": ([-1], "Squeeze"), "N1HW": ([1], "Squeeze"), "NHW1": ([3], "Squeeze")}
    step = axes[output.layout]
    if step is not None:
        current = _with_axes(model, step[1], current, step[0])
    if output.layout == "HW1":
        current = _with_axes(model, "Unsqueeze", current, [0])
    if output.dtype not in _LABEL_TYPES:
        current = _add(model, "Cast", [current], f"{output.name}.int32", to=TensorProto.INT32)
        output.notes.append(f"labels are {output.dtype}: a Cast to int32 was added")
    return current


def _scores(model: ModelProto, output: Output, current: str) -> str:
    if output.dtype != np.float32:
        current = _add(model, "Cast", [current], f"{output.name}.float32", to=TensorProto.FLOAT)
        output.notes.append(f"output {output.name!r} is {output.dtype}: a Cast to float32 was added")
    if output.layout in ("CHW", "HWC"):
        current = _with_axes(model, "Unsqueeze", current, [0])
    if output.layout == "NHW":
        current = _with_axes(model, "Unsqueeze", current, [1])
    if output.layout in ("NHWC", "HWC"):
        current = _add(model, "Transpose", [current], f"{output.name}.nchw", perm=[0, 3, 1, 2])
        output.notes.append(f"output {output.name!r} is NHWC: a Transpose to NCHW was added")
    return current


def _with_axes(model: ModelProto, operator: str, source: str, axes: list[int]) -> str:
    name = fresh_name(model, f"{source}.axes")
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(axes)], axes))
    return _add(model, operator, [source, name], f"{source}.{operator.lower()}")


def _add(model: ModelProto, operator: str, inputs: list[str], wanted: str, **attributes: Any) -> str:
    made = fresh_name(model, wanted)
    model.graph.node.append(helper.make_node(operator, inputs, [made], name=made, **attributes))
    return made
