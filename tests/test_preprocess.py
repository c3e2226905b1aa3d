"""Preprocessor: the manifest decides."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import DataError
from edgeseg.manifest import InputSpec
from edgeseg.native import reference
from edgeseg.preprocess import Preprocessor

FRAME = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr", "grey"])
def test_follows_the_manifest(order):
    n = 1 if order == "grey" else 3
    spec = InputSpec(
        width=24, height=16, channels=n, colour_order=order, scale=1 / 127.5, mean=(1.0, 0.9, 1.1)[:n], std=(1.0, 0.5, 2.0)[:n]
    )
    expected = reference.preprocess(FRAME, n, (16, 24), scale=spec.scale, mean=spec.mean, std=spec.std, swap_rb=order == "rgb")
    result = Preprocessor(spec)(FRAME)
    assert result.shape == (1, n, 16, 24)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-3


def test_reuses_the_buffer_it_is_given():
    transform = Preprocessor(InputSpec(width=24, height=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), threads=2)
    out = transform.allocate()
    assert transform(FRAME, out) is out
    assert np.array_equal(out, transform(FRAME))
    assert transform.size == (16, 24)


@pytest.mark.parametrize(
    "frame", [None, FRAME[..., 0], FRAME.astype(np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_refuses_what_is_no_frame(frame):
    transform = Preprocessor(InputSpec(width=24, height=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="BGR"):
        transform(frame)
