"""COCO's average precision of boxes, masks and keypoints, computed by pycocotools (Lin et al., "Microsoft COCO", ECCV 2014;
cocodataset.org, "Detection evaluation" and "Keypoint evaluation")."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError, EdgesegError
from edgeseg.manifest import ClassInfo
from edgeseg.scene import Instances

KINDS = {"detection": ("box",), "instance": ("mask", "box"), "keypoint": ("keypoint", "box")}
"""What each task is judged by; the first is its headline."""
_IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
_MOST = {"box": 100, "mask": 100, "keypoint": 20}  # predictions of a class in a picture that count

Record = dict[str, Any]


class CocoMetric:
    """Predicted against true instances over any number of pictures; masks are kept as run lengths.

    Args:
        task: "detection", "instance" (masks, and boxes) or "keypoint" (keypoints, and boxes).
        classes: the classes; one without truth does not count.
        sigmas: COCO's per-point deviations, needed for keypoints.

    Sizes (small, medium, large) go by the area of a truth's mask where there is one, else of its box, as COCO's object keypoint
    similarity does. Truth that is a crowd is matched by any number of predictions, which then count neither for nor against.
    """

    def __init__(self, task: str, classes: Sequence[ClassInfo], sigmas: Sequence[float] | None = None) -> None:
        if task not in KINDS:
            raise EdgesegError(f"COCO metric of task {task!r}", " or ".join(KINDS), "use the metric of the task")
        if task == "keypoint" and not sigmas:
            raise EdgesegError("keypoint AP without sigmas", "one for each keypoint", "add $.keypoints.sigmas to model.json")
        _require_pycocotools()
        self.task, self.classes, self.sigmas = task, tuple(classes), sigmas
        self.headline = f"{KINDS[task][0]}_ap"
        self._pictures: list[Record] = []
        self._true: list[Record] = []
        self._predicted: list[Record] = []
        self._evaluated: tuple[int, dict[str, Any]] = (-1, {})

    def update(self, predicted: Instances, true: Instances, size: tuple[int, int]) -> None:
        """Add a picture of ``size`` = (H, W); both may be empty.

        Raises:
            DataError: masks or keypoints that the task needs are missing or of another shape, or a class is none of the list.
        """
        if len(predicted) and predicted.scores is None:
            raise DataError("predicted instances without scores", "a score for each")
        for what, scene in (("predicted", predicted), ("true", true)):
            self._check(scene, size, what)
        picture = len(self._pictures) + 1
        self._pictures.append({"id": picture, "height": size[0], "width": size[1]})
        self._true += self._records(true, picture)
        self._predicted += self._records(predicted, picture)

    def summary(self) -> dict[str, float]:
        """Figures 0..1, NaN where there is no such truth.

        For each kind ("box", "mask", "keypoint") of the task: ``KIND_ap`` over IoU 0.5, 0.55 .. 0.95, ``KIND_ap50``,
        ``KIND_ap75``, ``KIND_ap_small`` (below 32 x 32 px; not of keypoints), ``KIND_ap_medium``, ``KIND_ap_large`` (above
        96 x 96 px) and ``KIND_ar``, the recall at the greatest number of predictions.
        """
        found: dict[str, float] = {}
        for kind, result in self._results().items():
            found |= _figures(kind, result)
        return found

    def per_class(self) -> dict[str, float]:
        """The headline figure of each class by name; NaN without truth."""
        precision = self._results()[KINDS[self.task][0]].eval["precision"]  # (IoU, recall, class, size, limit)
        return {item.name: _mean(precision[:, :, label, 0, -1]) for label, item in enumerate(self.classes)}

    def _check(self, scene: Instances, size: tuple[int, int], what: str) -> None:
        classes, count = scene.classes, len(scene)
        if count and not 0 <= int(classes.min()) <= int(classes.max()) < len(self.classes):
            raise DataError(f"{what} classes {classes.min()}..{classes.max()}", f"0..{len(self.classes) - 1}")
        if scene.masks is not None and scene.masks.shape != (count, *size):
            raise DataError(f"{what} masks of shape {scene.masks.shape}", f"{(count, *size)}")
        if self.task == "instance" and scene.masks is None and count:
            raise DataError(f"{what} instances without masks", "a mask for each")
        points = len(self.sigmas or ())
        if self.task == "keypoint" and count and (scene.keypoints is None or scene.keypoints.shape != (count, points, 3)):
            shape = None if scene.keypoints is None else scene.keypoints.shape
            raise DataError(f"{what} keypoints of shape {shape}", f"{(count, points, 3)}, one point for each sigma")

    def _records(self, scene: Instances, picture: int) -> list[Record]:
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        boxes, areas = np.concatenate([scene.boxes[:, :2], sides], axis=1).astype(float), sides.prod(axis=1).astype(float)
        runs = _encode(scene.masks) if scene.masks is not None else None
        crowd = np.zeros(len(scene), bool) if scene.crowd is None else scene.crowd
        records = []
        for i in range(len(scene)):
            record: Record = {"image_id": picture, "category_id": int(scene.classes[i]), "iscrowd": int(crowd[i])}
            record |= {"bbox": boxes[i].tolist(), "box_area": float(areas[i]), "area": float(areas[i])}
            if runs is not None:
                record |= {"segmentation": runs[i], "area": _area(runs[i])}
            if self.task == "keypoint" and scene.keypoints is not None:
                record |= {"keypoints": scene.keypoints[i].ravel().astype(float).tolist()}
                record["num_keypoints"] = int((scene.keypoints[i, :, 2] > 0).sum())
            if scene.scores is not None:
                record["score"] = float(scene.scores[i])
            records.append(record)
        return records

    def _results(self) -> dict[str, Any]:
        if self._evaluated[0] != len(self._pictures):
            self._evaluated = (len(self._pictures), {kind: self._evaluate(kind) for kind in KINDS[self.task]})
        return self._evaluated[1]

    def _evaluate(self, kind: str) -> Any:
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it tells every step
            result = COCOeval(self._index(self._true), self._index(_sized(self._predicted, kind)), _IOU_TYPES[kind])
            result.params.maxDets = [_MOST[kind]]
            if kind == "keypoint":
                result.params.kpt_oks_sigmas = np.asarray(self.sigmas, float)
            result.evaluate()
            result.accumulate()
        return result

    def _index(self, records: list[Record]) -> Any:
        from pycocotools.coco import COCO

        index = COCO()
        categories = [{"id": label, "name": item.name} for label, item in enumerate(self.classes)]
        # Ids start at 1: pycocotools takes a match with 0 for none. It adds keys of its own, hence the copies.
        annotations = [record | {"id": number} for number, record in enumerate(records, 1)]
        index.dataset = {"images": self._pictures, "categories": categories, "annotations": annotations}
        index.createIndex()
        return index


def _sized(records: list[Record], kind: str) -> list[Record]:
    """Predictions with the area that COCO gives them: of the box, of the mask, or of what the keypoints span."""
    if kind == "mask":
        return records
    if kind == "box":
        return [record | {"area": record["box_area"]} for record in records]
    points = [np.reshape(record["keypoints"], (-1, 3))[:, :2] for record in records]
    return [record | {"area": float(np.ptp(item, axis=0).prod())} for record, item in zip(records, points, strict=True)]


def _figures(kind: str, result: Any) -> dict[str, float]:
    precision, thresholds = result.eval["precision"], result.params.iouThrs
    found = {f"{kind}_ap": _mean(precision[:, :, :, 0, -1])}
    for percent in (50, 75):
        found[f"{kind}_ap{percent}"] = _mean(precision[np.isclose(thresholds, percent / 100), :, :, 0, -1])
    for place, size in enumerate(result.params.areaRngLbl):
        if size != "all":
            found[f"{kind}_ap_{size}"] = _mean(precision[:, :, :, place, -1])
    return found | {f"{kind}_ar": _mean(result.eval["recall"][:, :, 0, -1])}


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is known; pycocotools writes -1 for the rest."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _encode(masks: NDArray[np.uint8]) -> list[Record]:
    """COCO run lengths of masks (M, H, W), 0 or 1."""
    from pycocotools import mask

    # The encoder reads columns: (H, W, M) in Fortran order is each mask transposed, one after the other.
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(2, 1, 0)
    runs: list[Record] = mask.encode(columns) if len(masks) else []
    return runs


def _area(runs: Record) -> float:
    from pycocotools import mask

    return float(mask.area(runs))


def _require_pycocotools() -> None:
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise EdgesegError("COCO metrics without pycocotools", "the package", "pip install 'edgeseg[train]'") from error
