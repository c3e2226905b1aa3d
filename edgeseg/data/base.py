"""What every data set is: a list of named image and label-map pairs with classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.problems import Problems
from edgeseg.errors import DataError, PictureError
from edgeseg.files import sha256_json
from edgeseg.manifest import ClassInfo, KeypointSpec, LabelSpace, Modality, Task
from edgeseg.scene import Instances, Panoptic

IGNORE = 255
MAX_CLASSES = 255
"""Labels are bytes, and 255 is no class."""


@dataclass(frozen=True)
class Sample:
    """One labelled frame.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W) uint8, class index or 255 where there is no truth.
        id: name of the frame, unique in its data set over all splits.
        instances: its objects, where the data set has them. Their classes are indices of ``Dataset.classes``.
        panoptic: its segments, where the data set has them.
        spaces: label maps of the further label spaces of ``Dataset.spaces``, as ``labels``.

    An image of depth data has 4 or 6 channels (see ``edgeseg.manifest.InputSpec.modality``).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    id: str
    instances: Instances | None = None
    panoptic: Panoptic | None = None
    spaces: tuple[NDArray[np.uint8], ...] = ()


class Dataset(ABC):
    """A split of a data set. Subclasses fill ``name``, ``classes``, ``licence`` and the two abstract methods.

    Attributes:
        tasks: what its samples have the truth for.
        spaces: further label spaces, see ``Sample.spaces``.
        keypoints: the keypoints of its instances.
        modality: what the channels of an image are.
        uri: what opens it again, options and all, where nothing has to be downloaded for that.
        problems: what is wrong in the annotations and does not stop a run; some is found only when a sample is read.
    """

    name: ClassVar[str]
    licence: ClassVar[str]
    classes: tuple[ClassInfo, ...]
    split: str
    tasks: tuple[Task, ...] = ("semantic",)
    spaces: tuple[LabelSpace, ...] = ()
    keypoints: KeypointSpec | None = None
    modality: Modality = "rgb"
    uri: str | None = None

    @cached_property
    def problems(self) -> Problems:
        return Problems()

    @abstractmethod
    def ids(self) -> list[str]:
        """Names of the frames, in order."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __len__(self) -> int:
        return len(self.ids())

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def digest(self) -> str:
        """SHA-256 of the list of ids."""
        return sha256_json([self.name, self.ids()])


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 BGR; EXIF rotation is not applied, as label maps have none.

    Raises:
        DataError: missing or not a picture.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(image, dtype=np.uint8)


def read_indices(path: Path) -> NDArray[np.uint8]:
    """A label PNG as (H, W) uint8 of the stored indices; a palette is not applied.

    Raises:
        DataError: missing, not a picture, or not single-channel.
    """
    from PIL import Image, UnidentifiedImageError  # OpenCV applies the palette; Pillow does not.

    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L"):
                raise DataError(f"{path}: label picture of mode {picture.mode}", "palette (P) or grey (L) PNG of class indices")
            return np.array(picture, dtype=np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path}: cannot read the label picture ({error})", "a PNG of class indices") from error


def read_ids16(path: Path) -> NDArray[np.int32]:
    """A 16-bit (or 8-bit) grey PNG of ids as (H, W) int32.

    Raises:
        PictureError: missing, not a picture, or not single-channel.
    """
    ids = _decode(path, cv2.IMREAD_UNCHANGED)
    if ids.ndim != 2 or ids.dtype.kind != "u":
        raise PictureError(f"{path}: {1 if ids.ndim == 2 else ids.shape[2]} channels of {ids.dtype}", "a grey 16-bit PNG of ids")
    return np.asarray(ids, np.int32)


def check_labels(labels: NDArray[Any], num_classes: int, path: Path, ignore: int = IGNORE) -> None:
    """Refuse a label that is neither a class nor ``ignore``.

    Raises:
        DataError: names the file, the value and the first pixel (x, y) that has it.
    """
    bad = (labels >= num_classes) & (labels != ignore)
    if bad.any():
        y, x = np.argwhere(bad)[0]
        raise DataError(f"{path}: label {labels[y, x]} at pixel (x={x}, y={y})", f"0..{num_classes - 1} or {ignore} (ignore)")


def check_classes(classes: Sequence[ClassInfo], origin: object) -> None:
    """Refuse more classes than labels can tell apart.

    Raises:
        DataError: more than ``MAX_CLASSES``.
    """
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{origin}: {len(classes)} classes", f"at most {MAX_CLASSES}: labels are bytes", "merge or drop classes")


def check_pair(image: NDArray[np.uint8], labels: NDArray[Any], path: Path) -> None:
    """Refuse a label map of another size than its picture.

    Raises:
        DataError: names the file and both sizes.
    """
    if image.shape[:2] != labels.shape:
        size, expected = (f"{array.shape[1]}x{array.shape[0]} px" for array in (labels, image))
        raise DataError(f"{path}: label map of {size}", f"{expected} as its picture")


def _decode(path: Path, flags: int) -> NDArray[Any]:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror}", "a picture") from error
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:  # more pixels declared than OpenCV takes
        image = None
    if image is None:
        raise PictureError(f"{path}: cannot decode the picture ({data.size} bytes)", "a JPEG, PNG or other picture OpenCV reads")
    return np.asarray(image)
