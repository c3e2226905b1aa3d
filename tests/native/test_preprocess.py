"""preprocess against float64 numpy and against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseg import native
from edgeseg.native import reference

# In grey levels: the kernel works in steps of 1/128.
TOLERANCE = 0.02
PLAIN = {"scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def run(
    frame: np.ndarray, size: tuple[int, int], channels: int = 3, swap_rb: bool = True, threads: int = 1, **values
) -> np.ndarray:
    out = np.full((1, channels, *size), np.nan, np.float32)
    values = values or PLAIN
    if channels == 1:
        values = values | {"mean": values["mean"][:1], "std": values["std"][:1]}
    native.preprocess(frame, out, swap_rb=swap_rb, threads=threads, **values)
    return out


@given(
    h=st.integers(1, 40), w=st.integers(1, 40), out_h=st.integers(1, 40), out_w=st.integers(1, 40),
    channels=st.sampled_from([1, 3]), swap_rb=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_matches_reference_at_any_size(isa, h, w, out_h, out_w, channels, swap_rb, seed):
    frame = noise(h, w, 3, seed=seed)
    values = {"mean": [0.0] * channels, "std": [1.0] * channels}
    expected = reference.preprocess(frame, channels, (out_h, out_w), scale=1.0, swap_rb=swap_rb, **values)
    got = run(frame, (out_h, out_w), channels, swap_rb)
    assert np.abs(got - expected).max() < TOLERANCE


@pytest.mark.parametrize("size", [(512, 512), (64, 300), (131, 77), (1, 1)])
def test_normalises_per_channel(isa, size):
    frame = noise(90, 160, 3)
    expected = reference.preprocess(frame, 3, size, swap_rb=True, **IMAGENET)
    assert np.abs(run(frame, size, **IMAGENET) - expected).max() < TOLERANCE / 255 / 0.224


@pytest.mark.parametrize("size", [(48, 64), (200, 317), (90, 160), (90, 40), (30, 160)])
def test_is_cv2_resize_on_float(isa, size):
    frame = noise(90, 160, 3)
    resized = cv2.resize(frame.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(run(frame, size, swap_rb=False)[0] - resized.transpose(2, 0, 1)).max() < TOLERANCE


def test_same_size_is_exact(isa):
    frame = noise(33, 47, 3)
    assert np.array_equal(run(frame, (33, 47))[0], frame[:, :, ::-1].transpose(2, 0, 1))


def test_grey_is_cv2_luma(isa):
    frame = noise(33, 47, 3)
    assert np.abs(run(frame, (33, 47), channels=1)[0, 0] - cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)).max() < 0.51


@pytest.mark.parametrize(
    "view",
    [
        lambda big: big[3:40, 5:60],
        lambda big: big[::2],
        lambda big: big[::-1],
        lambda big: big[:, ::2],
        lambda big: big[:, ::-1],
        lambda big: big[..., ::-1],
        lambda big: np.asfortranarray(big),
        lambda big: big[-1:],
        lambda big: big[:, -1:],
    ],
    ids=["crop", "halved rows", "flipped", "halved columns", "mirrored", "rgb", "fortran", "last row", "last column"],
)
def test_strided_frames(isa, view):
    frame = view(noise(50, 70, 3))
    expected = reference.preprocess(frame, 3, (21, 35), swap_rb=False, **PLAIN)
    assert np.abs(run(frame, (21, 35), swap_rb=False) - expected).max() < TOLERANCE


def test_read_only_frame(isa):
    frame = np.frombuffer(noise(20, 30, 3).tobytes(), np.uint8).reshape(20, 30, 3)
    assert np.isfinite(run(frame, (8, 8))).all()


@pytest.mark.parametrize("threads", [2, 3, 7, 1000])
def test_threads_change_nothing(isa, threads):
    frame = noise(97, 121, 3)
    assert np.array_equal(run(frame, (64, 51), threads=threads), run(frame, (64, 51)))


def test_three_dimensional_out():
    frame, out = noise(9, 9, 3), np.zeros((3, 4, 4), np.float32)
    native.preprocess(frame, out, swap_rb=True, **PLAIN)
    assert np.array_equal(out, run(frame, (4, 4))[0])


@pytest.mark.parametrize(
    ("frame", "out", "change"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((1, 3, 4, 4), np.float32), {}),
        (np.zeros((4, 4), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {}),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {}),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.float64), {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4), np.float32), {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 2, 4, 4), np.float32), {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 8), np.float32)[..., ::2], {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 0, 4), np.float32), {}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {"mean": [0.0]}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {"std": [1.0, 0.0, 1.0]}),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.float32), {"threads": 0}),
    ],
)
def test_wrong_arguments_are_refused(frame, out, change):
    with pytest.raises(ValueError, match=r"expected|finite"):
        native.preprocess(frame, out, **({"swap_rb": True} | PLAIN | change))


def test_a_read_only_out_is_refused():
    out = np.zeros((1, 3, 4, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises((ValueError, TypeError)):
        native.preprocess(noise(4, 4, 3), out, swap_rb=True, **PLAIN)
