"""The rows of a detecting network's outputs that are objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import BackendError
from edgeseg.manifest import Manifest

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Detections:
    """D objects, best first, in pixels of the network's input.

    Attributes:
        boxes: (D, 4) float32.
        scores: (D) float32.
        classes: (D) int64.
        masks: (D, m, m) float32, probabilities over the boxes, or None.
        keypoints: (D, K, 3) float32, or None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.float32] | None
    keypoints: NDArray[np.float32] | None


def read_detections(outputs: Outputs, manifest: Manifest, score: float = 0.0) -> Detections:
    """The outputs of kind "detections" or "panoptic" without their padding and without rows whose score is below ``score``.

    Raises:
        BackendError: an output is missing or has another shape than the manifest says, or a class is none of its.
    """
    names = manifest.output_names
    classes = fetch(outputs, "classes", 2, "(1, D)")[0].astype(np.int64)
    count = len(classes)
    boxes, scores = _rows(outputs, "boxes", count, (4,)), _rows(outputs, "scores", count, ())
    points = (len(manifest.keypoints.names) if manifest.keypoints else -1, 3)
    keypoints = _rows(outputs, "keypoints", count, points) if "keypoints" in names else None
    masks = _rows(outputs, "masks", count, (-1, -1)) if "masks" in names else None
    if count and classes.max() >= len(manifest.classes):
        expected = f"-1 (no object) to {len(manifest.classes) - 1}"
        raise BackendError(f"output 'classes': {classes.max()}", expected, "correct $.classes of model.json")
    found = np.flatnonzero((classes >= 0) & (scores >= score))
    best = found[np.argsort(-scores[found], kind="stable")]
    more = (None if item is None else item[best] for item in (masks, keypoints))
    return Detections(boxes[best], scores[best], classes[best], *more)


def fetch(outputs: Outputs, name: str, dims: int, expected: str) -> NDArray[Any]:
    """The output ``name`` of one picture, checked to have ``dims`` dimensions and a batch of 1.

    Raises:
        BackendError: it is missing or has another shape.
    """
    fix = "correct $.output of model.json, or export again"
    if name not in outputs:
        raise BackendError(f"no output {name!r} among {', '.join(sorted(outputs)) or 'none'}", f"{name} {expected}", fix)
    array = outputs[name]
    if array.ndim != dims or array.shape[0] != 1:
        raise BackendError(f"output {name!r}: {array.shape}", expected, fix)
    return array


def _rows(outputs: Outputs, name: str, count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(D, ...) float32 of an output (1, D, ...); -1 in ``shape`` is any size."""
    expected = f"(1, {count}{''.join(f', {size}' if size >= 0 else ', any' for size in shape)})"
    rows = fetch(outputs, name, 2 + len(shape), expected)[0]
    if len(rows) != count or any(size not in (-1, got) for size, got in zip(shape, rows.shape[1:], strict=True)):
        raise BackendError(f"output {name!r}: {outputs[name].shape}", expected, "correct $.output of model.json, or export again")
    return rows.astype(np.float32, copy=False)
