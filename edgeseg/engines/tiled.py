"""Inference in tiles: pictures of any size at their own scale, in memory that does not grow with their height.

Tiles overlap; the scores of neighbours are blended by weights that fall linearly over the overlap and add up to one, so that the
pixels next to a tile's edge, which saw the least around them, count least. Beyond the picture stand its mirrored pixels
(the overlap-tile strategy of Ronneberger et al., MICCAI 2015, figure 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.engines.predictor import Predictor
from edgeseg.engines.session import Session
from edgeseg.errors import BackendError, DataError
from edgeseg.postprocess.decode import decision_cut

if TYPE_CHECKING:
    from edgeseg.manifest import Manifest

Scores = NDArray[np.float32]
Labels = NDArray[np.uint8]
Progress = Callable[[int, int], object]


class Picture(Protocol):
    """A picture that is read in parts."""

    size: tuple[int, int]

    def read(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
        """Rows [top, bottom) and columns [left, right), all inside: (h, w, C) uint8, BGR first."""
        ...


@dataclass(frozen=True)
class Axis:
    """Where the tiles of one axis lie.

    Attributes:
        size: of the picture. tile: of a tile. overlap: that neighbours share; all in pixels.
    """

    size: int
    tile: int
    overlap: int

    @property
    def step(self) -> int:
        return self.tile - self.overlap

    @property
    def starts(self) -> list[int]:
        """First pixel of each tile: half an overlap lies outside the picture at both ends."""
        margin = self.overlap // 2
        count = max(1, -(-(self.size + 2 * margin - self.overlap) // self.step))
        return [index * self.step - margin for index in range(count)]

    def weights(self, index: int) -> Scores:
        """(tile) float32: 1, and a ramp over what is shared with a neighbour."""
        weights = np.ones(self.tile, np.float32)
        ramp = (np.arange(self.overlap, dtype=np.float32) + 0.5) / max(1, self.overlap)
        if index > 0:
            weights[: self.overlap] = ramp
        if index < len(self.starts) - 1:
            weights[self.tile - self.overlap :] = ramp[::-1]
        return weights

    def done(self, index: int) -> int:
        """Pixels of tile ``index`` from its start on that no later tile changes."""
        return self.tile if index == len(self.starts) - 1 else self.step


class TiledPredictor(Predictor):
    """A ``Predictor`` whose frames are cut into tiles of the network's input size; its stages are those of one tile.

    Raises:
        BackendError: the model gives no scores of pixels, or what follows the scores needs the whole frame.
    """

    def __init__(self, session: Session, manifest: Manifest, threads: int = 1) -> None:
        super().__init__(session, manifest, threads)
        tile, spec = manifest.tile, manifest.input
        if tile is None or manifest.output.kind not in ("logits", "softmax", "sigmoid"):
            raise BackendError(f"{manifest.name}: output {manifest.output.kind} in tiles", "scores of pixels", "leave out $.tile")
        if manifest.crf is not None or manifest.spaces:
            raise BackendError(
                f"{manifest.name}: tiles with a dense CRF or several label spaces", "one of them", "leave out $.tile"
            )
        if tile.overlap > min(spec.width, spec.height) // 2:
            most = min(spec.width, spec.height) // 2
            raise BackendError(f"$.tile.overlap {tile.overlap}", f"at most {most}, half a tile of {spec.width}x{spec.height} px")
        self.tile, self._threads = tile, threads

    def __call__(self, frame: np.ndarray) -> Labels:
        """(H, W, C) uint8, BGR first -> (H, W) uint8 labels."""
        labels = np.empty(frame.shape[:2], np.uint8)

        def write(top: int, left: int, part: Labels) -> None:
            labels[top : top + part.shape[0], left : left + part.shape[1]] = part

        self.run(InMemory(frame), write)
        return labels

    def run(
        self, picture: Picture, write: Callable[[int, int, Labels], None], progress: Progress = lambda done, total: None
    ) -> None:
        """Label a picture part by part.

        Args:
            write: given the top, the left and the labels of each finished part; parts are disjoint and cover the picture.
            progress: told how many of how many tiles are done.
        """
        height, width = picture.size
        if height < 1 or width < 1:
            raise DataError(f"a picture of {width}x{height} px", "at least one pixel")
        spec, overlap = self.manifest.input, self.tile.overlap
        rows, columns = Axis(height, spec.height, overlap), Axis(width, spec.width, overlap)
        total, done = len(rows.starts) * len(columns.starts), 0
        above: dict[int, Scores] = {}  # by column: what the tiles above gave to the rows they share with these
        for i, top in enumerate(rows.starts):
            for j, scores in enumerate(self._band(picture, rows, i, columns)):
                if i > 0:
                    scores[:, :overlap] += above[j]
                finished = rows.done(i)
                above[j] = scores[:, finished:].copy()
                self._write(write, scores[:, :finished], top, columns.starts[j], picture.size)
                done += 1
                progress(done, total)

    def _band(self, picture: Picture, rows: Axis, i: int, columns: Axis) -> Iterator[Scores]:
        """The weighted scores (C, tile, done) of the tiles of one band, what neighbours share already added up."""
        left_over: Scores | None = None
        for j, left in enumerate(columns.starts):
            scores = self._scores(picture, rows.starts[i], left) * (rows.weights(i)[:, None] * columns.weights(j)[None])
            if left_over is not None:
                scores[:, :, : columns.overlap] += left_over
            finished = columns.done(j)
            left_over = scores[:, :, finished:].copy()
            yield scores[:, :, :finished].copy()

    def _scores(self, picture: Picture, top: int, left: int) -> Scores:
        """Scores (C, tile, tile) float32 of the tile whose first pixel is (top, left), which may lie outside."""
        spec = self.manifest.input
        window = read_window(picture, top, left, (spec.height, spec.width), self.tile.border)
        found = self.infer(self.preprocess(window))[self.manifest.output.name][0]
        if found.shape[-2:] == (spec.height, spec.width):
            return np.asarray(found, np.float32)
        planes = [cv2.resize(plane, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR) for plane in found]
        return np.asarray(np.stack(planes), np.float32)

    def _write(self, write: Callable[[int, int, Labels], None], scores: Scores, top: int, left: int, size: tuple[int, int]) -> None:
        first_row, first_column = max(0, -top), max(0, -left)
        last_row, last_column = min(scores.shape[1], size[0] - top), min(scores.shape[2], size[1] - left)
        part = scores[:, first_row:last_row, first_column:last_column]
        if part.shape[1] and part.shape[2]:
            write(top + first_row, left + first_column, self._labels(part))

    def _labels(self, scores: Scores) -> Labels:
        if scores.shape[0] == 1:
            return (scores[0] > decision_cut(self.manifest.output)).astype(np.uint8)
        size = (scores.shape[1], scores.shape[2])
        return native.upsample_argmax(np.ascontiguousarray(scores), size, threads=self._threads)


class InMemory:
    """A frame as a ``Picture``."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self._frame, self.size = frame, (frame.shape[0], frame.shape[1])

    def read(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
        return self._frame[top:bottom, left:right]


def read_window(picture: Picture, top: int, left: int, size: tuple[int, int], border: str) -> NDArray[np.uint8]:
    """(h, w, C) uint8 at (top, left), which may lie outside: mirrored ("mirror") or black ("zero") there."""
    (height, width), (rows, columns) = picture.size, size
    if border == "mirror":
        y, x = _mirrored(np.arange(top, top + rows), height), _mirrored(np.arange(left, left + columns), width)
        part = picture.read(y.min(), y.max() + 1, x.min(), x.max() + 1)
        return np.ascontiguousarray(part[y - y.min()][:, x - x.min()])
    inside = [(max(0, first), min(full, first + side)) for first, side, full in ((top, rows, height), (left, columns, width))]
    part = picture.read(*inside[0], *inside[1])
    out = np.zeros((rows, columns, part.shape[2]), np.uint8)
    out[inside[0][0] - top : inside[0][1] - top, inside[1][0] - left : inside[1][1] - left] = part
    return out


def _mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places inside [0, size) that stand for any: reflection that does not repeat the edge, as often as needed."""
    if size == 1:
        return np.zeros_like(places)
    wrapped = places % (2 * size - 2)
    return np.minimum(wrapped, 2 * size - 2 - wrapped)
