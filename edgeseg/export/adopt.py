"""Adopt an ONNX file from anywhere as a model folder, and prove by running it that nothing of its meaning was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, helper

from edgeseg import __version__
from edgeseg.errors import EdgesegError, OnnxError
from edgeseg.export import adopt_graph as passes
from edgeseg.export.adopt_output import choose_output, normalise_output
from edgeseg.files import atomic_directory, check_writable
from edgeseg.folder import GRAPH, MANIFEST, ModelFolder, describe_file
from edgeseg.manifest import ClassInfo, InputSpec, Manifest, OutputKind, OutputSpec, Parity, Provenance
from edgeseg.onnx_guard import load_onnx, save_onnx
from edgeseg.onnx_structure import check_opsets, infer_shapes

ColourOrder = Literal["rgb", "bgr", "grey"]
Layout = Literal["auto", "nchw", "nhwc"]


@dataclass(frozen=True)
class AdoptOptions:
    """What an ONNX file does not say of itself. ``mean`` and ``std`` are in units of pixel * scale, in ``colour_order``.

    Args:
        size: (width, height) for graphs that do not fix it.
        scale: factor on the pixel; None means 1/255, or 1 for a graph that takes integers.
    """

    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    scale: float | None = None
    colour_order: ColourOrder = "rgb"
    size: tuple[int, int] | None = None
    layout: Layout = "auto"
    output: str | None = None
    kind: OutputKind | None = None
    threshold: float = 0.5


@dataclass(frozen=True)
class Adopted:
    """The graph as every step takes it, what goes into its manifest, and what was changed, in words."""

    model: ModelProto
    input: InputSpec
    output: OutputSpec
    parity: Parity
    notes: list[str]


def palette(count: int) -> list[tuple[int, int, int]]:
    """Colours (R, G, B) that tell ``count`` classes apart: the bit-reversed palette of PASCAL VOC, label 0 black."""
    colours = []
    for label in range(count):
        red = green = blue = 0
        for bit in range(8):
            red |= ((label >> (3 * bit)) & 1) << (7 - bit)
            green |= ((label >> (3 * bit + 1)) & 1) << (7 - bit)
            blue |= ((label >> (3 * bit + 2)) & 1) << (7 - bit)
        colours.append((red, green, blue))
    return colours


def adopt(path: Path, options: AdoptOptions, tell: Callable[[str], None] = lambda step: None) -> Adopted:
    """Read, convert and run an ONNX file.

    Raises:
        OnnxError: the file is unsafe or malformed, does not fit the options, or gives other values once converted.
    """
    tell("reading and checking")
    original = passes.inline_functions(load_onnx(path))
    notes = []
    if dropped := passes.drop_initialiser_inputs(original):
        notes.append(f"{dropped} initialisers were listed as inputs: they are constants now")
    value, layout = passes.find_input(original, len(options.mean), options.layout)
    width, height = passes.input_size(value, layout, options.size)
    spec = _input_spec(value, options, width, height, notes)
    tell("running the file as it is")
    native = _fix_sizes(original, layout, spec.shape)
    frame = np.random.default_rng(0).integers(0, 256, (height, width, spec.channels)).astype(np.float32)
    tensor = _as_input(frame, spec)
    before = _run(native, _native_feed(native, layout, tensor))
    output = choose_output(native, before, len(options.classes), options.output, options.kind, (height, width))
    tell("converting")
    found = check_opsets(original)[""]
    model = passes.convert_opset(native)
    if found != (now := check_opsets(model)[""]):
        notes.append(f"opset {found} was converted to {now}")
    if half := passes.promote_half(model):
        notes.append("the graph computed in float16: it computes in float32 now, its weights stay stored as float16")
        output.dtype = np.dtype(np.float32) if output.dtype == np.float16 else output.dtype
    notes += passes.set_input(model, model.graph.input[0], layout, spec.shape)
    name = normalise_output(model, output)
    model = infer_shapes(model)
    tell("running the adopted graph")
    after = _run(model, {spec.name: tensor})[name]
    parity = _parity(_oriented(before[output.name], output.layout), after, output.kind, 2e-2 if half else 1e-4, now, spec.shape)
    result = OutputSpec(name=name, kind=output.kind, threshold=options.threshold)
    return Adopted(model, spec, result, parity, [*notes, *output.notes])


def write_folder(
    directory: Path, name: str, adopted: Adopted, classes: Sequence[str], *, source: str, licence: str = ""
) -> ModelFolder:
    """Write the model folder atomically; one that exists is replaced.

    Raises:
        EdgesegError: the directory cannot be written, or the name or classes are not valid in a manifest.
    """
    check_writable(directory.parent)
    colours = palette(len(classes) + 1)[1:] if len(classes) < 256 else palette(256)
    infos = [ClassInfo(name=item, colour=colour) for item, colour in zip(classes, colours, strict=True)]
    with atomic_directory(directory) as temporary:
        save_onnx(adopted.model, temporary / GRAPH)
        Manifest(
            name=name,
            classes=infos,
            input=adopted.input,
            output=adopted.output,
            files={GRAPH: describe_file(temporary / GRAPH)},
            provenance=Provenance(created_by=f"edgeseg {__version__}", command=f"edgeseg import {source}", licence=licence,
                                  notes="; ".join(adopted.notes)),
            parity=adopted.parity,
        ).save(temporary / MANIFEST)  # fmt: skip
    return ModelFolder(directory)


# --- steps -------------------------------------------------------------------------------------------------------


def _input_spec(value: Any, options: AdoptOptions, width: int, height: int, notes: list[str]) -> InputSpec:
    integers = value.type.tensor_type.elem_type not in (1, 10, 11, 16)
    scale = options.scale
    if scale is None:
        scale = 1.0 if integers else 1 / 255
        if integers:
            notes.append("the input takes integers: --scale 1 was assumed")
    try:
        return InputSpec(
            name=value.name,
            width=width,
            height=height,
            channels=1 if options.colour_order == "grey" else 3,
            colour_order=options.colour_order,
            scale=scale,
            mean=tuple(options.mean),
            std=tuple(options.std),
        )
    except ValueError as error:
        raise EdgesegError(
            f"input settings: {_first_problem(error)}", fix="give one --mean and one --std for each channel"
        ) from error


def _first_problem(error: ValueError) -> str:
    details = error.errors()[0] if hasattr(error, "errors") else {"msg": str(error), "loc": ()}
    return f"{'.'.join(map(str, details['loc']))} {details['msg']}".strip()


def _fix_sizes(model: ModelProto, layout: str, shape: tuple[int, int, int, int]) -> ModelProto:
    """A copy of the graph with its input fixed to (1, C, H, W) in its own layout; stale shapes of other tensors go."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    batch, channels, height, width = shape
    dims = (batch, channels, height, width) if layout == "nchw" else (batch, height, width, channels)
    kind = fixed.graph.input[0].type.tensor_type
    kind.ClearField("shape")
    for dim in dims:
        kind.shape.dim.add().dim_value = dim
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    return fixed


