"""The pictures that figures are measured on: which data set, which of its images, and never one seen in calibration."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.data import open_dataset
from edgeseg.errors import DataError, PictureError

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset, Sample
    from edgeseg.folder import ModelFolder
    from edgeseg.manifest import Manifest

MAX_SKIPPED = 0.05
"""Share of pictures that may be unreadable (always at least one) before the figure is refused."""

log = logging.getLogger("edgeseg.measure")


def default_data(manifest: Manifest) -> str | None:
    """The data set a model can be measured on with nothing downloaded: the procedural scenes, if it was trained on them."""
    found = re.match(r"(streets(:\d+)?|rooms(:[\w,-]+)?)\b", manifest.provenance.training_data)
    return found.group(0) if found else None


def require_data(manifest: Manifest, data: str | None) -> str:
    """``data``, or the model's own default.

    Raises:
        DataError: neither.
    """
    if chosen := data or default_data(manifest):
        return chosen
    trained = manifest.provenance.training_data or "data that model.json does not name"
    raise DataError(
        f"no data set given, and {manifest.name} was trained on {trained}", "--data NAME:PATH", "--data camvid:PATH or folder:PATH"
    )


def check_classes(manifest: Manifest, dataset: Dataset) -> None:
    """Refuse a data set with another number of classes; other names are only told.

    Raises:
        DataError: lists both.
    """
    have, want = manifest.class_names, [item.name for item in dataset.classes]
    if len(have) != len(want):
        raise DataError(
            f"{dataset.name} has {len(want)} classes ({_shorten(want)})",
            f"the {len(have)} of {manifest.name} ({_shorten(have)})",
            "use the data set the model was made for",
        )
    if [name.lower() for name in have] != [name.lower() for name in want]:
        log.warning("class names differ and are matched by position: model %s, data %s", _shorten(have), _shorten(want))


def check_task(manifest: Manifest, dataset: Dataset) -> None:
    """Refuse a data set without the truth of the model's task, or with frames of another modality.

    Raises:
        DataError: says what the data set has.
    """
    if manifest.task not in dataset.tasks:
        what = f"{dataset.name} has the truth for {', '.join(dataset.tasks)}"
        raise DataError(what, f"for {manifest.task}, the task of {manifest.name}", "give another data set")
    if dataset.modality != manifest.input.modality:
        fix = f"--data {dataset.name}:...,{manifest.input.modality}"
        raise DataError(f"{dataset.name} gives frames of {dataset.modality}", f"{manifest.input.modality} for {manifest.name}", fix)


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def picture_digest(image: np.ndarray) -> str:
    """Short digest of a picture's pixels: the same picture under another name has the same one."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).hexdigest()


