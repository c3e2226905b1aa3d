"""Panoptic FPN's outputs to a partition of the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import BackendError
from edgeseg.manifest import Manifest
from edgeseg.native.scene import merge_panoptic
from edgeseg.postprocess.detections import Outputs, fetch, read_detections
from edgeseg.postprocess.placing import boxes_on_frame, visible
from edgeseg.scene import Panoptic, Placement, Segment


class PanopticDecoder:
    """Outputs of kind "panoptic" to segments (Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 4).

    Instances of at least ``merge.score`` are placed best first, and each takes what is still free of its mask; one of which
    less than the share ``merge.overlap`` is free is dropped. Stuff is the argmax of the semantic logits on the pixels that
    are left; where "any thing" wins they are void, and so is a stuff class on fewer than ``merge.stuff_area`` pixels.

    Args:
        manifest: of the model; stuff are its classes that are no things, in order.
        threads: rows are split over so many threads.
    """

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        self._manifest, self._threads = manifest, threads
        self._stuff = [label for label, item in enumerate(manifest.classes) if not item.thing]

    def __call__(self, outputs: Outputs, placement: Placement) -> Panoptic:
        """Segments at the frame's size: things best first, then stuff in the order of the classes.

        Raises:
            BackendError: an output does not fit the manifest.
        """
        merge = self._manifest.merge
        found = read_detections(outputs, self._manifest, merge.score)
        assert found.masks is not None
        merged = merge_panoptic(
            found.masks,
            boxes_on_frame(found.boxes, placement),
            self._semantic(outputs, placement),
            len(self._stuff),
            threshold=merge.mask,
            overlap=merge.overlap,
            stuff_area=merge.stuff_area,
            threads=self._threads,
        )
        objects = zip(merged.things, found.classes.tolist(), found.scores.tolist(), strict=True)
        things = [Segment(id_, label, score) for id_, label, score in objects if id_]
        stuff = [Segment(id_, label) for id_, label in zip(merged.stuff, self._stuff, strict=True) if id_]
        return Panoptic(merged.ids, (*things, *stuff))

    def _semantic(self, outputs: Outputs, placement: Placement) -> NDArray[np.uint8]:
        """(H, W): 0 for "any thing", s for the s-th stuff class."""
        channels = 1 + len(self._stuff)
        logits: NDArray[Any] = fetch(outputs, "semantic", 4, f"(1, {channels}, h, w)")
        if logits.shape[1] != channels:
            fix = "correct $.classes of model.json: stuff are the classes with thing false"
            raise BackendError(f"output 'semantic': {logits.shape}", f"(1, {channels}, h, w)", fix)
        if channels == 1:
            return np.zeros(placement.frame, np.uint8)
        maps = visible(logits[0].astype(np.float32, copy=False), placement)
        return native.upsample_argmax(maps, placement.frame, threads=self._threads)
