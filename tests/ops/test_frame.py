"""Preprocess and overlay: the CPU twins and the kernels' source on the host, against float64, OpenCV and edgeseg.native."""

from __future__ import annotations

from ctypes import c_float

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg import native
from edgeseg.ops import frame as ops
from edgeseg.ops import launch
from tests.ops import host_cuda

TYPES = ("float32", "float16", "int8")
KERNEL = host_cuda.ROOT / "trt_plugins" / "frame" / "frame.cu"
MUL, ADD = (0.5, 0.25, 0.4), (-30.0, 1.0, 2.0)
PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
sides = st.integers(1, 24)


def draw(kind: str, h: int, w: int, seed: int = 0, pad: int = 0) -> np.ndarray:
    """A frame of ``kind`` whose rows lie ``pad`` pixels further apart than they must; NV12 of twice the size."""
    rng = np.random.default_rng(seed)
    if kind == "nv12":
        return rng.integers(0, 256, (3 * h, 2 * w + pad), dtype=np.uint8)[:, : 2 * w]
    if kind == "bgr":
        return rng.integers(0, 256, (h, w + pad, 3), dtype=np.uint8)[:, :w]
    depth = rng.integers(1, 5000, (h, w + pad)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.4] = 0
    return depth[:, :w]


# --- preprocess -------------------------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(list(ops.KINDS)), channels=st.sampled_from([1, 3]), h=sides, w=sides, out_h=sides, out_w=sides,
    swap=st.booleans(), pad=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_preprocess_matches_reference(twin, kind, channels, h, w, out_h, out_w, swap, pad, seed):
    channels = 1 if kind == "depth16" else channels
    frame = draw(kind, h, w, seed, pad)
    settings_ = {"kind": kind, "mul": MUL, "add": ADD, "swap_rb": swap}
    got = ops.preprocess(frame, channels, (out_h, out_w), **settings_)
    expected = ops.preprocess_reference(frame, channels, (out_h, out_w), **settings_)
    assert np.abs(got - expected).max() <= (0.01 if kind == "depth16" else 5e-4) * max(MUL)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("format", launch.FORMATS)
@pytest.mark.parametrize("kind", ops.KINDS)
def test_every_type_and_format(twin, kind, format, dtype):
    for channels in (1,) if kind == "depth16" else (1, 3):
        mul = [m * (0.02 if kind == "depth16" else 1.0) for m in MUL]
        settings_ = {"kind": kind, "mul": mul, "add": ADD}
        frame = draw(kind, 9, 11)
        packed = ops.preprocess(frame, channels, (7, 13), dtype=dtype, format=format, threads=3, **settings_)
        got = launch.unpack(packed, format, channels)
        exact = ops.preprocess_reference(frame, channels, (7, 13), **settings_)
        if dtype == "int8":
            near = np.abs(exact - np.floor(exact) - 0.5) < 1e-3  # float32 may round the other way
            assert np.array_equal(got[~near], np.clip(np.rint(exact), -128, 127)[~near])
        else:
            assert np.allclose(got, exact, rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-3)
        padding = launch.unpack(packed, format, packed.size // (7 * 13))[:, channels:]
        assert not padding.any()


def test_int8_rounds_half_to_even_and_saturates(twin):
    frame = np.repeat(np.array([[1, 3, 5, 0, 255]], np.uint8)[..., None], 3, axis=2)
    got = ops.preprocess(frame, 3, (1, 5), kind="bgr", mul=(0.5, 2.0, -2.0), add=(0.0, 0.0, 0.0), dtype="int8")
    assert got[0, :, 0].tolist() == [[0, 2, 2, 0, 127], [2, 6, 10, 0, 127], [-2, -6, -10, 0, -128]]


@given(h=sides, w=sides, out_h=sides, out_w=sides, channels=st.sampled_from([1, 3]), swap=st.booleans(), seed=st.integers(0, 9))
def test_bgr_agrees_with_native(twin, h, w, out_h, out_w, channels, swap, seed):
    frame = draw("bgr", h, w, seed)
    theirs = np.empty((1, channels, out_h, out_w), np.float32)
    native.preprocess(frame, theirs, scale=1.0, mean=[0.0] * channels, std=[1.0] * channels, swap_rb=swap)
    ours = ops.preprocess(frame, channels, (out_h, out_w), kind="bgr", mul=(1, 1, 1), add=(0, 0, 0), swap_rb=swap)
    assert np.abs(ours - theirs).max() <= 0.02


def test_wide_frame_agrees_with_reference(twin):
    # Where float32 coordinates alone would be off by a visible part of a pixel.
    frame = np.tile(np.array([0, 255], np.uint8).repeat(3).reshape(1, 2, 3), (1, 8000, 1))
    settings_ = {"kind": "bgr", "mul": (1, 1, 1), "add": (0, 0, 0)}
    got = ops.preprocess(frame, 3, (1, 15991), **settings_)
    assert np.abs(got - ops.preprocess_reference(frame, 3, (1, 15991), **settings_)).max() <= 5e-4


def test_nv12_is_opencv_s(twin):
    frame = draw("nv12", 24, 31)
    got = ops.preprocess(frame, 3, (48, 62), kind="nv12", mul=(1, 1, 1), add=(0, 0, 0))
    expected = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12).transpose(2, 0, 1)[None]
    assert np.abs(got - expected).max() <= 1.0


