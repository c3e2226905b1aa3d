"""One geometric map of a sample: scale, crop, mirror and displacement, the same for pixels, labels, masks and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.scene import Instances, mask_boxes

_GREY = 114
_STEPS = 8
_PLANES = 4  # OpenCV warps at most so many channels with a border colour


@dataclass(frozen=True)
class Warp:
    """out = in * scale - offset in pixel edges, then mirrored, then displaced.

    Attributes:
        sx, sy: scale.
        left, top: edge of the crop in the scaled picture, px.
        size: (height, width) of what comes out.
        mirrored: left and right are exchanged.
        shift: (height, width, 2) float32, where each pixel of the result is taken from, relative to its own place.
    """

    sx: float
    sy: float
    left: float
    top: float
    size: tuple[int, int]
    mirrored: bool = False
    shift: NDArray[np.float32] | None = None

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, C) uint8, bilinear; what the picture does not cover is grey in the colours and 0 in further planes."""
        if max(self.sx, self.sy) < 0.7:  # bilinear sampling aliases when it skips pixels
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / min(self.sx, self.sy)), np.uint8)
        parts = [image] if image.shape[2] <= _PLANES else [image[..., :3], image[..., 3:]]
        # Depth planes stand behind the colours and are 0 where nothing is known.
        borders = [(_GREY, _GREY, _GREY, 0), (0, 0, 0, 0)]
        moved = [self._move(np.ascontiguousarray(part), cv2.INTER_LINEAR, borders[i]) for i, part in enumerate(parts)]
        return moved[0] if len(moved) == 1 else np.concatenate(moved, axis=2)

    def labels(self, labels: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
        """(H, W) uint8, nearest neighbour; ``border`` where the picture does not reach."""
        return self._move(labels, cv2.INTER_NEAREST, border)

    def instances(self, instances: Instances, keypoint_flip: Sequence[int] | None = None) -> Instances:
        """The instances that still have a pixel in the crop; boxes without masks must keep an area."""
        if instances.masks is not None:
            moved = [self._move(mask, cv2.INTER_NEAREST, 0) for mask in instances.masks]
            masks = np.stack(moved) if moved else np.zeros((0, *self.size), np.uint8)
            kept, boxes = masks.any(axis=(1, 2)), mask_boxes(masks)
        else:
            masks, boxes = None, self._boxes(instances.boxes)
            kept = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > 0
        points = self.keypoints(instances.keypoints, keypoint_flip) if instances.keypoints is not None else None
        return Instances(
            boxes[kept],
            instances.classes[kept],
            masks=None if masks is None else masks[kept],
            keypoints=None if points is None else points[kept],
            crowd=None if instances.crowd is None else instances.crowd[kept],
        )

    def keypoints(self, points: NDArray[np.float32], flip: Sequence[int] | None) -> NDArray[np.float32]:
        """(M, K, 3) x, y, v; v is 0 for points outside."""
        x, y = points[..., 0] * self.sx - self.left, points[..., 1] * self.sy - self.top
        visible = points[..., 2]
        if self.mirrored:
            x = self.size[1] - x
            if flip is not None:
                x, y, visible = x[:, flip], y[:, flip], visible[:, flip]
        inside = self._inside(x, y)
        if self.shift is not None:
            x, y = self._undisplaced(x, y, self.shift)
            inside &= self._inside(x, y)
        return np.stack([x, y, np.where(inside, visible, 0)], axis=-1).astype(np.float32)

    def _inside(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
        height, width = self.size
        return (x >= 0) & (x < width) & (y >= 0) & (y < height)

    def _undisplaced(
        self, x: NDArray[np.floating], y: NDArray[np.floating], shift: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Where points go: the field says where a pixel comes from, so that p + shift(p) = (x, y) is solved by iteration."""
        height, width = self.size
        at_x, at_y = x, y
        for _ in range(_STEPS):
            column = np.clip(at_x, 0, width - 1).astype(int)
            row = np.clip(at_y, 0, height - 1).astype(int)
            at_x, at_y = x - shift[row, column, 0], y - shift[row, column, 1]
        return at_x, at_y

    def _boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = self.size
        x = np.clip(boxes[:, [0, 2]] * self.sx - self.left, 0, width)
        y = np.clip(boxes[:, [1, 3]] * self.sy - self.top, 0, height)
        x = width - x[:, ::-1] if self.mirrored else x
        return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)

    def _move(self, plane: NDArray[np.uint8], interpolation: int, border: object) -> NDArray[np.uint8]:
        # Half-pixel centres: x_out + 0.5 = (x_in + 0.5) * s - left.
        sx, sy = self.sx, self.sy
        matrix = np.array([[sx, 0, sx / 2 - 0.5 - self.left], [0, sy, sy / 2 - 0.5 - self.top]])
        options: dict[str, Any] = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": border}
        moved = cv2.warpAffine(plane, matrix, (self.size[1], self.size[0]), flags=interpolation, **options)
        if self.mirrored:
            moved = moved[:, ::-1]
        if self.shift is not None:
            columns, rows = np.meshgrid(np.arange(self.size[1], dtype=np.float32), np.arange(self.size[0], dtype=np.float32))
            moved = cv2.remap(
                np.ascontiguousarray(moved), columns + self.shift[..., 0], rows + self.shift[..., 1], interpolation, **options
            )
        return np.asarray(moved, np.uint8)
