"""The pools as ONNX functions of opset 18: in standard operators (``standard_*``), and in primitive ones alone (``primitive_*``).

The standard bodies need no shapes; where values name places outside the plane a runtime refuses or drops them as its
MaxUnpool does. The primitive bodies use no MaxPool indices, MaxUnpool or NonZero, and promise nothing for NaN, which
runtimes pool in ways of their own.

Primitive codes exist as constants that ``Where`` picks from and ``Equal`` compares with, never as the result of ``Cast``:
TensorRT's parser refuses uint8 between nodes but reads uint8 constants as int32, so that a pool and its unpool build
there as they stand. Codes that are an input or output of such a graph need a ``Cast`` between the outside's uint8 and an
inside with ``code_type=TensorProto.INT32``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from edgeseg.errors import OnnxError
from edgeseg.ops.body import BodyWriter
from edgeseg.ops.functions import Bodies, Shape
from edgeseg.ops.window import Window

Attributes = dict[str, Any]


class _Body(BodyWriter):
    def pool_with_indices(self, x: str, **attributes: Any) -> tuple[str, str]:
        """Standard MaxPool with both its results."""
        names = self._fresh("maxpool"), self._fresh("indices")
        self._nodes.append(helper.make_node("MaxPool", [x], names, **attributes))
        return names

    def like(self, value: float, other: str) -> str:
        """A scalar in the type of another tensor."""
        return self.op("CastLike", float(value), other)


class _Window:
    """The window of a node, by axis: ``pads`` before, ``ends`` after."""

    def __init__(self, attributes: Attributes) -> None:
        self._window = Window.of(attributes)
        self.kernel, self.strides = list(self._window.kernel), list(self._window.strides)
        self.pads, self.ends = list(self._window.pads[:2]), list(self._window.pads[2:])
        self.size: list[int] = list(attributes.get("output_size") or [])

    @property
    def pool(self) -> Attributes:
        """The attributes of the standard pools."""
        return {"kernel_shape": self.kernel, "strides": self.strides, "pads": self.pads + self.ends}

    def places(self) -> list[tuple[int, int, int]]:
        """(code, row, column) of every place of the window."""
        return [(dy * self.kernel[1] + dx, dy, dx) for dy, dx in np.ndindex(*self.kernel)]

    def pooled(self, plane: tuple[int, ...]) -> list[int]:
        return list(self._window.pooled(*plane))

    def unpooled(self, plane: tuple[int, ...]) -> list[int]:
        return self.size or list(self._window.unpooled(*plane))


# --- standard ---------------------------------------------------------------------------------------------------------


def standard_pool_codes(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxPoolArgmax: what is left of MaxPool's index when its plane and the corner of its window are taken off."""
    body, window = _Body(), _Window(attributes)
    y, indices = body.pool_with_indices("x", **window.pool)
    height, width, kernel_w = _side(body, "x", 2), _side(body, "x", 3), body.constant([window.kernel[1]])
    place = body.op("Mod", indices, body.op("Mul", height, width))
    # row * width + column becomes row * kernel_w + column, for the place as for the corner.
    narrowed = body.op("Add", place, body.op("Mul", body.op("Div", place, width), body.op("Sub", kernel_w, width)))
    codes = body.op("Cast", body.op("Sub", narrowed, _corners(body, window, y, kernel_w)), to=TensorProto.UINT8)
    return body.finish(name, ["x"], {"y": y, "codes": codes})