def test_nv12_with_its_chroma_elsewhere(twin):
    frame = draw("nv12", 6, 8)
    chroma, out = frame[12:].copy(), np.empty((1, 3, 5, 5), np.float32)
    luma = np.concatenate([frame[:12], np.zeros_like(chroma)])
    ones, zeros = (c_float * 3)(1, 1, 1), (c_float * 3)(0, 0, 0)
    arguments = launch.Preprocess(*(luma.ctypes.data, chroma.ctypes.data, 16, 1, 12, 16, launch.tensor_of(out), ones, zeros, 0))
    twin.run("preprocess", arguments)
    assert np.array_equal(out, ops.preprocess(frame, 3, (5, 5), kind="nv12", mul=(1, 1, 1), add=(0, 0, 0)))


def test_unknown_depth_is_never_blended(twin):
    depth = np.zeros((4, 6), np.uint16)
    depth[:, 3:] = 1000
    got = ops.preprocess(depth, 1, (9, 31), kind="depth16", mul=(1, 0, 0), add=(0, 0, 0))
    assert set(np.unique(np.round(got, 3))) == {0.0, 1000.0}
    assert not ops.preprocess(np.zeros_like(depth), 1, (9, 31), kind="depth16", mul=(1, 0, 0), add=(0, 0, 0)).any()
    unknown = ops.preprocess(np.zeros_like(depth), 1, (3, 3), kind="depth16", mul=(2, 0, 0), add=(-5, 0, 0))
    assert (unknown == -5).all()


def test_flipped_frame(twin):
    frame = draw("bgr", 7, 9)
    settings_ = {"kind": "bgr", "mul": MUL, "add": ADD}
    assert np.array_equal(
        ops.preprocess(frame[::-1], 3, (5, 5), **settings_), ops.preprocess(frame[::-1].copy(), 3, (5, 5), **settings_)
    )


@pytest.mark.parametrize(
    ("frame", "kind", "channels", "size", "dtype", "message"),
    [
        (np.zeros((6, 5), np.uint8), "nv12", 3, (4, 4), "float32", "even sides"),
        (np.zeros((3, 6), np.uint8), "nv12", 3, (4, 4), "float32", None),
        (np.zeros((5, 6), np.uint8), "nv12", 3, (4, 4), "float32", "even h"),
        (np.zeros((9, 6), np.uint8), "nv12", 2, (4, 4), "float32", "3 channels or 1"),
        (np.zeros((4, 6), np.uint16), "depth16", 3, (4, 4), "float32", "1 of depth"),
        (np.zeros((4, 6, 3), np.uint8), "bgr", 3, (4, 4), "int32", "float32, float16 or int8"),
        (np.zeros((4, 6, 3), np.uint8), "bgr", 3, (0, 4), "float32", "sides"),
        (np.zeros((4, 6, 4), np.uint8), "bgr", 3, (4, 4), "float32", "packed rows"),
        (np.zeros((4, 12, 3), np.uint8)[:, ::2], "bgr", 3, (4, 4), "float32", "packed rows"),
        (np.zeros((4, 6), np.uint8), "depth16", 1, (4, 4), "float32", "packed rows"),
        (np.zeros((0, 6, 3), np.uint8), "bgr", 3, (4, 4), "float32", "packed rows"),
    ],
)
def test_wrong_frames_are_refused(twin, frame, kind, channels, size, dtype, message):
    def run() -> np.ndarray:
        return ops.preprocess(frame, channels, size, kind=kind, mul=MUL, add=ADD, dtype=dtype)

    if message is None:
        assert np.isfinite(run()).all()
        return
    with pytest.raises(ValueError, match=message):
        run()


