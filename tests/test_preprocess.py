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


def test_letterbox_keeps_the_aspect_and_pads_with_nothing():
    spec = InputSpec(width=40, height=30, resize="letterbox", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    transform = Preprocessor(spec)
    for (height, width), (kept_h, kept_w) in (((37, 53), (28, 40)), ((90, 30), (30, 10)), ((15, 20), (30, 40))):
        frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
        out = transform(frame)
        inner = spec.model_copy(update={"width": kept_w, "height": kept_h, "resize": "stretch"})
        assert np.array_equal(out[:, :, :kept_h, :kept_w], Preprocessor(inner)(frame))
        assert not out[:, :, kept_h:].any() and not out[:, :, :, kept_w:].any()
        place = transform.placement((height, width))
        assert (place.scale_x, place.scale_y) == (kept_w / width, kept_h / height)
        assert place.input == (30, 40)


@pytest.mark.parametrize(("modality", "planes"), [("rgbd", 4), ("rgb-hha", 6)])
def test_planes_behind_the_colours_pass_as_they_are(modality, planes):
    mean, std = tuple(0.1 * n for n in range(planes)), tuple(0.2 + 0.1 * n for n in range(planes))
    spec = InputSpec(width=24, height=16, channels=planes, modality=modality, mean=mean, std=std)
    frame = np.random.default_rng(2).integers(0, 256, (37, 53, planes), dtype=np.uint8)
    out = Preprocessor(spec)(frame)
    colours = InputSpec(width=24, height=16, mean=mean[:3], std=std[:3])
    assert np.array_equal(out[:, :3], Preprocessor(colours)(np.ascontiguousarray(frame[..., :3])))
    for index in range(3, planes):
        plane = np.repeat(frame[..., index : index + 1], 3, axis=2)
        grey = InputSpec(width=24, height=16, channels=1, colour_order="grey", mean=(mean[index],), std=(std[index],))
        assert np.abs(out[:, index] - Preprocessor(grey)(plane)[:, 0]).max() < 1e-3
    with pytest.raises(DataError, match=rf"expected \(height, width, {planes}\) uint8 in channels of {modality}"):
        Preprocessor(spec)(FRAME)
