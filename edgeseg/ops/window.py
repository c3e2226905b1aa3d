"""The pooling window of a node: kernel, strides and padding of two axes, and the sizes that follow from them (MaxPool-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Window:
    """A pooling window: ``kernel`` and ``strides`` (rows, columns), ``pads`` (top, left, bottom, right) as ONNX orders them."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Window:
        """The window that ``kernel_shape``, ``strides`` and ``pads`` of a node say, absent or empty ones at their defaults."""
        strides, pads = attributes.get("strides") or (1, 1), attributes.get("pads") or (0, 0, 0, 0)
        return cls(tuple(attributes["kernel_shape"]), tuple(strides), tuple(pads))

    def pooled_side(self, axis: int, side: int) -> int:
        """Rows (axis 0) or columns of a pooled plane."""
        return (side + self.pads[axis] + self.pads[axis + 2] - self.kernel[axis]) // self.strides[axis] + 1

    def unpooled_side(self, axis: int, side: int) -> int:
        """Rows (axis 0) or columns of the smallest plane that pools to this."""
        return (side - 1) * self.strides[axis] + self.kernel[axis] - self.pads[axis] - self.pads[axis + 2]

    def pooled(self, height: int, width: int) -> tuple[int, int]:
        """The size of a pooled plane."""
        return self.pooled_side(0, height), self.pooled_side(1, width)

    def unpooled(self, height: int, width: int) -> tuple[int, int]:
        """The smallest plane that pools to this size."""
        return self.unpooled_side(0, height), self.unpooled_side(1, width)

    def corner(self, i: int, j: int) -> tuple[int, int]:
        """Row and column of the first place of window (i, j); outside the plane where that is padding."""
        return i * self.strides[0] - self.pads[0], j * self.strides[1] - self.pads[1]
