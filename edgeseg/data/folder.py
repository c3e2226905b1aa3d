"""Anybody's folder of pictures and masks, with or without a class list and split lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE
from edgeseg.data.pairs import Pair, PairDataset, bit_palette, find_images, read_class_table, read_coloured, read_list
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo

_LAYOUT = "images/ and masks/ (with SPLIT.txt lists, or SPLIT folders inside), or SPLIT/images/ and SPLIT/masks/"


class Folder(PairDataset):
    """``folder:PATH``; a picture and its mask have the same name, the mask a PNG of class indices or class colours.

    Layouts: ``SPLIT/{images,masks}``, ``{images,masks}/SPLIT``, or ``{images,masks}`` with ``SPLIT.txt`` lists of names; without
    any of these the only split is ``all``. Classes: ``classes.csv`` (index,name,r,g,b[,note]; note ``ignore`` makes a label 255),
    ``classes.json`` (``[{"name": ..., "colour": [r, g, b]}, ...]``), or numbers up to the largest found in the masks.
    """

    name = "folder"
    licence = "the user's own"

    def __init__(self, path: str, split: str) -> None:
        self._ignored: tuple[int, ...] = ()
        self._ignored_colours: tuple[tuple[int, int, int], ...] = ()
        super().__init__(Path(path).expanduser(), split)
        self.classes = self._find_classes()

    def _list_pairs(self) -> list[Pair]:
        root, split = self.root, self.split
        if (root / split / "images").is_dir():
            return self._match(root / split / "images", root / split / "masks", f"{split}/")
        if (root / "images" / split).is_dir():
            return self._match(root / "images" / split, root / "masks" / split, f"{split}/")
        if not (root / "images").is_dir():
            raise DataError(f"{root}: no split {split!r}", _LAYOUT, "arrange the folder so, or choose another --split")
        pairs = self._match(root / "images", root / "masks", "")
        if split == "all":
            return pairs
        names = read_list(root / f"{split}.txt", "write that list of picture names, or use --split all")
        by_id = {pair.id: pair for pair in pairs}
        ids = [Path(name).with_suffix("").as_posix() if Path(name).suffix else name for name in names]
        unknown = [name for name in ids if name not in by_id]
        if unknown:
            raise DataError(
                f"{root / split}.txt: {unknown[0]!r} ({len(unknown)} of {len(ids)} names)",
                f"names of pictures in {root / 'images'}",
            )
        return [by_id[name] for name in ids]

    def _match(self, images: Path, masks: Path, prefix: str) -> list[Pair]:
        pairs = []
        for image in find_images(images):
            relative = image.relative_to(images).with_suffix("")
            mask = masks / relative.parent / f"{relative.name}.png"
            if not mask.is_file():
                raise DataError(f"{image}: no mask", str(mask), "give the mask the picture's name with .png")
            pairs.append(Pair(image, mask, f"{prefix}{relative.as_posix()}"))
        return pairs

    def _find_classes(self) -> tuple[ClassInfo, ...]:
        table, document = self.root / "classes.csv", self.root / "classes.json"
        if table.is_file():
            classes, self._ignored, self._ignored_colours = read_class_table(table.read_text("utf-8").splitlines(), str(table))
            return classes
        if document.is_file():
            return _read_json(document)
        return self._count_classes()

    def _count_classes(self) -> tuple[ClassInfo, ...]:
        highest = 0
        for pair in self._pairs:
            labels = read_coloured(pair.labels, (), ())
            highest = max(highest, int(labels[labels != IGNORE].max(initial=0)))
        colours = bit_palette(highest + 1)
        return tuple(ClassInfo(name=f"class {index}", colour=colour) for index, colour in enumerate(colours))

    def _decode_labels(self, path: Path) -> NDArray[np.uint8]:
        labels = read_coloured(path, self.classes, self._ignored_colours)
        for index in self._ignored:
            labels = np.where(labels == index, np.uint8(IGNORE), labels)
        return labels


def _read_json(path: Path) -> tuple[ClassInfo, ...]:
    expected = '[{"name": "road", "colour": [128, 64, 128]}, ...]'
    try:
        rows = json.loads(path.read_text("utf-8"))
        classes = tuple(ClassInfo(name=row["name"], colour=tuple(row["colour"])) for row in rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: {error}", expected) from error
    if not classes:
        raise DataError(f"{path}: no classes", expected)
    return classes