def spread(total: int, count: int | None) -> list[int]:
    """``count`` indices spread evenly over ``total``; all of them when count is None or larger."""
    if count is None or count >= total:
        return list(range(total))
    return [index * total // count for index in range(count)]


class Pictures:
    """Some samples of a data set in order; unreadable ones are skipped and counted. It may be walked again.

    Args:
        indices: which samples.
        progress: told how many were taken or skipped so far.

    Raises while walking:
        DataError: more than ``MAX_SKIPPED`` are unreadable, or none is left.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int], progress: Callable[[int], object] | None = None) -> None:
        self.dataset, self.indices, self.skipped = dataset, indices, 0
        self._progress = progress or (lambda _: None)

    def __iter__(self) -> Iterator[Sample]:
        self.skipped, last = 0, ""
        allowed = max(1, int(MAX_SKIPPED * len(self.indices)))
        for done, index in enumerate(self.indices, start=1):
            try:
                sample = self.dataset[index]
            except PictureError as error:
                self.skipped, last = self.skipped + 1, error.what
                log.warning("skipped: %s", error.what)
                if self.skipped > allowed:
                    raise DataError(
                        f"{self.skipped} unreadable pictures, the last {last}", f"at most {allowed}", "repair the data set"
                    ) from error
                continue
            yield sample
            self._progress(done)
        if self.indices and self.skipped == len(self.indices):
            raise DataError(f"no picture could be read, the last {last}", "pictures", "repair the data set")


def calibration_record(folder: ModelFolder) -> dict[str, Any]:
    """What ranges.json says of the images it was made on; empty without one."""
    try:
        data = json.loads(folder.ranges.read_bytes()).get("data", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return data if isinstance(data, dict) else {}


def refuse_calibrated(folder: ModelFolder, dataset: Dataset, indices: Sequence[int]) -> set[str]:
    """Refuse evaluating on pictures that int8 calibration saw; returns the digests to look out for while evaluating.

    Raises:
        DataError: names how many overlap and how to calibrate on others.
    """
    record = calibration_record(folder)
    if record.get("dataset") == dataset.name:
        ids = dataset.ids()
        chosen = {ids[index] for index in indices}
        shared = [name for name in record.get("ids", []) if name in chosen]
        if shared:
            raise seen_in_calibration(folder, dataset, len(shared), shared[0])
    return set(record.get("pictures", []))


def seen_in_calibration(folder: ModelFolder, dataset: Dataset, count: int, name: str) -> DataError:
    """The error for an evaluation that would flatter int8."""
    return DataError(
        f"{count} of the {dataset.split} pictures of {dataset.name} were used in calibration, the first {name}",
        "pictures that calibration has not seen",
        f"`edgeseg calibrate {folder.path} --data DATA --split train`, or --precision fp32",
    )


def open_labelled(folder: ModelFolder, data: str | None, split: str, count: int | None) -> tuple[str, Dataset, list[int]]:
    """The name of the data set that a model is measured on, the split, and which ``count`` of its frames; None takes all.

    Raises:
        DataError: no data or pictures, other classes, another modality, or not the truth of the model's task.
    """
    name = require_data(folder.manifest, data)
    dataset = open_dataset(name, split)
    check_classes(folder.manifest, dataset)
    check_task(folder.manifest, dataset)
    indices = spread(len(dataset), count)
    if not indices:
        raise DataError(f"{name}: split {split!r} has no pictures", "labelled pictures", "choose another --split")
    return name, dataset, indices


def unseen(folder: ModelFolder, pictures: Pictures, precision: str) -> Iterator[Sample]:
    """The pictures; for an int8 engine none that calibration saw.

    Raises while walking:
        DataError: one was used in calibration, under this name or another; or what ``Pictures`` raises.
    """
    seen = refuse_calibrated(folder, pictures.dataset, pictures.indices) if precision == "int8" else set()
    for sample in pictures:
        if seen and picture_digest(sample.image) in seen:
            raise seen_in_calibration(folder, pictures.dataset, 1, sample.id)
        yield sample


def judging_frames(folder: ModelFolder, data: str | None = None) -> Callable[[], list[np.ndarray]] | None:
    """What ``build_engine(frames=)`` takes: four frames of the data set, of its val split if it has one; None without data."""
    if data is None and default_data(folder.manifest) is None:
        return None

    def frames() -> list[np.ndarray]:
        for split in ("val", "train"):
            try:
                return sample_frames(folder, data, split, 4)
            except DataError:
                continue
        return sample_frames(folder, data, "test", 4)

    return frames


def sample_frames(folder: ModelFolder, data: str | None, split: str, count: int) -> list[np.ndarray]:
    """``count`` BGR uint8 frames of a data set, or synthetic ones of the model's size when there is none to take."""
    spec = folder.manifest.input
    name = data or default_data(folder.manifest)
    if name is None:
        return synthetic_frames(spec.height, spec.width, count, channels=max(3, spec.channels))
    dataset = open_dataset(name, split)
    return [sample.image for sample in Pictures(dataset, spread(len(dataset), count))]


def synthetic_frames(height: int, width: int, count: int = 4, seed: int = 0, channels: int = 3) -> list[np.ndarray]:
    """Frames of soft gradients with flat shapes and a little noise, (height, width, channels) uint8: areas as in scenes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = []
    for _ in range(count):
        tilt = rng.uniform(-1, 1, (2, channels)).astype(np.float32)
        frame = 128 + 90 * (rows[..., None] / height - 0.5) * tilt[0] + 90 * (columns[..., None] / width - 0.5) * tilt[1]
        for _ in range(12):
            top, left = rng.integers(0, height), rng.integers(0, width)
            bottom, right = top + rng.integers(2, height // 2 + 3), left + rng.integers(2, width // 2 + 3)
            frame[top:bottom, left:right] = rng.uniform(0, 255, channels)
        frame += rng.normal(0, 4, frame.shape)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames
