"""LabelDecoder and colours: every kind of output of the manifest."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import BackendError
from edgeseg.manifest import ClassInfo, OutputSpec
from edgeseg.native import reference
from edgeseg.postprocess import LabelDecoder, colorize, palette_bgr

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((1, 5, 9, 12)).astype(np.float32)


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_scores_become_the_argmax(kind):
    decode = LabelDecoder(OutputSpec(kind=kind), 5)
    expected = reference.upsample_argmax(SCORES[0], (18, 24))
    assert (decode(SCORES, (18, 24)) == expected).mean() > 0.998
    assert np.array_equal(decode(SCORES[0], (18, 24)), decode(SCORES, (18, 24)))


def test_half_precision_scores_are_taken():
    decode = LabelDecoder(OutputSpec(), 5)
    assert (decode(SCORES.astype(np.float16), (9, 12)) == SCORES[0].argmax(0)).mean() > 0.95


def test_one_channel_is_thresholded_as_a_probability():
    probability = RNG.random((1, 1, 6, 7)).astype(np.float32)
    logits = np.log(probability / (1 - probability)).astype(np.float32)
    expected = (probability[0, 0] > 0.8).astype(np.uint8)
    assert np.array_equal(LabelDecoder(OutputSpec(kind="sigmoid", threshold=0.8), 2)(probability, (6, 7)), expected)
    assert np.array_equal(LabelDecoder(OutputSpec(kind="logits", threshold=0.8), 2)(logits, (6, 7)), expected)


@pytest.mark.parametrize(("threshold", "label"), [(0.0, 1), (1.0, 0)])
def test_thresholds_of_zero_and_one(threshold, label):
    decode = LabelDecoder(OutputSpec(kind="logits", threshold=threshold), 2)
    assert (decode(SCORES[:, :1], (20, 20)) == label).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_label_maps_are_enlarged(dtype, shape):
    labels = RNG.integers(0, 5, (4, 6))
    decode = LabelDecoder(OutputSpec(kind="labels"), 5)
    assert np.array_equal(decode(labels.reshape(shape).astype(dtype), (8, 12)), labels.repeat(2, 0).repeat(2, 1))


def test_writes_into_out():
    out = np.empty((10, 11), np.uint8)
    assert LabelDecoder(OutputSpec(), 5, threads=2)(SCORES, (10, 11), out) is out


@pytest.mark.parametrize("array", [SCORES[:, :3], SCORES[:, :1], SCORES[0, 0], np.zeros((2, 5, 4, 4), np.float32)])
def test_misfits_name_the_output(array):
    with pytest.raises(BackendError, match=r"'logits'.*\(1, 5, h, w\)"):
        LabelDecoder(OutputSpec(), 5)(array, (8, 8))


def test_misfitting_label_map():
    with pytest.raises(BackendError, match="labels"):
        LabelDecoder(OutputSpec(kind="labels"), 5)(SCORES, (8, 8))


def test_palette_is_bgr_and_black_beyond_the_classes():
    palette = palette_bgr([ClassInfo(name="road", colour=(1, 2, 3)), ClassInfo(name="sky", colour=(4, 5, 6))])
    assert palette[0].tolist() == [3, 2, 1]
    assert not palette[2:].any()
    assert colorize(np.array([[1, 0], [7, 1]], np.uint8), palette)[0, 0].tolist() == [6, 5, 4]