def standard_unpool_codes(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxUnpool: the index that each code stands for, then the operator for indices."""
    body, window = _Body(), _Window(attributes)
    height, width = (_unpooled_side(body, window, axis) for axis in (0, 1))
    code, kernel_w = body.op("Cast", "codes", to=TensorProto.INT64), body.constant([window.kernel[1]])
    widened = body.op("Add", code, body.op("Mul", body.op("Div", code, kernel_w), body.op("Sub", width, kernel_w)))
    inside = body.op("Add", widened, _corners(body, window, "y", width))
    planes = body.op("Mul", _planes(body, "y"), body.op("Mul", height, width))
    return body.finish(name, ["y", "codes"], {"x": _unpool(body, window, "y", body.op("Add", inside, planes))})


def standard_pool_indices(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxPoolIndices: MaxPool itself."""
    body, order = _Body(), attributes.get("storage_order", 0)
    y, indices = body.pool_with_indices("x", **_Window(attributes).pool, storage_order=order)
    return body.finish(name, ["x"], {"y": y, "indices": indices})


def standard_unpool_indices(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxUnpoolIndices: MaxUnpool, or a scatter where an output size is given."""
    body = _Body()
    return body.finish(name, ["y", "indices"], {"x": _unpool(body, _Window(attributes), "y", "indices")})


def _unpool(body: _Body, window: _Window, values: str, indices: str) -> str:
    if not window.size:
        return body.op("MaxUnpool", values, indices, **window.pool)
    # Runtimes disagree on whether indices count in MaxUnpool's output_shape; in a scatter there is no doubt.
    return _scatter(body, values, indices, body.op("Concat", body.op("Shape", values, start=0, end=2), window.size, axis=0))


def _scatter(body: _Body, values: str, indices: str, shape: str) -> str:
    zeros = body.op("Expand", body.like(0.0, values), body.op("ReduceProd", shape, keepdims=1))
    flat = [body.op("Reshape", tensor, [-1]) for tensor in (indices, values)]
    return body.op("Reshape", body.op("ScatterElements", zeros, *flat, axis=0), shape)


def _side(body: _Body, tensor: str, axis: int) -> str:
    return body.op("Shape", tensor, start=axis, end=axis + 1)


def _unpooled_side(body: _Body, window: _Window, axis: int) -> str:
    """One side of the unpooled plane, int64 of one element."""
    if window.size:
        return body.constant([window.size[axis]])
    # (size - 1) * stride + kernel - pads
    rest = window.kernel[axis] - window.strides[axis] - window.pads[axis] - window.ends[axis]
    return body.op("Add", body.op("Mul", _side(body, "y", axis + 2), window.strides[axis]), rest)


def _starts(body: _Body, window: _Window, pooled: str, axis: int) -> str:
    """Row (or column) of the first place of each window, (size) int64."""
    count = body.op("Range", 0, body.op("Squeeze", _side(body, pooled, axis + 2)), 1)
    return body.op("Sub", body.op("Mul", count, window.strides[axis]), window.pads[axis])


def _corners(body: _Body, window: _Window, pooled: str, width: str) -> str:
    """row * width + column of the first place of each window, (h, w) int64."""
    rows = body.op("Mul", body.op("Unsqueeze", _starts(body, window, pooled, 0), [1]), width)
    return body.op("Add", rows, _starts(body, window, pooled, 1))


def _planes(body: _Body, tensor: str) -> str:
    """The number of each plane in the tensor, (N, C, 1, 1) int64."""
    sides = body.op("Shape", tensor, start=0, end=2)
    numbers = body.op("Range", 0, body.op("ReduceProd", sides, keepdims=0), 1)
    return body.op("Reshape", numbers, body.op("Concat", sides, [1, 1], axis=0), allowzero=1)


# --- primitive --------------------------------------------------------------------------------------------------------


def primitive_pool_codes(
    name: str, attributes: Attributes, shapes: list[Shape], code_type: int = TensorProto.UINT8
) -> FunctionProto:
    """MaxPoolArgmax: MaxPool without indices, and the first place of each window that equals its maximum."""
    body, window = _Body(), _Window(attributes)
    y = body.op("MaxPool", "x", **window.pool)
    dtype = helper.tensor_dtype_to_np_dtype(code_type)
    codes = _first_equal(body, window, y, _shape(name, shapes), [code for code, _, _ in window.places()], dtype)
    return body.finish(name, ["x"], {"y": y, "codes": codes})


def primitive_pool_indices(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxPoolIndices: as for codes, with each window's corner added."""
    body, window, shape = _Body(), _Window(attributes), _shape(name, shapes)
    height, width = shape[2:]
    down, right = (1, height) if attributes.get("storage_order", 0) else (width, 1)
    y = body.op("MaxPool", "x", **window.pool)
    offsets = _first_equal(body, window, y, shape, [dy * down + dx * right for _, dy, dx in window.places()], np.int64)
    rows, columns = (np.arange(size) * window.strides[a] - window.pads[a] for a, size in enumerate(window.pooled(shape[2:])))
    planes = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1) * height * width
    corners = body.op("Add", planes, rows[:, None] * down + columns * right)
    return body.finish(name, ["x"], {"y": y, "indices": body.op("Add", offsets, corners)})


def _first_equal(body: _Body, window: _Window, y: str, shape: tuple[int, ...], labels: list[int], dtype: Any) -> str:
    """For each window the label of its first place that holds the maximum."""
    pooled = window.pooled(shape[2:])
    padded = _padded(body, window, shape[2:], pooled)
    chosen = body.constant(labels[-1], dtype)
    # From the last place to the first, so that of equals the first stays.
    for code, dy, dx in reversed(window.places()):
        ends = [offset + (pooled[a] - 1) * window.strides[a] + 1 for a, offset in enumerate((dy, dx))]
        equal = body.op("Equal", body.op("Slice", padded, [dy, dx], ends, [2, 3], window.strides), y)
        chosen = body.op("Where", equal, body.constant(labels[code], dtype), chosen)
    return chosen


def _padded(body: _Body, window: _Window, plane: tuple[int, ...], pooled: list[int]) -> str:
    """The plane with what its windows cover beside it, as NaN: equal to no maximum, padding is never the place of one."""
    after = [max(0, (pooled[a] - 1) * window.strides[a] + window.kernel[a] - window.pads[a] - plane[a]) for a in (0, 1)]
    if not any(window.pads + after):
        return "x"
    return body.op("Pad", "x", [0, 0, *window.pads, 0, 0, *after], body.like(float("nan"), "x"))


def primitive_unpool_codes(
    name: str, attributes: Attributes, shapes: list[Shape], code_type: int = TensorProto.UINT8
) -> FunctionProto:
    """MaxUnpool: each value beside a stride x stride block of the codes that would put it there, then a reshape.

    Windows larger than the stride reach into the blocks below and to the right, ``reach`` blocks in all: one comparison
    for each, from the farthest (the earliest window) to the nearest, whose value stays.

    Raises:
        OnnxError: the input's shape is unknown, or windows of 256 places overlap, which leave no code for padding.
    """
    body, window, shape = _Body(), _Window(attributes), _shape(name, shapes)
    reach = [-(-window.kernel[a] // window.strides[a]) for a in (0, 1)]
    if reach != [1, 1] and window.kernel[0] * window.kernel[1] == 256:
        raise OnnxError(f"{name}: overlapping windows of 256 places", "at most 255", "use smaller windows or larger strides")
    dtype = helper.tensor_dtype_to_np_dtype(code_type)
    blocks = [shape[2 + a] + reach[a] - 1 for a in (0, 1)]
    values, codes = _room(body, "y", reach, body.like(0.0, "y")), _room(body, "codes", reach, body.constant(255, dtype))
    out = body.like(0.0, "y")
    for block in reversed(list(np.ndindex(*reach))):
        corner = [reach[a] - 1 - block[a] for a in (0, 1)]
        value, code = (_shifted(body, tensor, corner, blocks, reach) for tensor in (values, codes))
        out = body.op("Where", _named(body, code, window, block, dtype), value, out)
    spread = [blocks[a] * window.strides[a] for a in (0, 1)]
    plane = body.op("Reshape", out, [-1, shape[1], *spread])
    return body.finish(name, ["y", "codes"], {"x": _fitted(body, window, plane, spread, window.unpooled(shape[2:]))})


def _room(body: _Body, tensor: str, reach: list[int], filler: str) -> str:
    """Blocks around a pooled plane for windows that reach over their own block."""
    margin = [reach[0] - 1, reach[1] - 1]
    return tensor if not any(margin) else body.op("Pad", tensor, [0, 0, *margin, 0, 0, *margin], filler)


def _shifted(body: _Body, tensor: str, corner: list[int], blocks: list[int], reach: list[int]) -> str:
    """(N, C, h, w) from ``corner`` on as (N * C * blocks_h, 1, blocks_w, 1)."""
    if reach != [1, 1]:
        tensor = body.op("Slice", tensor, corner, [corner[a] + blocks[a] for a in (0, 1)], [2, 3])
    return body.op("Reshape", tensor, [-1, 1, blocks[1], 1])


def _named(body: _Body, code: str, window: _Window, block: tuple[int, ...], dtype: Any) -> str:
    """Which places of a block (1, stride_h, 1, stride_w) the codes name, seen from a window ``block`` blocks before."""
    rows, columns = (np.arange(window.strides[a]) + block[a] * window.strides[a] for a in (0, 1))
    inside = (rows < window.kernel[0])[:, None] & (columns < window.kernel[1])
    wanted = np.where(inside, rows[:, None] * window.kernel[1] + columns, 0).reshape(1, window.strides[0], 1, window.strides[1])
    named = body.op("Equal", code, body.constant(wanted, dtype))
    return named if inside.all() else body.op("And", named, inside.reshape(wanted.shape))


def _fitted(body: _Body, window: _Window, tensor: str, spread: list[int], size: list[int]) -> str:
    """The plane without its padding, cut or filled up with zeros to ``size``."""
    ends = [min(spread[a], window.pads[a] + size[a]) for a in (0, 1)]
    missing = [size[a] - (ends[a] - window.pads[a]) for a in (0, 1)]
    if any(window.pads) or ends != spread:
        tensor = body.op("Slice", tensor, window.pads, ends, [2, 3])
    return body.op("Pad", tensor, [0, 0, 0, 0, 0, 0, *missing], body.like(0.0, "y")) if any(missing) else tensor


def primitive_unpool_indices(name: str, attributes: Attributes, shapes: list[Shape]) -> FunctionProto:
    """MaxUnpoolIndices: a scatter, which leaves open what happens to indices that come twice or lie outside."""
    body, shape = _Body(), _shape(name, shapes)
    size = [*shape[:2], *_Window(attributes).unpooled(shape[2:])]
    return body.finish(name, ["y", "indices"], {"x": _scatter(body, "y", "indices", body.constant(size))})


def _shape(name: str, shapes: list[Shape]) -> tuple[int, ...]:
    shape = shapes[0] if shapes else None
    if shape is None or len(shape) != 4:
        raise OnnxError(f"{name}: its input is {shape}", "a known shape (N, C, H, W)", "export with static shapes")
    return shape


BODIES: dict[str, Bodies] = {
    "MaxPoolArgmax": Bodies(standard_pool_codes, primitive_pool_codes),
    "MaxUnpool": Bodies(standard_unpool_codes, primitive_unpool_codes),
    "MaxPoolIndices": Bodies(standard_pool_indices, primitive_pool_indices),
    "MaxUnpoolIndices": Bodies(standard_unpool_indices, primitive_unpool_indices),
}
