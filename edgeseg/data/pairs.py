"""What the file-based data sets share: pairs of picture and label file, class tables, labels given as colours."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE, Dataset, Sample, check_labels, check_pair, read_image, read_indices
from edgeseg.errors import DataError, PictureError
from edgeseg.manifest import ClassInfo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Pair:
    """A picture, its label file, and the name of both."""

    image: Path
    labels: Path
    id: str


class PairDataset(Dataset):
    """A data set that is a list of file pairs; subclasses give the list and may decode labels their own way."""

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root, split
        if not root.is_dir():
            raise DataError(f"{root}: no such directory", f"the root of a {self.name} data set", f"give --data {self.name}:PATH")
        self._pairs = self._list_pairs()
        if not self._pairs:
            raise DataError(f"{root}: split {split!r} has no frames", "at least one picture with labels")

    @abstractmethod
    def _list_pairs(self) -> list[Pair]: ...

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        return read_indices(path)

    def ids(self) -> list[str]:
        return [pair.id for pair in self._pairs]

    def __getitem__(self, index: int) -> Sample:
        pair = self._pairs[index]
        image, labels = read_image(pair.image), self._decode_labels(pair.labels)
        check_pair(image, labels, pair.labels)
        check_labels(labels, len(self.classes), pair.labels)
        return Sample(image, labels, pair.id)


def choose_split(split: str, known: dict[str, str], name: str) -> str:
    """The directory or list that ``split`` stands for.

    Raises:
        DataError: the data set has no such labelled split.
    """
    if split not in known:
        raise DataError(f"{name}: no labelled split {split!r}", ", ".join(known), "choose one of them with --split")
    return known[split]


def read_list(path: Path, fix: str) -> list[str]:
    """First words of the lines of a split list.

    Raises:
        DataError: missing or empty.
    """
    expected = "a list with a name a line"
    try:
        words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}", "a list with a name a line", fix
        ) from error
    if not words:
        raise DataError(f"{path}: no frames", expected, fix)
    return words


def find_images(directory: Path) -> list[Path]:
    """Pictures anywhere below ``directory``, in the order of their names."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def bit_palette(count: int) -> list[tuple[int, int, int]]:
    """The PASCAL VOC colours: bits 0, 3, 6 of the index are bits 7, 6, 5 of red, the next ones of green and blue (VOC devkit)."""
    return [_bit_colour(index) for index in range(count)]


def _bit_colour(index: int) -> tuple[int, int, int]:
    r, g, b = (sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)) for channel in range(3))
    return r, g, b


def read_class_table(
    rows: Iterable[str], origin: str
) -> tuple[tuple[ClassInfo, ...], tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    """Classes from CSV lines ``index,name,r,g,b[,note][,thing]`` with a heading; ``thing`` is 1 for things.

    Returns:
        The classes in the order of their index; the indices and the colours of rows whose note is ``ignore``.

    Raises:
        DataError: a column is missing, a number is wrong, or the indices have gaps.
    """
    found: dict[int, ClassInfo] = {}
    ignored: dict[int, tuple[int, int, int]] = {}
    for number, row in enumerate(csv.DictReader(rows), 2):
        try:
            index, colour = int(row["index"]), (int(row["r"]), int(row["g"]), int(row["b"]))
            if (row.get("note") or "").strip() == "ignore":
                ignored[index] = colour
            else:
                found[index] = ClassInfo(name=row["name"].strip(), colour=colour, thing=(row.get("thing") or "").strip() == "1")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{origin}: line {number} {row}", "index,name,r,g,b[,note] under a heading of these names") from error
    if not found or sorted(found) != list(range(len(found))):
        raise DataError(f"{origin}: class indices {sorted(found)}", "0, 1, 2, ... without gaps; rows with note `ignore` may follow")
    return tuple(found[index] for index in range(len(found))), tuple(ignored), tuple(ignored.values())


def read_coloured(path: Path, classes: Sequence[ClassInfo], ignored: Sequence[tuple[int, int, int]] = ()) -> NDArray[np.uint8]:
    """A label picture as (H, W) uint8: indices if it is palette or grey, else colours looked up in ``classes``.

    Raises:
        DataError: a colour that is no class's; names the file, the colour and the first pixel (x, y).
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode not in ("RGB", "RGBA"):
                return read_indices(path)
            rgb = np.array(picture.convert("RGB"), dtype=np.int64)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path}: cannot read the label picture ({error})", "a PNG of class indices or class colours") from error
    return _colours_to_indices(rgb, classes, ignored, path)


def is_palette(path: Path) -> bool:
    """Whether a label picture stores indices (palette or grey) rather than colours.

    Raises:
        PictureError: missing, or not a picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.mode not in ("RGB", "RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path}: cannot read the label picture ({error})", "a PNG of class indices or class colours") from error


def _colours_to_indices(
    rgb: NDArray[np.int64], classes: Sequence[ClassInfo], ignored: Sequence[tuple[int, int, int]], path: Path
) -> NDArray[np.uint8]:
    packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    present, where = np.unique(packed, return_inverse=True)
    known = {(r << 16) | (g << 8) | b: IGNORE for r, g, b in ignored}
    known |= {(r << 16) | (g << 8) | b: index for index, (r, g, b) in enumerate(item.colour for item in classes)}
    for value in present:
        if int(value) not in known:
            y, x = np.argwhere(packed == value)[0]
            colour = tuple(int(level) for level in rgb[y, x])
            raise DataError(
                f"{path}: colour {colour} at pixel (x={x}, y={y})", "the colour of a class", "correct classes.csv, or the mask"
            )
    table = np.array([known[int(value)] for value in present], np.uint8)
    return np.asarray(table[where].reshape(packed.shape), np.uint8)