# --- overlay ----------------------------------------------------------------------------------------------------------


@given(h=st.integers(1, 20), w=st.integers(1, 90), alpha=st.integers(0, 256), pad=st.integers(0, 5), seed=st.integers(0, 9))
def test_overlay_equals_native_and_reference(twin, h, w, alpha, pad, seed):
    frame = draw("bgr", h, w, seed, pad)
    labels = np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)
    labels[:, : w // 3] = 255
    got = ops.overlay(frame, labels, PALETTE, alpha, threads=2)
    assert np.array_equal(got, native.overlay(frame, labels, PALETTE, alpha / 256))
    assert np.array_equal(got, ops.overlay_reference(frame, labels, PALETTE, alpha))
    assert np.array_equal(ops.overlay(frame, labels, PALETTE, alpha, out=frame), got)


def test_overlay_refuses_what_it_cannot_do(twin):
    frame, labels = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    assert ops.overlay(frame, labels, PALETTE, 256).shape == frame.shape
    for wrong in (
        {"alpha": 257},
        {"alpha": -1},
        {"labels": labels[:, :5]},
        {"palette_bgr": PALETTE[:9]},
        {"labels": labels.astype(np.int32)},
    ):
        with pytest.raises(ValueError, match="expected"):
            ops.overlay(**({"frame": frame, "labels": labels, "palette_bgr": PALETTE, "alpha": 3} | wrong))
    arguments = launch.Overlay(*[frame.ctypes.data, 18, frame.ctypes.data, 17, labels.ctypes.data, PALETTE.ctypes.data, 4, 6, 3])
    with pytest.raises(ValueError, match="rows overlap"):
        twin.run("overlay", arguments)


# --- the kernels' source, on the host ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(ops.KINDS)), channels=st.sampled_from([1, 3]), h=sides, w=sides, out_h=sides, out_w=sides,
    swap=st.booleans(), dtype=st.sampled_from(TYPES), format=st.sampled_from(list(launch.FORMATS)), odd=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_preprocess_kernel_equals_twin(twin, kernel, kind, channels, h, w, out_h, out_w, swap, dtype, format, odd, seed):
    frame = draw(kind, h, w, seed)
    height, width = (2 * h, 2 * w) if kind == "nv12" else (h, w)
    shape = (1, 1 if kind == "depth16" else channels, out_h, out_w)
    results = []
    for library in (twin, kernel):
        memory = np.full(np.prod(launch.packed_shape(shape, format)) + odd, 99, dtype)  # odd: no wide stores
        out = memory[int(odd) :].reshape(launch.packed_shape(shape, format))
        arguments = launch.Preprocess(
            *(frame.ctypes.data, None, frame.strides[0], ops.KINDS[kind], height, width),
            *(launch.tensor_of(out, shape, format), (c_float * 3)(*MUL), (c_float * 3)(*ADD), swap),
        )
        library.run("preprocess", arguments, 1 if library is twin else None)
        results.append(memory)
    assert np.array_equal(*results)


@given(h=st.integers(1, 9), w=st.integers(1, 40), alpha=st.integers(0, 256), pad=st.integers(0, 4), seed=st.integers(0, 9))
def test_overlay_kernel_equals_reference(kernel, h, w, alpha, pad, seed):
    frame, around = draw("bgr", h, w, seed, pad), np.full((h, w + pad, 3), 77, np.uint8)
    labels = np.random.default_rng(seed).choice(np.array([0, 3, 17, 255], np.uint8), (h, w))
    expected = ops.overlay_reference(frame, labels, PALETTE, alpha)
    for out in (around[:, :w], frame):
        pointers = (frame.ctypes.data, frame.strides[0], out.ctypes.data, out.strides[0], labels.ctypes.data, PALETTE.ctypes.data)
        kernel.run("overlay", launch.Overlay(*pointers, h, w, alpha), None)
        assert np.array_equal(out, expected)
    assert (around[:, w:] == 77).all()
