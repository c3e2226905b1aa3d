"""From a map of segment ids to everything a sample holds: labels, objects, and a panoptic picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import IGNORE
from edgeseg.manifest import ClassInfo
from edgeseg.scene import VOID, Instances, Panoptic, Segment, mask_boxes

_CLASS_SHIFT = 16  # ids then fit the 24 bits of a panoptic PNG


@dataclass(frozen=True)
class Region:
    """What a segment id stands for: a class index, and whether it is a crowd of many things."""

    label: int
    crowd: bool = False


def make_panoptic(ids: NDArray[np.int32], regions: Mapping[int, Region]) -> tuple[Panoptic, set[int]]:
    """A panoptic picture of the regions that have pixels; ids without a region become void.

    Args:
        ids: (H, W) int32.
        regions: by id, none of which is ``VOID``.

    Returns:
        The picture, and the ids that have pixels but no region.
    """
    present = {int(value) for value in np.unique(ids)} - {VOID}
    unknown = present - regions.keys()
    if unknown:
        ids = np.where(np.isin(ids, list(unknown)), np.int32(VOID), ids)
    segments = [Segment(number, regions[number].label, crowd=regions[number].crowd) for number in sorted(present - unknown)]
    return Panoptic(np.asarray(ids, np.int32), tuple(segments)), unknown


def number_segments(labels: NDArray[np.uint8], objects: NDArray[Any], classes: Sequence[ClassInfo]) -> Panoptic:
    """A panoptic picture of labels and object numbers: an object a segment, a stuff class a segment.

    Args:
        labels: (H, W) uint8, 255 for void.
        objects: (H, W) of numbers below 65536 that tell objects of one class apart; 0 is no object, and where the class is a
            thing, a crowd. Ignored for stuff.
    """
    things = np.zeros(256, bool)
    things[: len(classes)] = [item.thing for item in classes]
    number = np.where(things[labels], np.asarray(objects, np.int32), 0)
    of_class = labels.astype(np.int32) + 1
    ids = np.where(number > 0, of_class << _CLASS_SHIFT | number, of_class)
    ids = np.where(labels == IGNORE, np.int32(VOID), ids)
    regions = {}
    for value in np.unique(ids).tolist():
        label = (value >> _CLASS_SHIFT or value) - 1
        if value != VOID:
            regions[value] = Region(label, crowd=value < 1 << _CLASS_SHIFT and classes[label].thing)
    return make_panoptic(ids, regions)[0]


def labels_of(panoptic: Panoptic) -> NDArray[np.uint8]:
    """(H, W) uint8: the class of each pixel's segment, 255 where it is void."""
    values = np.array([VOID, *(segment.id for segment in panoptic.segments)], np.int64)
    table = np.array([IGNORE, *(segment.label for segment in panoptic.segments)], np.uint8)
    order = np.argsort(values)
    return np.asarray(table[order][np.searchsorted(values[order], panoptic.ids)], np.uint8)


def instances_of(panoptic: Panoptic, classes: Sequence[ClassInfo]) -> Instances:
    """The segments that are things, with their masks and tight boxes."""
    things = [segment for segment in panoptic.segments if classes[segment.label].thing]
    masks = np.zeros((len(things), *panoptic.ids.shape), np.uint8)
    for mask, segment in zip(masks, things, strict=True):
        np.equal(panoptic.ids, segment.id, out=mask.view(bool))
    return Instances(
        mask_boxes(masks),
        np.array([segment.label for segment in things], np.int64),
        masks=masks,
        crowd=np.array([segment.crowd for segment in things], bool),
    )


def labels_from_masks(instances: Instances, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8: the objects' classes, small ones over large ones, 255 where there is no object."""
    labels = np.full(shape, IGNORE, np.uint8)
    if instances.masks is None:
        return labels
    areas = instances.masks.sum(axis=(1, 2), dtype=np.int64)
    crowd = np.zeros(len(instances), bool) if instances.crowd is None else instances.crowd
    for place in np.lexsort((-areas, ~crowd)):  # crowds lie below everything
        labels[instances.masks[place] != 0] = instances.classes[place]
    return labels
