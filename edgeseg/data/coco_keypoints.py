"""COCO's person keypoints (Lin et al., ECCV 2014): 17 points a person, or other points in the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.coco import Coco, Record
from edgeseg.errors import DataError
from edgeseg.manifest import KeypointSpec, Task

# Deviations of people's annotations relative to the object's size, as COCO's evaluation has them.
_SIGMAS = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}
OTHER_SIGMA = 0.072
"""For points that COCO does not have: its median."""
NAMES = tuple(_SIGMAS)


def keypoint_spec(names: list[str]) -> KeypointSpec:
    """Counterparts by ``left`` and ``right`` in the names, deviations by COCO's names."""
    flip = [names.index(twin) if (twin := _other_side(name)) in names else place for place, name in enumerate(names)]
    return KeypointSpec(names=names, flip=flip, sigmas=[_SIGMAS.get(name, OTHER_SIGMA) for name in names])


def _other_side(name: str) -> str:
    for side, other in (("left", "right"), ("right", "left"), ("Left", "Right"), ("Right", "Left")):
        if side in name:
            return name.replace(side, other, 1)
    return name


class CocoKeypoints(Coco):
    """``coco_keypoints:PATH``: as ``coco``, from ``annotations/person_keypoints_SPLIT2017.json``.

    COCO stores the index of the pixel that a point is in; samples hold the pixel's centre, half a pixel further.
    """

    name = "coco_keypoints"
    kind = "person_keypoints"
    tasks: tuple[Task, ...] = ("keypoint", "instance", "detection")

    def __init__(self, path: str, split: str) -> None:
        super().__init__(path, split)
        lists = {_names(record, self._document.path) for record in self._document.categories if record.get("keypoints")}
        if len(lists) != 1:
            what = f"{self._document.path}: {len(lists)} lists of keypoint names in `categories`"
            raise DataError(what, "one list, the same for every category that has one", "write `keypoints` into the category")
        self.keypoints = keypoint_spec(list(next(iter(lists))))
        if self.tasks == ("detection",):
            self.tasks = ("keypoint", "detection")

    def _keypoints(self, records: list[Record]) -> NDArray[np.float32]:
        assert self.keypoints is not None
        count = len(self.keypoints.names)
        points = np.zeros((len(records), count, 3), np.float32)
        for row, record in zip(points, records, strict=True):
            flat = record.get("keypoints")
            if not flat:
                continue
            if not _numbers(flat) or len(flat) != 3 * count:
                self.problems.add(
                    f"keypoints that are not {count} times x, y, v: none are taken", f"annotation {record.get('id', '?')}"
                )
                continue
            row[:] = np.reshape(flat, (count, 3))
            row[:, :2] = np.where(row[:, 2:] > 0, row[:, :2] + 0.5, 0)
        return points


def _names(record: Record, path: Path) -> tuple[str, ...]:
    names = record["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: keypoints {str(names)[:80]} of category {record['id']}", "a list of names")
    return tuple(names)


def _numbers(flat: object) -> bool:
    """Whether it is a list of finite numbers; those beyond what a float holds are none."""
    if not isinstance(flat, list) or any(type(value) not in (int, float) for value in flat):
        return False
    return all(abs(value) < 1e9 for value in flat)
