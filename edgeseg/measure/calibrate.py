"""INT8 calibration of a model folder on a data set, kept apart from the pictures that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from calibration import Ranges, collect, prepare
from edgeseg.data import open_dataset
from edgeseg.engines.keys import preprocessing_digest
from edgeseg.errors import DataError
from edgeseg.files import atomic_path, check_writable
from edgeseg.folder import GRAPH, RANGES, ModelFolder
from edgeseg.measure.samples import Pictures, picture_digest, require_data, spread
from edgeseg.onnx_guard import load_onnx
from edgeseg.ops.functions import DOMAIN
from edgeseg.preprocess import Preprocessor

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset

EVALUATION_SPLITS = ("test", "val")


def calibrate(
    folder: ModelFolder,
    data: str | None = None,
    split: str = "train",
    method: str = "entropy",
    images: int | None = 200,
    percentile: float = 99.99,
    progress: Callable[[int], object] | None = None,
) -> Ranges:
    """Find the range of every tensor on ``images`` pictures of a split, write ranges.json and register it.

    Args:
        data: such as "camvid:PATH"; by default the procedural scenes, for a model trained on them.
        images: at most so many pictures, spread evenly over the split; None takes all.
        progress: told how many pictures are done.

    Raises:
        DataError: no pictures, too many unreadable ones, or pictures that belong to an evaluation split.
        CalibrationError: an activation is NaN, or the method is unknown.
    """
    graph = folder.require(GRAPH, f"run `edgeseg export {folder.path}`")
    check_writable(folder.path)
    name = require_data(folder.manifest, data)
    dataset = open_dataset(name, split)
    indices = spread(len(dataset), images)
    if not indices:
        raise DataError(
            f"{name}: split {split!r} has no pictures to calibrate on", "100 or more", "choose another --split or data set"
        )
    refuse_evaluation_pictures(name, dataset, indices)
    batches = _Batches(folder, Pictures(dataset, indices, progress))
    ranges = collect(prepare(load_onnx(graph), keep_domains=(DOMAIN,)), batches, method=method, percentile=percentile)
    ranges.data.update(batches.record(name, dataset, split), preprocessing=preprocessing_digest(folder.manifest))
    with atomic_path(folder.ranges) as temporary:
        ranges.save(temporary)
    folder.register(RANGES)
    return ranges


def refuse_evaluation_pictures(data: str, dataset: Dataset, indices: list[int]) -> None:
    """Refuse pictures that also stand in the data set's val or test split.

    Raises:
        DataError: names the split, how many, and the first.
    """
    ids = dataset.ids()
    chosen = {ids[index] for index in indices}
    for split in EVALUATION_SPLITS:
        try:
            others = open_dataset(data, split).ids()
        except DataError:
            continue  # the data set has no such split
        if shared := [name for name in others if name in chosen]:
            what = f"{data}: {len(shared)} of the {dataset.split} pictures are also in its {split} split, the first {shared[0]}"
            raise DataError(what, "calibration pictures that no evaluation uses", "--split train, or another data set")


class _Batches:
    """Network inputs of the pictures, (N, C, H, W) float32 by name, and what was seen; may be walked again."""

    def __init__(self, folder: ModelFolder, pictures: Pictures) -> None:
        self._spec, self._pictures = folder.manifest.input, pictures
        self._preprocess = Preprocessor(self._spec)
        self._ids: list[str] = []
        self._digests: list[str] = []

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        self._ids, self._digests = [], []
        batch: list[np.ndarray] = []
        for sample in self._pictures:
            self._ids.append(sample.id)
            self._digests.append(picture_digest(sample.image))
            batch.append(self._preprocess(sample.image)[:1])
            if len(batch) == self._spec.batch:
                yield {self._spec.name: np.concatenate(batch)}
                batch = []
        if batch:  # a graph of fixed batch takes only full ones
            batch += [batch[-1]] * (self._spec.batch - len(batch))
            yield {self._spec.name: np.concatenate(batch)}

    def record(self, data: str, dataset: Dataset, split: str) -> dict[str, object]:
        """What ranges.json keeps of the pictures."""
        return {
            "source": data.partition(":")[0],
            "dataset": dataset.name,
            "split": split,
            "licence": dataset.licence,
            "skipped": self._pictures.skipped,
            "ids": self._ids,
            "pictures": self._digests,
        }
