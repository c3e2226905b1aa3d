"""Tiles: the blend adds up, a network that looks at no neighbours gives what it gives on the whole picture, memory stays small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.engines.serving import open_predictor
from edgeseg.engines.session import SessionBase, TensorSpec
from edgeseg.engines.tiled import Axis, InMemory, TiledPredictor, read_window
from edgeseg.errors import BackendError, DataError
from edgeseg.manifest import ClassInfo, CrfSpec, InputSpec, Manifest, OutputSpec, TileSpec

RNG = np.random.default_rng(0)


class Pointwise(SessionBase):
    """Scores of a pixel from that pixel alone, at ``stride``; remembers the sizes it saw."""

    def __init__(self, spec: InputSpec, stride: int = 1) -> None:
        self._stride = stride
        shape = (1, 3, spec.height // stride, spec.width // stride)
        super().__init__("fp32", [TensorSpec("image", spec.shape)], [TensorSpec("logits", shape)])

    def _execute(self, feeds, outputs) -> None:
        outputs["logits"][:] = feeds["image"][:, :, :: self._stride, :: self._stride]


def manifest(width: int = 16, height: int = 12, overlap: int = 4, **changes: object) -> Manifest:
    spec = InputSpec(width=width, height=height, mean=(0.0,) * 3, std=(1.0,) * 3)
    classes = [ClassInfo(name=name, colour=(0, 0, 0)) for name in "abc"]
    made = Manifest(name="tiny", classes=classes, input=spec, tile=TileSpec(overlap=overlap))
    return made.model_copy(update=changes)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 90), st.integers(2, 24), st.data())
def test_weights_of_all_tiles_add_up_to_one_over_the_picture(size: int, tile: int, data: st.DataObject) -> None:
    axis = Axis(size, tile, data.draw(st.integers(0, tile // 2)))
    margin = axis.overlap // 2
    total = np.zeros(size + 2 * tile + 2 * axis.step * len(axis.starts))
    for index, start in enumerate(axis.starts):
        total[margin + start : margin + start + tile] += axis.weights(index)
    np.testing.assert_allclose(total[margin : margin + size], 1, atol=1e-6)
    assert axis.starts[0] == -margin
    assert axis.starts[-1] + tile >= size + margin, "the last pixel has context too"
    covered = sum(axis.done(index) for index in range(len(axis.starts)))
    assert axis.starts[0] + covered >= size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 6), st.sampled_from(["mirror", "zero"]))
def test_a_pointwise_network_gives_the_same_in_tiles(height: int, width: int, overlap: int, border: str) -> None:
    description = manifest(overlap=overlap, tile=TileSpec(overlap=overlap, border=border))
    frame = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), np.uint8)
    predictor = TiledPredictor(Pointwise(description.input), description)
    assert np.array_equal(predictor(frame), frame[..., ::-1].argmax(2))


def test_parts_are_disjoint_cover_the_picture_and_are_told() -> None:
    description = manifest()
    frame = RNG.integers(0, 256, (45, 71, 3), np.uint8)
    seen, told = np.zeros((45, 71), int), []

    def write(top: int, left: int, part: np.ndarray) -> None:
        seen[top : top + part.shape[0], left : left + part.shape[1]] += 1

    predictor = TiledPredictor(Pointwise(description.input), description)
    predictor.run(InMemory(frame), write, lambda done, total: told.append((done, total)))
    assert (seen == 1).all()
    assert told == [(index + 1, len(told)) for index in range(len(told))]


def test_coarse_scores_are_enlarged_before_they_are_blended() -> None:
    description = manifest(width=16, height=16, overlap=8)
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:, 20:, 0], frame[:, :20, 1] = 200, 200
    labels = TiledPredictor(Pointwise(description.input, 2), description)(frame)
    assert (labels[:, :18] == 1).all()
    assert (labels[:, 22:] == 2).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(-12, 9), st.integers(-12, 9))
def test_windows_that_hang_over_are_mirrored(height: int, width: int, top: int, left: int) -> None:
    frame = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    padded = np.pad(frame, ((12, 24), (12, 24), (0, 0)), "reflect" if min(height, width) > 1 else "symmetric")
    if min(height, width) > 1:
        found = read_window(InMemory(frame), top, left, (7, 5), "mirror")
        assert np.array_equal(found, padded[12 + top : 19 + top, 12 + left : 17 + left])
    zero = np.pad(frame, ((12, 24), (12, 24), (0, 0)))
    if top < height and left < width and top > -7 and left > -5:
        found = read_window(InMemory(frame), top, left, (7, 5), "zero")
        assert np.array_equal(found, zero[12 + top : 19 + top, 12 + left : 17 + left])


def test_memory_does_not_grow_with_the_height() -> None:
    description = manifest()
    rows_read: list[int] = []

    class Endless:
        size = (20_000, 8)

        def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
            rows_read.append(bottom - top)
            return np.zeros((bottom - top, right - left, 3), np.uint8)

    written = 0

    def write(top: int, left: int, part: np.ndarray) -> None:
        nonlocal written
        written += part.size

    TiledPredictor(Pointwise(description.input), description).run(Endless(), write)
    assert written == 160_000
    assert max(rows_read) <= description.input.height


def test_the_manifest_chooses_and_what_cannot_be_is_refused() -> None:
    description = manifest()
    assert isinstance(open_predictor(Pointwise(description.input), description), TiledPredictor)
    for changed, what in (
        (manifest(overlap=7), "half a tile"),
        (manifest(crf=CrfSpec()), "dense CRF"),
        (manifest(output=OutputSpec(kind="labels")), "scores"),
    ):
        with pytest.raises(BackendError, match=what):
            TiledPredictor(Pointwise(changed.input), changed)
    with pytest.raises(DataError, match="0 px"):
        TiledPredictor(Pointwise(description.input), description)(np.zeros((0, 5, 3), np.uint8))
