"""Street scenes: deterministic, exactly labelled, stable ids, disjoint splits, every class in sensible shares."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data import open_dataset
from edgeseg.data.camvid import CLASSES
from edgeseg.data.streets import FPS, THINGS, StreetFrame, Streets, StreetScenes, write_clip
from edgeseg.data.streets_view import NEAR_M, clip_near
from edgeseg.errors import DataError


@pytest.fixture(scope="module")
def street() -> StreetScenes:
    return StreetScenes(320, 240, 1_000_007)


def test_frame_has_the_shapes_and_types_promised(street: StreetScenes) -> None:
    frame = street.render(3)
    assert frame.image.shape == (240, 320, 3) and frame.image.dtype == np.uint8 and frame.image.flags["C_CONTIGUOUS"]
    assert frame.labels.shape == (240, 320) and frame.labels.dtype == np.uint8
    assert frame.instances.shape == (240, 320) and frame.instances.dtype == np.int32
    assert frame.labels.max() < len(CLASSES)


def test_same_seed_size_and_time_give_the_same_frame_in_any_order(street: StreetScenes) -> None:
    street.render(500)
    first, other = street.render(77), StreetScenes(320, 240, street.seed).render(77)
    assert np.array_equal(first.image, other.image)
    assert np.array_equal(first.labels, other.labels)
    assert np.array_equal(first.instances, other.instances)


def test_seeds_and_times_differ(street: StreetScenes) -> None:
    here = street.render(0)
    assert (here.labels != street.render(30).labels).mean() > 0.01
    assert (here.labels != StreetScenes(320, 240, street.seed + 1).render(0).labels).mean() > 0.1


def test_size_changes_the_resolution_and_not_the_scene() -> None:
    small, large = (StreetScenes(w, h, 5).render(40).labels for w, h in ((240, 180), (480, 360)))
    reduced = cv2.resize(large, (240, 180), interpolation=cv2.INTER_NEAREST)
    assert (small == reduced).mean() > 0.9


def test_motion_is_smooth(street: StreetScenes) -> None:
    near = np.mean([(street.render(t).labels == street.render(t + 1).labels).mean() for t in (10, 50, 90)])
    assert near > 0.93


def test_instances_are_things_and_only_things(street: StreetScenes) -> None:
    frame = street.render(12)
    is_thing = np.isin(frame.labels, THINGS)
    assert np.array_equal(frame.instances > 0, is_thing)
    assert is_thing.any()


def test_an_instance_has_one_class_and_keeps_its_id_and_moves_little() -> None:
    street = StreetScenes(480, 360, 1_000_003)
    frames = [street.render(t) for t in range(0, 9, 3)]
    classes: dict[int, int] = {}
    for frame in frames:
        for instance in np.unique(frame.instances)[1:]:
            found = np.unique(frame.labels[frame.instances == instance])
            assert len(found) == 1
            assert classes.setdefault(int(instance), int(found[0])) == int(found[0])
    followed = 0
    for before, after in pairwise(frames):
        for instance in _large_inner_instances(before):
            assert (after.instances == instance).any(), f"instance {instance} vanished within 0.1 s"
            assert np.hypot(*(_centre(before, instance) - _centre(after, instance))) < 40
            followed += 1
    assert followed >= 4


def _large_inner_instances(frame: StreetFrame) -> list[int]:
    ids, counts = np.unique(frame.instances[:, 40:-40], return_counts=True)
    edge = set(np.unique(frame.instances[:, :40])) | set(np.unique(frame.instances[:, -40:]))
    return [int(i) for i, count in zip(ids, counts, strict=True) if i > 0 and count > 120 and i not in edge]


def _centre(frame: StreetFrame, instance: int) -> np.ndarray:
    return np.argwhere(frame.instances == instance).mean(axis=0)


def test_panoptic_covers_every_pixel_once(street: StreetScenes) -> None:
    frame = street.render(20)
    segments, info = frame.panoptic()
    assert sum(item["area"] for item in info) == frame.labels.size
    assert {item["id"] for item in info} == set(np.unique(segments).tolist())
    for item in info:
        mask = segments == item["id"]
        assert set(np.unique(frame.labels[mask])) == {item["category_id"]}
        assert item["isthing"] == (item["category_id"] in THINGS)
        x, y, w, h = item["bbox"]
        assert mask[y : y + h, x : x + w].sum() == item["area"]


def test_every_class_appears_in_sensible_shares() -> None:
    counts, frames_with = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for seed in range(50):
        found = np.bincount(StreetScenes(240, 180, 200_000 + 3 * seed).render(4 * seed).labels.ravel(), minlength=len(CLASSES))
        counts += found
        frames_with += found > 0
    share = dict(zip((item.name for item in CLASSES), counts / counts.sum(), strict=True))
    assert frames_with.min() >= 25
    assert 0.2 < share["road"] < 0.45 and 0.1 < share["building"] < 0.4 and 0.08 < share["sky"] < 0.3
    assert all(0.02 < share[name] < 0.2 for name in ("car", "tree", "pavement"))
    assert all(0.003 < share[name] < 0.06 for name in ("pole", "sign", "fence", "pedestrian", "bicyclist"))


def test_picture_and_truth_agree_on_edges() -> None:
    """Label borders must be where the picture changes: gradients are larger there than elsewhere."""
    ratios = []
    for seed in range(6):
        frame = StreetScenes(320, 240, seed).render(0)
        grey = cv2.GaussianBlur(cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY), (3, 3), 0).astype(np.float32)
        gradient = np.hypot(*np.gradient(grey))
        border = cv2.morphologyEx(frame.labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        ratios.append(gradient[border].mean() / gradient[~border].mean())
    assert np.mean(ratios) > 2


def test_cars_passing_the_near_plane_have_no_holes() -> None:
    street = StreetScenes(240, 180, 1_000_000)
    for t in range(0, 240, 6):
        frame = street.render(t)
        for instance in np.unique(frame.instances[frame.labels == 8]):
            mask = (frame.instances == instance).astype(np.uint8)
            if mask.sum() < 400:
                continue
            contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            inner = [cv2.contourArea(c) for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0]
            # What stands in front (a post, a person, a tree) may cut a car; its own body may not.
            seen_through = [c for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0 and _shows_far(frame, c)]
            assert not seen_through or max(inner) < 12


def _shows_far(frame: StreetFrame, contour: np.ndarray) -> bool:
    inside = np.zeros(frame.labels.shape, np.uint8)
    cv2.drawContours(inside, [contour], -1, 1, -1)
    cv2.drawContours(inside, [contour], -1, 0, 1)
    return bool(np.isin(frame.labels[inside > 0], (0, 1, 3, 4)).any())


def test_clip_near_cuts_a_square_in_half() -> None:
    square = [(NEAR_M - 1, 0.0), (NEAR_M - 1, 2.0), (NEAR_M + 1, 2.0), (NEAR_M + 1, 0.0)]
    cut = np.array(clip_near(square), np.float32)
    assert cut[:, 0].min() == pytest.approx(NEAR_M) and cv2.contourArea(cut) == pytest.approx(2.0)
    assert clip_near([(d - 10, y) for d, y in square]) == []


def test_camera_never_drives_backwards() -> None:
    for seed in range(20):
        world = StreetScenes(64, 48, seed).world
        path = np.array([world.camera_z(t / FPS) for t in range(0, 1200, 5)])
        assert (np.diff(path) > 0).all()


def test_splits_are_disjoint_in_ids_and_seeds() -> None:
    splits = [Streets("96x64", name) for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [800, 100, 200]
    ids = [frame for split in splits for frame in split.ids()]
    assert len(set(ids)) == len(ids)
    assert splits[2].ids()[3] == "test/0003"
    seeds = [{int(split[i].image.astype(np.int64).sum()) for i in range(5)} for split in splits]
    assert not (seeds[0] & seeds[1] or seeds[0] & seeds[2] or seeds[1] & seeds[2])
    assert len({split.digest() for split in splits}) == 3


def test_open_dataset_options() -> None:
    plain, sized, seeded, both = (
        open_dataset(uri, "val") for uri in ("streets", "streets:160x120", "streets:7", "streets:160x120,7")
    )
    assert plain[0].image.shape == (360, 480, 3)
    assert sized[0].image.shape == both[0].image.shape == (120, 160, 3)
    assert not set(seeded.ids()) & set(plain.ids())
    assert not np.array_equal(both[0].labels, sized[0].labels)
    assert np.array_equal(sized[2].image, sized[2].image)


@pytest.mark.parametrize("uri", ["streets:abc", "streets:10x10x10", "streets:480x", "streets:100", "streets:-1"])
def test_bad_options_are_refused(uri: str) -> None:
    with pytest.raises(DataError, match="streets"):
        open_dataset(uri, "train")


def test_bad_size_split_and_seed_are_refused() -> None:
    with pytest.raises(DataError, match="8x8"):
        _ = open_dataset("streets:8x8", "train")[0]
    with pytest.raises(DataError, match="no split 'all'"):
        open_dataset("streets", "all")
    with pytest.raises(DataError, match="seed -1"):
        StreetScenes(64, 64, -1)


def test_write_clip_is_readable_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 0.4, 160, 120)
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 12 and frames[0].shape == (120, 160, 3)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]
