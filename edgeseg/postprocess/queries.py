"""Queries, each a class and a mask, to labels, instances or segments (MaskFormer, Mask2Former)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import BackendError
from edgeseg.manifest import Manifest
from edgeseg.native.scene import query_argmax, query_masks
from edgeseg.postprocess.detections import Outputs, fetch
from edgeseg.postprocess.placing import map_steps, visible
from edgeseg.scene import Instances, Panoptic, Placement, Segment

TOP = 100
"""Instances of a picture, as in Mask2Former's COCO models."""

Floats = NDArray[np.float32]
Decoded = NDArray[np.uint8] | Instances | Panoptic


class QueryDecoder:
    """Outputs of kind "queries" to what the manifest's task promises; no stack (Q, H, W) of scores is ever made.

    - semantic (Cheng et al., "Per-Pixel Classification is Not All You Need", NeurIPS 2021, section 3.4): each class's sum over
      queries of class probability times mask probability, at the maps' size, then bilinear upsampling and argmax;
    - instance (Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, section 4.1 and its code): the best ``TOP`` pairs
      of query and class, scored by class probability times the mean probability of the mask's pixels. Where some classes are
      things, only these are taken;
    - panoptic (the same, section 3.4): queries that are an object with more than ``merge.score`` contend for each pixel by
      score times mask probability; one that keeps less than the share ``merge.overlap`` of its mask is dropped, and segments of
      one stuff class are joined. Pixels outside of the winner's own mask are void. ``merge.stuff_area`` has no part in it.

    Args:
        manifest: of the model; ``merge.mask`` is the probability above which a pixel belongs to a mask.
        threads: rows are split over so many threads.
    """

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        self._manifest, self._threads = manifest, threads
        self._things = np.array([item.thing for item in manifest.classes])
        mask = manifest.merge.mask
        self._cut = math.log(mask / (1 - mask)) if 0 < mask < 1 else math.copysign(math.inf, mask - 0.5)
        decoders: dict[str, Callable[[Floats, Floats, Placement], Decoded]] = {
            "semantic": self._semantic,
            "instance": self._instance,
            "panoptic": self._panoptic,
        }
        if manifest.task not in decoders:
            raise BackendError(f"queries for task {manifest.task!r}", " or ".join(decoders), "correct $.task of model.json")
        self._decode = decoders[manifest.task]

    def __call__(self, outputs: Outputs, placement: Placement) -> Decoded:
        """Labels (H, W) uint8, instances or segments, by the task, at the frame's size.

        Raises:
            BackendError: an output does not fit the manifest.
        """
        count = len(self._manifest.classes)
        classes = fetch(outputs, "class_logits", 3, f"(1, Q, {count + 1})")[0]
        maps = fetch(outputs, "mask_logits", 4, f"(1, {len(classes)}, h, w)")[0]
        if classes.shape[1] != count + 1 or len(maps) != len(classes):
            what = f"outputs class_logits {classes.shape} and mask_logits {maps.shape}"
            raise BackendError(what, f"(Q, {count + 1}) and (Q, h, w)", "correct $.classes of model.json")
        return self._decode(_softmax(classes), maps.astype(np.float32, copy=False), placement)

    def _semantic(self, probabilities: Floats, maps: Floats, placement: Placement) -> NDArray[np.uint8]:
        seen = _sigmoid(visible(maps, placement))
        count = probabilities.shape[1] - 1
        if count < 2:
            return np.zeros(placement.frame, np.uint8)
        scores = probabilities[:, :-1].T @ seen.reshape(len(seen), math.prod(seen.shape[1:]))
        planes = scores.reshape(count, *seen.shape[1:])
        return native.upsample_argmax(planes, placement.frame, threads=self._threads)

    def _instance(self, probabilities: Floats, maps: Floats, placement: Placement) -> Instances:
        labels = np.flatnonzero(self._things) if self._things.any() else np.arange(len(self._things))
        scores = probabilities[:, labels].ravel()
        best = np.argsort(-scores, kind="stable")[:TOP]
        queries, place = np.unique(best // len(labels), return_inverse=True)
        steps = map_steps(maps.shape, placement)
        found = query_masks(maps[queries], placement.frame, steps, self._cut, threads=self._threads)
        scores = (scores[best] * found.confidence[place]).astype(np.float32)
        kept = np.flatnonzero(found.areas[place] > 0)
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        place = place[kept]
        return Instances(found.boxes[place], labels[best[kept] % len(labels)], scores[kept], found.masks[place])

    def _panoptic(self, probabilities: Floats, maps: Floats, placement: Placement) -> Panoptic:
        labels, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
        kept = np.flatnonzero((labels < len(self._things)) & (scores > self._manifest.merge.score))
        if not kept.size:
            return Panoptic(np.zeros(placement.frame, np.int32), ())
        steps = map_steps(maps.shape, placement)
        found = query_argmax(maps[kept], scores[kept], placement.frame, steps, self._cut, threads=self._threads)
        enough = (found.kept > 0) & (found.won >= self._manifest.merge.overlap * found.covered)
        return self._segments(found.winners, enough, labels[kept], scores[kept])

    def _segments(self, winners: NDArray[np.int32], enough: NDArray[np.bool_], labels: NDArray[Any], scores: Floats) -> Panoptic:
        """Number the queries that are ``enough``; stuff of one class shares a number, and the first one's score."""
        ids = np.zeros(1 + len(labels), np.int32)
        segments: list[Segment] = []
        stuff: dict[int, int] = {}
        for query in np.flatnonzero(enough).tolist():
            label = int(labels[query])
            if label not in stuff:
                segments.append(Segment(len(segments) + 1, label, float(scores[query])))
            ids[1 + query] = stuff.get(label, len(segments))
            if not self._things[label]:
                stuff[label] = int(ids[1 + query])
        return Panoptic(ids[winners], tuple(segments))


def _softmax(logits: NDArray[Any]) -> Floats:
    """Over the last axis, in float32."""
    powers = np.exp(logits.astype(np.float32) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)
