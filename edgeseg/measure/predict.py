"""Predictions of pictures as files: label maps, objects and segments in the forms other tools read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import read_image
from edgeseg.data.pairs import find_images
from edgeseg.data.raster import SUFFIXES, label_writer, open_raster
from edgeseg.engines.predictor import Predictor
from edgeseg.engines.segmenter import Segmenter
from edgeseg.engines.tiled import TiledPredictor
from edgeseg.errors import DataError
from edgeseg.files import atomic_path, write_bytes, write_json
from edgeseg.native import overlay
from edgeseg.postprocess import palette_bgr
from edgeseg.postprocess.decoder import class_map
from edgeseg.postprocess.draw import draw_scene
from edgeseg.scene import Instances, Panoptic, Prediction

if TYPE_CHECKING:
    from edgeseg.manifest import Manifest

Progress = Callable[[int, int], object]
_OPACITY = 0.55


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """The files given, and the pictures below the folders given.

    Raises:
        DataError: a path is missing, nothing is left, or two would be written to one name.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder", "a picture, or a folder of pictures")
        found += find_images(path) if path.is_dir() else [path]
    if not found:
        raise DataError(f"{', '.join(map(str, inputs))}: no pictures", "JPEG, PNG or TIFF files")
    stems = [path.stem for path in found]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise DataError(f"two pictures named {twice}", "names that differ, as the results are named after them", "use two folders")
    return found


def predict_file(
    predictor: Segmenter | Predictor, path: Path, out: Path, draw: bool, progress: Progress = lambda done, total: None
) -> list[Path]:
    """Predict one picture and write the result into ``out``; returns what was written.

    A tiled model reads TIFF and JPEG 2000 files in windows and writes a TIFF of labels: memory does not grow with the picture.
    Everything else is read whole.

    Raises:
        PictureError: the file cannot be read.
    """
    if isinstance(predictor, TiledPredictor) and path.suffix.lower() in SUFFIXES:
        target = out / f"{path.stem}.tif"
        classes = predictor.manifest.classes
        with (
            open_raster(path) as picture,
            atomic_path(target) as temporary,
            label_writer(temporary, picture.profile, classes) as write,
        ):
            predictor.run(picture, write, progress)
        return [target]
    frame = read_image(path)
    prediction = predictor(frame)
    written = save(prediction, predictor.manifest, out, path.stem)
    if draw:
        written.append(_write_picture(out / f"{path.stem}_overlay.jpg", draw_over(frame, prediction, predictor.manifest)))
    return written


def save(prediction: Prediction, manifest: Manifest, out: Path, name: str) -> list[Path]:
    """Write labels as a palette PNG, objects as JSON with run-length masks (COCO results), segments as COCO panoptic PNG + JSON."""
    if isinstance(prediction, Instances):
        path = out / f"{name}.json"
        write_json(path, objects(prediction, manifest))
        return [path]
    if isinstance(prediction, Panoptic):
        return _save_panoptic(prediction, manifest, out, name)
    maps = prediction if isinstance(prediction, list) else [prediction]
    spaces = [("", manifest.classes), *((f"_{space.name}", space.classes) for space in manifest.spaces)]
    return [
        _save_labels(out / f"{name}{suffix}.png", labels, classes) for labels, (suffix, classes) in zip(maps, spaces, strict=True)
    ]


def _save_labels(path: Path, labels: NDArray[np.uint8], classes: Sequence[Any]) -> Path:
    from PIL import Image

    picture = Image.fromarray(labels, "P")
    picture.putpalette(palette_bgr(classes)[:, ::-1].tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def objects(prediction: Instances, manifest: Manifest) -> list[dict[str, Any]]:
    """COCO's result records: category_id is the class index, bbox (x, y, width, height), masks run-length encoded."""
    records = []
    scores = prediction.scores if prediction.scores is not None else np.ones(len(prediction))
    for index, (box, label) in enumerate(zip(prediction.boxes.tolist(), prediction.classes.tolist(), strict=True)):
        record: dict[str, Any] = {"category_id": label, "category": manifest.class_names[label], "score": float(scores[index])}
        record["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        if prediction.masks is not None:
            record["segmentation"] = _run_lengths(prediction.masks[index])
        if prediction.keypoints is not None:
            record["keypoints"] = [float(value) for value in prediction.keypoints[index].ravel()]
        records.append(record)
    return records


def _run_lengths(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """COCO's uncompressed form: lengths of runs of 0 and 1 down the columns, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
    first = [0] if flat.size and flat[0] else []
    return {"size": list(mask.shape), "counts": [*first, *(int(count) for count in counts)]}


def _save_panoptic(prediction: Panoptic, manifest: Manifest, out: Path, name: str) -> list[Path]:
    ids = prediction.ids.astype(np.uint32)
    bgr = np.stack([(ids >> 16) & 255, (ids >> 8) & 255, ids & 255], axis=-1).astype(np.uint8)  # red is the lowest byte
    info = [
        {
            "id": segment.id,
            "category_id": segment.label,
            "category": manifest.class_names[segment.label],
            "isthing": manifest.classes[segment.label].thing,
            "score": segment.score,
            "area": int((prediction.ids == segment.id).sum()),
        }
        for segment in prediction.segments
    ]
    picture = _write_picture(out / f"{name}.png", bgr)
    write_json(out / f"{name}.json", {"file_name": picture.name, "segments_info": info})
    return [picture, out / f"{name}.json"]


def draw_over(frame: NDArray[np.uint8], prediction: Prediction, manifest: Manifest) -> NDArray[np.uint8]:
    """The prediction over its frame, (H, W, 3) uint8 BGR."""
    frame = np.ascontiguousarray(frame[..., :3])
    if isinstance(prediction, Instances | Panoptic):
        return draw_scene(frame, prediction, manifest.classes)
    return overlay(frame, class_map(prediction, frame.shape[:2]), palette_bgr(manifest.classes), _OPACITY)


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    done, data = cv2.imencode(path.suffix, picture)
    assert done
    write_bytes(path, data.tobytes())
    return path
