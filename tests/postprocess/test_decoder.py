"""One door to the decoders: the manifest alone decides what comes out."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import BackendError
from edgeseg.manifest import ClassInfo, CrfSpec, LabelSpace, OutputSpec
from edgeseg.native import upsample_argmax
from edgeseg.postprocess import LabelDecoder
from edgeseg.postprocess.decoder import class_map, make_decoder
from edgeseg.scene import Instances, Panoptic, Segment
from tests.postprocess.placed import letterboxed, manifest, stretched

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1, 4, 12, 16)).astype(np.float32)


def test_scores_are_decoded_as_the_fused_path_does() -> None:
    plain = manifest("logits", "semantic")
    labels = make_decoder(plain)({"logits": LOGITS}, stretched(40, 50))
    assert np.array_equal(labels, LabelDecoder(OutputSpec(), 4)(LOGITS, (40, 50)))


def test_each_label_space_has_its_channels() -> None:
    geometry = LabelSpace(name="geometry", classes=[ClassInfo(name=name, colour=(0, 0, 0)) for name in ("flat", "upright")])
    logits = np.concatenate([LOGITS, RNG.normal(size=(1, 2, 12, 16)).astype(np.float32)], axis=1)
    decoder = make_decoder(manifest("logits", "semantic", spaces=[geometry]))
    found = decoder({"logits": logits}, stretched())
    assert isinstance(found, list)
    assert np.array_equal(found[0], upsample_argmax(logits[0, :4], (48, 64)))
    assert np.array_equal(found[1], upsample_argmax(logits[0, 4:], (48, 64)))
    with pytest.raises(BackendError, match=r"expected \(1, 4 \+ 2, h, w\)"):
        decoder({"logits": LOGITS}, stretched())


def test_a_letterboxed_frame_is_what_the_map_shows_of_it() -> None:
    logits = np.full((1, 4, 12, 16), -5, np.float32)
    logits[:, 3] = 5  # padding, which must never show
    logits[:, 1, :, :8] = 9  # a frame of 48 x 32 px fills the left half
    labels = make_decoder(manifest("logits", "semantic"))({"logits": logits}, letterboxed(48, 32))
    assert isinstance(labels, np.ndarray)
    assert labels.shape == (48, 32)
    assert (labels == 1).all()


def test_a_dense_crf_sees_the_frame_and_removes_specks() -> None:
    frame = np.full((48, 64, 3), 60, np.uint8)
    frame[:, 32:] = 200
    logits = np.zeros((1, 4, 48, 64), np.float32)
    logits[0, 0, :, :32] = logits[0, 1, :, 32:] = 1.0
    logits[0, 2, 20:22, 10:12] = 1.2
    decoder = make_decoder(manifest("logits", "semantic", crf=CrfSpec()))
    labels = decoder({"logits": logits}, stretched(), frame)
    assert (labels[:, :32] == 0).all()  # type: ignore[index]
    assert (labels[:, 32:] == 1).all()  # type: ignore[index]
    with pytest.raises(BackendError, match="without the frame"):
        decoder({"logits": logits}, stretched())


def test_the_class_of_each_pixel_of_any_prediction() -> None:
    labels = RNG.integers(0, 4, (5, 6), np.uint8)
    assert class_map(labels, (5, 6)) is labels
    assert class_map([labels, labels * 0], (5, 6)) is labels
    ids = np.where(labels == 2, 7, 0).astype(np.int32)
    assert np.array_equal(class_map(Panoptic(ids, (Segment(7, 2),)), (5, 6)), np.where(labels == 2, 2, 255))
    box = Instances(np.array([[1, 1, 3, 4]], np.float32), np.array([3]), np.array([0.9], np.float32))
    assert (class_map(box, (5, 6)) == 3).sum() == 6
