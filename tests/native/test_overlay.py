"""The palette overlay and the fused pass, exact against integers in numpy."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseg import native
from edgeseg.native import _kernels, reference

any_isa = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
RNG = np.random.default_rng(1)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def scene(h: int, w: int, runs: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 256, (h, w), dtype=np.uint8)
    if runs:
        labels = np.ascontiguousarray(np.repeat(labels, 40, axis=1)[:, :w])
        labels[:, : w // 3] = 255
    return rng.integers(0, 256, (h, w, 3), dtype=np.uint8), labels


@given(h=st.integers(1, 20), w=st.integers(1, 120), alpha=st.floats(0, 1), runs=st.booleans(), seed=st.integers(0, 9))
@any_isa
def test_matches_reference(isa, h, w, alpha, runs, seed):
    frame, labels = scene(h, w, runs, seed)
    assert np.array_equal(native.overlay(frame, labels, PALETTE, alpha), reference.overlay(frame, labels, PALETTE, alpha))


def test_alpha_ends_and_ignore(isa):
    frame, labels = scene(9, 50, False, 3)
    assert np.array_equal(native.overlay(frame, labels, PALETTE, 0.0), frame)
    painted = native.overlay(frame, labels, PALETTE, 1.0)
    assert np.array_equal(painted[labels != 255], PALETTE[labels][labels != 255])
    assert np.array_equal(native.overlay(frame, np.full_like(labels, 255), PALETTE, 0.7), frame)


def test_in_place_and_strided(isa):
    frame, labels = scene(40, 90, True, 5)
    expected = reference.overlay(frame[::2, 3:80], labels[::2, 3:80], PALETTE, 0.4)
    crop, around = frame.copy()[::2, 3:80], np.zeros((20, 100, 3), np.uint8)
    assert np.array_equal(native.overlay(crop, labels[::2, 3:80], PALETTE, 0.4, around[:, 11:88]), expected)
    assert not around[:, :11].any() and not around[:, 88:].any()
    native.overlay(crop, labels[::2, 3:80], PALETTE, 0.4, crop)
    assert np.array_equal(crop, expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("c", "h", "w", "out_h", "out_w"), [(21, 12, 20, 48, 80), (5, 9, 7, 31, 53), (40, 3, 3, 2, 2)])
def test_fused_is_upsample_then_overlay(isa, c, h, w, out_h, out_w, threads):
    logits = np.random.default_rng(2).standard_normal((c, h, w)).astype(np.float32)
    frame, _ = scene(out_h, out_w, False, 6)
    labels, picture = np.empty((out_h, out_w), np.uint8), np.empty_like(frame)
    native.upsample_argmax_overlay(logits, frame, PALETTE, 0.5, labels, picture, threads=threads)
    assert np.array_equal(labels, native.upsample_argmax(logits, (out_h, out_w)))
    assert np.array_equal(picture, native.overlay(frame, labels, PALETTE, 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"frame": np.zeros((4, 4, 3), np.float32)},
        {"labels": np.zeros((4, 5), np.uint8)},
        {"labels": np.zeros((4, 4), np.int32)},
        {"palette_bgr": np.zeros((21, 3), np.uint8)},
        {"alpha": 1.5},
        {"alpha": float("nan")},
        {"out": np.zeros((4, 5, 3), np.uint8)},
        {"threads": 0},
    ],
)
def test_wrong_arguments_are_refused(change):
    good = {"frame": np.zeros((4, 4, 3), np.uint8), "labels": np.zeros((4, 4), np.uint8), "palette_bgr": PALETTE, "alpha": 0.5}
    with pytest.raises(ValueError, match="expected"):
        native.overlay(**(good | change))


def test_fused_refuses_labels_of_another_size():
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="frame's size"):
        native.upsample_argmax_overlay(
            np.zeros((3, 4, 4), np.float32), frame, PALETTE, 0.5, np.zeros((8, 9), np.uint8), frame.copy()
        )


def test_other_threads_run_meanwhile():
    """The GIL is released: a Python thread makes progress while one kernel call runs."""
    logits, labels = np.zeros((256, 400, 400), np.float32), np.empty((1600, 1600), np.uint8)
    ticks, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    time.sleep(0.01)
    interval, before = sys.getswitchinterval(), 0
    sys.setswitchinterval(60)  # so long that only a released GIL lets the counter in during the call
    try:
        before = ticks[0]
        native._kernels.upsample_argmax(logits, labels, 1)
        after = ticks[0]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        counter.join()
    assert after > before


def test_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="abacus"):
        _kernels.select_isa("abacus")
