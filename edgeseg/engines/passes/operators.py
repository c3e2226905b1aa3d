"""Standard RoiAlign and Resize + ArgMax become operators of ours, for runtimes that have them as plugins."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.graph import (
    STANDARD_DOMAINS,
    Index,
    attributes,
    element_types,
    index,
    opset,
    remove_dead,
    tensor_names,
    unique_name,
)
from edgeseg.ops.functions import DOMAIN, Shape, declare, infer, known_shapes

_MOST_CLASSES = 256  # a label is one byte
_LABEL_TYPES = (TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)


def roi_align_to_ours(model: ModelProto, mode: str = "") -> None:
    """Make each standard RoiAlign (opset 10, 16, 22), or those of a ``mode``, a RoIAlign of one level, in place.

    Boxes become float32.
    """
    graph = model.graph
    types, taken = element_types(infer(model).graph), tensor_names(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.domain in STANDARD_DOMAINS and node.op_type == "RoiAlign" and mode in ("", attributes(node).get("mode", "avg")):
            nodes += _roi_align(node, opset(model), types, taken)
        else:
            nodes.append(node)
    _replace(model, nodes)


def _roi_align(node: NodeProto, version: int, types: dict[str, int], taken: set[str]) -> list[NodeProto]:
    options, (features, rois, batch_indices) = attributes(node), node.input
    made = []
    if types.get(rois, TensorProto.FLOAT) != TensorProto.FLOAT:
        # FP16 has steps of 2 pixels beyond pixel 2048.
        exact = unique_name(f"{rois}_float", taken)
        made.append(helper.make_node("Cast", [rois], [exact], f"{node.name or node.output[0]}_boxes", to=TensorProto.FLOAT))
        rois = exact
    # Version 10 had no half-pixel shift, which later versions call output_half_pixel.
    mode = options.get("coordinate_transformation_mode", "half_pixel" if version >= 16 else "output_half_pixel")
    ours = helper.make_node(
        "RoIAlign",
        [rois, batch_indices, features],
        node.output,
        node.name,
        domain=DOMAIN,
        output_height=options.get("output_height", 1),
        output_width=options.get("output_width", 1),
        sampling_ratio=options.get("sampling_ratio", 0),
        mode=options.get("mode", "avg"),
        aligned=int(mode == "half_pixel"),
        spatial_scales=[float(options.get("spatial_scale", 1.0))],
        canonical_size=224.0,
        canonical_level=0,
    )
    return [*made, ours]


def _replace(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    declare(model)


def labels_to_ours(model: ModelProto) -> None:
    """Make Resize (linear) -> ArgMax over channels -> a graph output an UpsampleArgmax, in place.

    Squeeze of the channel axis and Cast between integers may follow the ArgMax. The output becomes (N, H, W) uint8,
    whatever integer it was: a label decoder takes all of them.
    """
    graph = model.graph
    known, shapes = index(graph), known_shapes(model)
    for value in graph.output:
        chain = _label_chain(value.name, known, shapes)
        if chain is None:
            continue
        resize, argmax = chain[0], chain[1]
        size = shapes[resize.output[0]]
        assert size is not None
        ours = helper.make_node(
            "UpsampleArgmax",
            [resize.input[0]],
            [value.name],
            argmax.name,
            domain=DOMAIN,
            size=list(size[2:]),
            align_corners=int(attributes(resize).get("coordinate_transformation_mode") == "align_corners"),
        )
        # What else read the tensors of the chain still does; only the node that wrote the output goes.
        nodes = [ours if node is chain[-1] else node for node in graph.node]
        _replace(model, nodes)
        value.type.tensor_type.elem_type = TensorProto.UINT8
        known = index(graph)
    remove_dead(graph)


def _label_chain(output: str, known: Index, shapes: dict[str, Shape]) -> list[NodeProto] | None:
    """[Resize, ArgMax, ...] that ends in the graph output, or None."""
    chain: list[NodeProto] = []
    tensor = output
    while (node := known.producer.get(tensor)) is not None and node.domain in STANDARD_DOMAINS:
        chain.insert(0, node)
        tensor = node.input[0]
        if node.op_type == "ArgMax":
            break
        if node.op_type not in ("Cast", "Squeeze", "Identity") or (node.op_type == "Cast" and not _to_label(node)):
            return None
    if not chain or chain[0].op_type != "ArgMax":
        return None
    resize = known.producer.get(tensor)
    scores = shapes.get(tensor)
    if resize is None or scores is None or len(scores) != 4 or not 2 <= scores[1] <= _MOST_CLASSES:
        return None
    plane = (scores[0], *scores[2:])
    # The class index must end as (N, H, W): axis 1 was reduced, first of equal maxima, one way or another squeezed out.
    options = attributes(chain[0])
    axis = int(options.get("axis", 0)) % 4
    if axis != 1 or options.get("select_last_index", 0) or shapes.get(output) != plane:
        return None
    return [resize, *chain] if _is_bilinear(resize, known, shapes) else None


def _to_label(node: NodeProto) -> bool:
    return attributes(node)["to"] in _LABEL_TYPES


_RESIZE = {"mode": "nearest", "antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}


def _is_bilinear(node: NodeProto, known: Index, shapes: dict[str, Shape]) -> bool:
    """A linear Resize of the plane alone, by exactly the ratio of the sizes."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if node.domain not in STANDARD_DOMAINS or node.op_type != "Resize" or before is None or after is None:
        return False
    options = attributes(node)
    plain = {name: options.get(name, default) for name, default in _RESIZE.items()} == {**_RESIZE, "mode": "linear"}
    coordinates = options.get("coordinate_transformation_mode", "half_pixel")
    # pytorch_half_pixel differs for a size of 1 alone.
    mapped = coordinates in ("half_pixel", "align_corners") or (coordinates == "pytorch_half_pixel" and min(after[2:]) > 1)
    if not plain or not mapped or "axes" in options or before[:2] != after[:2]:
        return False
    return _exact_ratio(node, known, before, after)


def _exact_ratio(resize: NodeProto, known: Index, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether the sizes say all: a scale that had to be rounded down to a whole size maps coordinates by itself."""
    if len(resize.input) < 3 or not resize.input[2]:
        return True
    tensor = known.initializers.get(resize.input[2])
    scales = None if tensor is None else numpy_helper.to_array(tensor)
    return scales is not None and np.array_equal(scales * np.array(before, np.float32), np.array(after, np.float32))