def _as_input(frame: np.ndarray, spec: InputSpec) -> np.ndarray:
    """(1, C, H, W) float32 of a frame already at the input's size and in its colour order."""
    scaled = (frame * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)


def _native_feed(model: ModelProto, layout: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    value = model.graph.input[0]
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    feed = tensor if layout == "nchw" else tensor.transpose(0, 2, 3, 1)
    feed = np.rint(feed) if dtype.kind in "iu" else feed
    return {value.name: np.ascontiguousarray(feed.astype(dtype))}


def _run(model: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = " ".join(str(error).split()).split(" : ", 2)[-1][:300]
        raise OnnxError(
            f"ONNX Runtime cannot run the graph: {reason}", fix="export it for a fixed size and batch 1, opset 13 to 21"
        ) from error


def _oriented(value: np.ndarray, layout: str) -> np.ndarray:
    """``value`` as (N, C, h, w) or (N, h, w), by numpy: the check on what the graph passes did."""
    steps: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "NHWC": lambda item: item.transpose(0, 3, 1, 2),
        "HWC": lambda item: item.transpose(2, 0, 1)[None],
        "CHW": lambda item: item[None],
        "HW": lambda item: item[None],
        "HW1": lambda item: item[None, :, :, 0],
        "N1HW": lambda item: item[:, 0],
        "NHW1": lambda item: item[:, :, :, 0],
    }
    return steps.get(layout, lambda item: item)(value)


def _parity(before: Any, after: Any, kind: str, tolerance: float, opset: int, shape: tuple[int, ...]) -> Parity:
    first, second = before.astype(np.float64).reshape(after.shape), after.astype(np.float64)
    if not np.isfinite(second).all():
        raise OnnxError(
            "the graph gives NaN or Inf on a random frame", "finite outputs", "check --mean, --std and --scale, or the weights"
        )
    if kind == "labels":
        same = float((first == second).mean())
    elif first.shape[1] == 1:
        same = float(((first > 0.5) == (second > 0.5)).mean())
    else:
        same = float((first.argmax(1) == second.argmax(1)).mean())
    difference, largest = float(np.abs(first - second).max()), float(np.abs(first).max())
    allowed = tolerance * max(1.0, largest)
    if (kind == "labels" and same < 0.99) or (kind != "labels" and difference > allowed):
        raise OnnxError(
            f"conversion changed the output by {difference:.3g} (labels agree on {100 * same:.1f}%)",
            f"at most {allowed:.3g}",
            "export the model with opset 13 to 21",
        )
    return Parity(
        max_abs=difference,
        max_rel=difference / max(largest, 1e-12),
        argmax_agreement=same,
        tolerance_abs=allowed,
        opset=opset,
        shapes=[shape],
    )
