"""Max-pooling with its argmax and unpooling: between ONNX's whole-tensor indices and our window-local codes, both ways.

ONNX's index names a place of the whole (N, C, H, W) tensor; a code names a place of its window. They say the same exactly
where the plane that is unpooled has the size of the plane that was pooled.
"""

from __future__ import annotations

from math import prod
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from calibration.graph import (
    STANDARD_DOMAINS,
    Index,
    attributes,
    forget_types,
    index,
    remove_dead,
    set_attribute,
    tensor_names,
    unique_name,
)
from edgeseg.ops.functions import DOMAIN, Shape, declare, known_shapes
from edgeseg.ops.window import Window

_LARGEST_WINDOW = 256  # a code is one byte


def pools_to_ours(model: ModelProto) -> None:
    """Make MaxPool with Indices and MaxUnpool nodes of ours, in place; what the operators cannot express stays.

    A pool and its unpools speak codes where each unpooled plane has the pooled plane's size, else indices.
    """
    graph = model.graph
    known, shapes = index(graph), known_shapes(model)
    for node in graph.node:
        if _is(node, "MaxPool") and len(node.output) > 1:
            _swap_pool(node, known, shapes)
            forget_types(graph, node.output[1:])
    for node in graph.node:
        if _is(node, "MaxUnpool"):
            _swap_unpool(node, known, shapes)
    declare(model)
    remove_dead(graph)  # sizes that became attributes


def _is(node: NodeProto, op_type: str) -> bool:
    return node.domain in STANDARD_DOMAINS and node.op_type == op_type


def _swap_pool(pool: NodeProto, known: Index, shapes: dict[str, Shape]) -> None:
    indices, window = pool.output[1], _window(pool, shapes)
    if not known.users(indices) and indices not in known.pinned:
        del pool.output[1:]
        return
    if window is None:
        return
    readers = [node for node, _ in known.users(indices)]
    column_major = int(attributes(pool).get("storage_order", 0))
    local = indices not in known.pinned and not column_major and prod(window["kernel_shape"]) <= _LARGEST_WINDOW
    if local and all(_unpools(node, pool, window, known, shapes) for node in readers):
        for node in readers:
            _become(node, "MaxUnpool", {**window, "output_size": _plane(shapes, pool.input[0])})
            del node.input[2:]
        _become(pool, "MaxPoolArgmax", window)
    else:
        _become(pool, "MaxPoolIndices", {**window, "storage_order": column_major})


def _swap_unpool(unpool: NodeProto, known: Index, shapes: dict[str, Shape]) -> None:
    window, size = _window(unpool, shapes), _constant(unpool, known)
    if window is None or (_has_size(unpool) and size is None):
        return
    _become(unpool, "MaxUnpoolIndices", {**window, "output_size": list(size[2:]) if size else []})
    del unpool.input[2:]


def _unpools(node: NodeProto, pool: NodeProto, window: dict[str, Any], known: Index, shapes: dict[str, Shape]) -> bool:
    """Whether ``node`` is a MaxUnpool of ``pool``'s indices to a plane of the size that was pooled."""
    if not _is(node, "MaxUnpool") or node.input[1] != pool.output[1]:
        return False
    before = _plane(shapes, pool.input[0])
    if not before:
        # With sizes left open equal windows have to do: a plane that leaves a remainder has no valid indices in ONNX either.
        return not _has_size(node) and _window(node, shapes) == window
    size = _constant(node, known)
    if _has_size(node):
        return size is not None and list(size[2:]) == before
    own = _window(node, shapes)
    return own is not None and _unpooled(_plane(shapes, node.input[1]), own) == before


def _has_size(unpool: NodeProto) -> bool:
    return len(unpool.input) > 2 and bool(unpool.input[2])


def _constant(unpool: NodeProto, known: Index) -> tuple[int, ...] | None:
    tensor = known.initializers.get(unpool.input[2]) if _has_size(unpool) else None
    return None if tensor is None else tuple(int(size) for size in numpy_helper.to_array(tensor))


