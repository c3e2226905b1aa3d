"""COCO's annotation documents: reading, checking and counting what is wrong; categories as classes."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edgeseg.data.base import MAX_CLASSES
from edgeseg.data.pairs import bit_palette
from edgeseg.data.problems import Problems
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo

Record = dict[str, Any]
_FIX = "restore the file, or export it again as COCO JSON"


@dataclass(frozen=True)
class CocoDocument:
    """One annotation file.

    Attributes:
        images: the records of pictures, in the order of the file.
        annotations: those of each picture by its id, in the order of the file.
        categories: sorted by id.
        index: class index of each category id.
    """

    path: Path
    images: tuple[Record, ...]
    annotations: dict[Any, list[Record]]
    categories: tuple[Record, ...]
    index: dict[int, int]


def read_document(path: Path, problems: Problems, annotation_ids: bool = True) -> CocoDocument:
    """Read and check an annotation file. What can be left out is left out and counted in ``problems``.

    Args:
        annotation_ids: annotations have ids of their own (in panoptic files they do not).

    Raises:
        DataError: missing, not COCO JSON, no pictures, two pictures or categories of one id, too many categories.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "COCO's annotations", "unpack them there, or choose another split") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})", "COCO's annotations", _FIX) from error
    images, annotations, categories = (_records(document, key, path) for key in ("images", "annotations", "categories"))
    if not images:
        raise DataError(f"{path}: no pictures", "at least one record in `images`", _FIX)
    pictures = _distinct_images(images, path, problems)
    categories = sorted(categories, key=lambda record: int(record["id"]))
    index = {int(record["id"]): place for place, record in enumerate(categories)}
    if len(index) < len(categories):
        raise DataError(f"{path}: two categories of one id", "distinct ids in `categories`", _FIX)
    if not 0 < len(categories) <= MAX_CLASSES:
        raise DataError(f"{path}: {len(categories)} categories", f"1..{MAX_CLASSES}: labels are bytes", "merge or drop categories")
    known = {record["id"] for record in pictures}
    kept = _usable(annotations, known, index if annotation_ids else None, problems)
    return CocoDocument(path, pictures, kept, tuple(categories), index)


_NEEDED: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": (str,)},
    "annotations": {"image_id": (int, str)},
    "categories": {"id": (int,), "name": (str,)},
}


def _records(document: Any, key: str, path: Path) -> list[Record]:
    found = document.get(key, []) if isinstance(document, dict) else None
    if not isinstance(found, list) or any(not isinstance(item, dict) for item in found):
        raise DataError(f"{path}: `{key}` is no list of records", "COCO's annotations: images, annotations, categories", _FIX)
    needed = _NEEDED[key]
    for place, record in enumerate(found):
        if any(type(record.get(name)) not in kinds for name, kinds in needed.items()):
            expected = " and ".join(f"{name} ({' or '.join(kind.__name__ for kind in kinds)})" for name, kinds in needed.items())
            raise DataError(f"{path}: {key}[{place}] {str(record)[:80]}", expected, _FIX)
    return found


def _distinct_images(images: list[Record], path: Path, problems: Problems) -> tuple[Record, ...]:
    by_id: dict[int | str, Record] = {}
    for record in images:
        first = by_id.setdefault(record["id"], record)
        if first is record:
            continue
        if first["file_name"] != record["file_name"]:
            what = f"{path}: pictures {first['file_name']} and {record['file_name']} both have id {record['id']}"
            raise DataError(what, "distinct ids in `images`", _FIX)
        problems.add("picture listed twice, taken once", f"{path.name} image {record['id']}")
    return tuple(by_id.values())


def _usable(
    annotations: Iterable[Record], images: set[int | str], index: dict[int, int] | None, problems: Problems
) -> dict[Any, list[Record]]:
    kept: dict[Any, list[Record]] = defaultdict(list)
    seen: set[str] = set()
    for place, record in enumerate(annotations):
        where = f"annotation {record.get('id', f'number {place}')}"
        if record["image_id"] not in images:
            problems.add("annotation of a picture that is not listed, left out", f"{where} of image {record['image_id']}")
        elif index is not None and not _listed(record.get("category_id"), index):
            problems.add("annotation of an unknown category, left out", f"{where}: category {record.get('category_id')}")
        elif index is not None and "id" in record and str(record["id"]) in seen:
            problems.add("second annotation of one id, left out", where)
        else:
            kept[record["image_id"]].append(record)
            seen.add(str(record.get("id")))
    return dict(kept)


def _listed(category: Any, index: dict[int, int]) -> bool:
    return type(category) is int and category in index


# --- classes -----------------------------------------------------------------------------------------------------


@cache
def official_categories() -> dict[str, ClassInfo]:
    """COCO's 133 panoptic categories by name, 80 things and 53 stuff, in the colours of its panoptic API."""
    rows = csv.DictReader((resources.files("edgeseg.data") / "coco.csv").read_text("utf-8").splitlines())
    return {
        row["name"]: ClassInfo(name=row["name"], colour=(int(row["r"]), int(row["g"]), int(row["b"])), thing=row["thing"] == "1")
        for row in rows
    }


def make_classes(categories: Iterable[Record], thing: Callable[[Record], bool]) -> tuple[ClassInfo, ...]:
    """Classes in the order of ``categories``: colours of the record, else COCO's own by name, else the VOC palette's."""
    records = list(categories)
    spare, official = bit_palette(len(records) + 1), official_categories()
    classes = []
    for place, record in enumerate(records, 1):
        name = record["name"] or f"category {record['id']}"
        colour = official[name].colour if name in official else spare[place]
        classes.append(ClassInfo(name=name, colour=_own_colour(record) or colour, thing=thing(record)))
    return tuple(classes)


def _own_colour(record: Record) -> tuple[int, int, int] | None:
    found = record.get("color")
    if not isinstance(found, list) or len(found) != 3 or any(type(v) is not int or not 0 <= v <= 255 for v in found):
        return None
    return found[0], found[1], found[2]


# --- where things are --------------------------------------------------------------------------------------------


def find_annotations(root: Path, split: str, kind: str) -> Path:
    """The annotation file of a split: ``annotations/KIND_SPLIT2017.json`` or 2014's, or without a year, or Roboflow's.

    Raises:
        DataError: there is none; lists what is there.
    """
    folder = root / "annotations"
    tried = [folder / f"{kind}_{split}{year}.json" for year in ("2017", "2014", "")]
    if kind == "instances":
        tried.append(root / split / "_annotations.coco.json")
    for path in tried:
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in folder.glob(f"{kind}_*.json"))) or "none"
    fix = f"give the folder that holds annotations/ and a split it has (found: {found})"
    raise DataError(f"{root}: no {kind} of split {split!r}", f"annotations/{tried[0].name}", fix)


def find_pictures(root: Path, split: str, annotations: Path) -> Path:
    """The folder of a split's pictures: ``SPLIT2017`` (or 2014, or no year), alone or below ``images``."""
    if annotations.name == "_annotations.coco.json":
        return annotations.parent
    for name in (f"{split}2017", f"{split}2014", split):
        for folder in (root / name, root / "images" / name):
            if folder.is_dir():
                return folder
    return root / "images" if (root / "images").is_dir() else root
