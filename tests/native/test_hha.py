"""HHA: against numpy and against geometry that is known exactly; unknown depth; gravity of tilted cameras; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.data.rooms import render, sense_depth
from edgeseg.native import hha, hha_reference

CAMERA = (90.0, 95.0, 52.3, 37.9)


def plane_depth(normal: NDArray[np.float64], distance: float, shape: tuple[int, int] = (75, 101)) -> NDArray[np.float32]:
    """Depth of the plane normal . P = distance, 0 where it is not before the camera."""
    rows, columns = np.indices(shape)
    fx, fy, cx, cy = CAMERA
    slope = normal[0] * (columns - cx) / fx + normal[1] * (rows - cy) / fy + normal[2]
    return np.where(slope > 0.02, distance / np.maximum(slope, 0.02), 0).astype(np.float32)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_normals_of_a_plane_are_its_normal(isa: str, radius: int) -> None:
    wanted = np.array([0.2, 0.5, 0.84])
    wanted /= np.linalg.norm(wanted)
    found = hha.normals(plane_depth(wanted, 2.0), CAMERA, radius=radius)
    assert np.abs(found - wanted[:, None, None]).max() < 2e-3


def test_planes_are_those_of_the_reference(isa: str) -> None:
    for seed in range(3):
        room = render(seed, 203, 151)
        depth = sense_depth(room.depth, np.random.default_rng(seed))
        planes, down = hha.encode(depth, room.intrinsics)
        wanted, wanted_down = hha_reference.encode(depth, room.intrinsics)
        assert np.abs(np.array(down) - wanted_down).max() < 1e-4
        difference = np.abs(planes.astype(int) - wanted)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_instruction_sets_give_the_same_bits(isa: str) -> None:
    room = render(4, 157, 90)
    planes, down = hha.encode(room.depth, room.intrinsics)
    checksum = int(planes.astype(np.int64).sum()), down
    assert _FIRST.setdefault("room", checksum) == checksum


_FIRST: dict[str, object] = {}


def test_gravity_of_tilted_cameras_is_found() -> None:
    for seed in range(12):
        room = render(seed, 320, 240)
        _, down = hha.encode(sense_depth(room.depth, np.random.default_rng(seed)), room.intrinsics, radius=3)
        assert np.degrees(np.arccos(np.clip(np.dot(down, room.gravity), -1, 1))) < 2.5, seed


def test_height_and_angle_mean_the_same_however_the_camera_is_held() -> None:
    room = render(7, 320, 240, "sparse")
    planes, _ = hha.encode(room.depth, room.intrinsics, room.gravity, radius=2)
    rows, columns = np.indices(room.depth.shape)
    fx, fy, cx, cy = room.intrinsics
    points = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(rows.shape)]) * room.depth
    height = room.plan.camera.place[1] - np.tensordot(room.gravity, points, 1)
    inner = room.things < 0
    decoded = (planes[..., 1].astype(float) - 1) / 254 * hha.TALL_M
    assert np.abs(decoded - height)[inner].max() < 0.02
    for label, angle in ((0, 0), (1, 90), (2, 180)):
        found = (planes[..., 2][room.labels == label].astype(float) - 1) / 254 * 180
        assert np.abs(np.median(found) - angle) < 1.0
    assert np.abs((planes[..., 0].astype(float) - 1) / 254 - np.minimum(1 / room.depth, 1)).max() < 0.0021


def test_unknown_depth_is_zero_and_reaches_no_neighbour() -> None:
    normal = np.array([0.0, 0.8, 0.6])
    depth = plane_depth(normal, 1.5)
    whole, _ = hha.encode(depth, CAMERA, (0, 1, 0))
    for hole in (0.0, -1.0, np.nan, np.inf, 5000.0):
        broken = depth.copy()
        broken[20:24, 30:50] = hole
        broken[40, 40] = hole
        planes, _ = hha.encode(broken, CAMERA, (0, 1, 0))
        gone = ~((broken > 0) & (broken < 1000))
        assert not planes[gone].any()
        # A plane has the same normals whatever pixels they are fitted to.
        assert np.abs(planes[~gone].astype(int) - whole[~gone]).max() <= 1


def test_too_few_known_pixels_have_no_angle() -> None:
    depth = np.zeros((31, 40), np.float32)
    depth[15, 20] = 2.0
    depth[:, 5] = 2.0
    planes, down = hha.encode(depth, CAMERA)
    assert down == (0.0, 1.0, 0.0)
    assert planes[15, 20, 0] == 128 and planes[15, 20, 2] == 0
    assert not planes[:, 5, 2].any()
    assert not np.delete(planes[15], [5, 20], axis=0).any()


def test_nothing_known_is_all_zero() -> None:
    planes, down = hha.encode(np.zeros((5, 3), np.float32), CAMERA)
    assert not planes.any() and down == (0.0, 1.0, 0.0)


def test_wrong_arguments_are_named() -> None:
    depth = np.ones((8, 9), np.float32)
    with pytest.raises(ValueError, match=r"depth: got \(8, 9\) float64; expected \(H, W\) float32"):
        hha.encode(depth.astype(np.float64), CAMERA)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="focal length"):
        hha.encode(depth, (0, 90, 4, 4))
    with pytest.raises(ValueError, match="not finite"):
        hha.encode(depth, (90, 90, float("nan"), 4))
    with pytest.raises(ValueError, match="gravity: no direction"):
        hha.encode(depth, CAMERA, (0, 0, 0))
    with pytest.raises(ValueError, match="radius: got 0"):
        hha.normals(depth, CAMERA, radius=0)