def _plane(shapes: dict[str, Shape], tensor: str) -> list[int]:
    """[H, W], or [] where it is unknown."""
    shape = shapes.get(tensor)
    return list(shape[2:]) if shape is not None and len(shape) == 4 else []


def _window(node: NodeProto, shapes: dict[str, Shape]) -> dict[str, Any] | None:
    """kernel_shape, strides and pads as our operators take them; None where they cannot express the node."""
    options = attributes(node)
    kernel = list(options.get("kernel_shape", []))
    if len(kernel) != 2 or options.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    window = {"kernel_shape": kernel, "strides": list(options.get("strides", [1, 1])), "pads": list(options.get("pads", [0] * 4))}
    if any(step != 1 for step in options.get("dilations", [])):
        return None
    if options.get("ceil_mode", 0) and _pooled(_plane(shapes, node.input[0]), window) != _plane(shapes, node.output[0]):
        return None
    return window


def _pooled(plane: list[int], window: dict[str, Any]) -> list[int]:
    return list(Window.of(window).pooled(*plane)) if plane else []


def _unpooled(plane: list[int], window: dict[str, Any]) -> list[int]:
    return list(Window.of(window).unpooled(*plane)) if plane else []


def _become(node: NodeProto, op_type: str, options: dict[str, Any]) -> None:
    node.domain, node.op_type = DOMAIN, op_type
    del node.attribute[:]
    for name, value in options.items():
        if value != []:
            set_attribute(node, name, value)


# --- the way back: plain MaxPool and MaxUnpool where a runtime has them --------------------------------------------


def pools_to_standard(model: ModelProto) -> None:
    """Make each MaxPoolArgmax whose codes only MaxUnpool reads a MaxPool with Indices, and those MaxUnpools standard, in place.

    A runtime that has both operators then computes no codes. Only where the planes are known to have one size.
    """
    graph = model.graph
    known, shapes, taken = index(graph), known_shapes(model), tensor_names(graph)
    for pool in graph.node:
        if pool.domain != DOMAIN or pool.op_type != "MaxPoolArgmax" or len(pool.output) < 2:
            continue
        readers = known.users(pool.output[1])
        before = shapes.get(pool.input[0])
        if before is None or pool.output[1] in known.pinned:
            continue
        if all(place == 1 and _undoes(node, pool, before, shapes) for node, place in readers):
            for node, _ in readers:
                _standard_unpool(node, before, shapes, graph, taken)
            _become_standard(pool, "MaxPool")
            forget_types(graph, pool.output[1:])


def _undoes(node: NodeProto, pool: NodeProto, before: tuple[int, ...], shapes: dict[str, Shape]) -> bool:
    own, other = attributes(node), attributes(pool)
    same = all(own.get(name, default) == other.get(name, default) for name, default in _DEFAULTS.items())
    return node.domain == DOMAIN and node.op_type == "MaxUnpool" and same and shapes.get(node.output[0]) == before


_DEFAULTS: dict[str, list[int] | None] = {"kernel_shape": None, "strides": [1, 1], "pads": [0, 0, 0, 0]}


def _standard_unpool(node: NodeProto, size: tuple[int, ...], shapes: dict[str, Shape], graph: GraphProto, taken: set[str]) -> None:
    window = {name: attributes(node).get(name, default) for name, default in _DEFAULTS.items()}
    if _unpooled(_plane(shapes, node.input[0]), window) != list(size[2:]):
        name = unique_name(f"{node.output[0]}_size", taken)
        graph.initializer.append(helper.make_tensor(name, helper.TensorProto.INT64, [4], size))
        node.input.append(name)
    _become_standard(node, "MaxUnpool")


def _become_standard(node: NodeProto, op_type: str) -> None:
    node.domain, node.op_type = "", op_type
    for attribute in list(node.attribute):
        if attribute.name not in _DEFAULTS:
            node.attribute.remove(attribute)
