"""Depth files of each encoding in metres, planes and back, frames of each modality, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data import rgbd
from edgeseg.errors import DataError
from edgeseg.native import hha

SAMPLES = Path(os.environ.get("EDGESEG_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "depth_samples"
CAMERA = (500.0, 500.0, 15.5, 11.5)
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the depth samples beside the checkout")


def test_millimetres_and_the_unknown() -> None:
    raw = np.array([[0, 1, 1234, 65534, 65535]], np.uint16)
    assert np.allclose(rgbd.decode_depth(raw), [[0, 0.001, 1.234, 65.534, 0]])
    assert np.allclose(rgbd.decode_depth(raw, unit=0.000125), [[0, 0.000125, 0.15425, 8.19175, 0]])


def test_tum_sun_and_nyu_by_their_definitions() -> None:
    metres = np.array([[0.5, 1.0, 7.5]])
    assert np.allclose(rgbd.decode_depth((metres * 5000).astype(np.uint16), "tum"), metres)
    millimetres = (metres * 1000).astype(np.uint16)
    rotated = ((millimetres.astype(np.uint32) << 3) | (millimetres >> 13)).astype(np.uint16)
    assert np.allclose(rgbd.decode_depth(rotated, "sun"), metres)
    raw = np.array([[0, 600, 1000, 1057, 1058, 1092, 1093, 2047]], np.uint16)
    wanted = [[0, 351.3 / 492.5, 351.3 / 92.5, 351.3 / 35.5, 0, 0, 0, 0]]
    assert np.allclose(rgbd.decode_depth(raw.byteswap(), "nyu"), np.where(np.array(wanted) <= 10, wanted, 0), atol=1e-4)


@needs_samples
@pytest.mark.parametrize(
    ("file", "encoding", "unit", "low", "high"),
    [
        ("other_formats/NYU_depth.pgm", "nyu", None, 0.5, 10.0),
        ("other_formats/SUN_depth.png", "sun", None, 0.5, 8.1),
        ("other_formats/TUM_depth.png", "tum", None, 0.5, 10.0),
        ("redwood_rgbd/depth/00000.png", "mm", None, 0.5, 4.0),
        ("curfil_objects_labelled/testing1_depth.png", "mm", None, 0.5, 9.0),
        ("sr305_hand_and_body_16bit/20210326-230536/30.png", "mm", 0.000125, 0.1, 3.0),
    ],
)
def test_real_frames_are_at_room_scale_and_smooth(file: str, encoding: rgbd.Encoding, unit: float, low: float, high: float) -> None:
    depth = rgbd.read_depth(SAMPLES / file, encoding, unit)
    known = depth > 0
    assert depth.shape == (480, 640) and depth.dtype == np.float32 and known.mean() > 0.2
    assert low < np.percentile(depth[known], 5) < np.percentile(depth[known], 95) < high
    # A wrong order of bytes or bits tears neighbours apart.
    both = known[:, 1:] & known[:, :-1]
    assert np.median(np.abs(np.diff(depth, axis=1))[both] / depth[:, 1:][both]) < 0.01
    planes, down = hha.encode(depth, (525.0, 525.0, 319.5, 239.5))
    assert (planes[known] > 0)[:, :2].all() and not planes[~known].any()
    assert np.isclose(np.linalg.norm(down), 1)


def test_depth_planes_and_back() -> None:
    depth = np.concatenate([np.linspace(0.01, 10, 500), [12.0, 0.0, -1.0, np.nan, np.inf]]).astype(np.float32)[None]
    plane = rgbd.depth_plane(depth)
    assert plane.dtype == np.uint8 and plane[0, -5:].tolist() == [255, 0, 0, 0, 0]
    assert (np.diff(plane[0, :500].astype(int)) >= 0).all() and plane[0, :500].min() > 0
    assert np.abs(rgbd.plane_depth(plane)[0, :500] - depth[0, :500]).max() <= rgbd.FAR_M / 508 + 1e-5
    assert not rgbd.plane_depth(plane)[0, -4:].any()


def test_pack_puts_the_colours_first() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    depth = rng.uniform(1, 4, (24, 32)).astype(np.float32)
    planes, _ = hha.encode(depth, CAMERA, (0, 1, 0), radius=2)
    assert rgbd.pack(image, depth, CAMERA, "rgb") is image
    assert np.array_equal(rgbd.pack(image, depth, CAMERA, "rgbd"), np.dstack([image, rgbd.depth_plane(depth)]))
    assert np.array_equal(rgbd.pack(image, depth, CAMERA, "hha", (0, 1, 0)), planes)
    assert np.array_equal(rgbd.pack(image, depth, CAMERA, "rgb-hha", (0, 1, 0)), np.dstack([image, planes]))


def test_wrong_frames_and_files_are_named(tmp_path: Path) -> None:
    image, depth = np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), np.float32)
    with pytest.raises(DataError, match=r"depth: \(5, 4\) float32"):
        rgbd.pack(image, depth.T, CAMERA, "rgbd")
    with pytest.raises(DataError, match=r"depth: \(4, 5\) float64"):
        rgbd.pack(image, depth.astype(np.float64), CAMERA, "rgbd")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="image"):
        rgbd.pack(image[..., 0], depth, CAMERA, "rgbd")
    with pytest.raises(DataError, match="modality 'xyz'"):
        rgbd.pack(image, depth, CAMERA, "xyz")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="encoding 'cm'"):
        rgbd.decode_depth(np.zeros((2, 2), np.uint16), "cm")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"\(2, 2\) uint8"):
        rgbd.decode_depth(np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot read the depth"):
        rgbd.read_depth(tmp_path / "none.png")
    cv2.imwrite(str(tmp_path / "colour.png"), image)
    with pytest.raises(DataError, match="16-bit"):
        rgbd.read_depth(tmp_path / "colour.png")
