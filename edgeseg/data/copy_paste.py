"""Copy-paste augmentation: objects of one picture pasted into another (Ghiasi et al., CVPR 2021, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Sample
from edgeseg.scene import Instances, mask_boxes

_LEAST_PIXELS = 10


def copy_paste(target: Sample, source: Sample, rng: np.random.Generator) -> Sample:
    """``target`` with a random half, at least one, of the objects of ``source`` over it.

    What they hide is cut from the masks below; objects with fewer than 10 pixels left are dropped, and so are the boxes and
    keypoints of what is hidden. Crowd regions are not pasted. The labels take the pasted objects' classes.

    Args:
        target, source: samples of one size with masks; without any the target comes back as it is.
    """
    below, above = target.instances, source.instances
    if below is None or above is None or below.masks is None or above.masks is None:
        return target
    free = np.flatnonzero(~above.crowd) if above.crowd is not None else np.arange(len(above))
    chosen = free[rng.random(len(free)) < 0.5]
    if not chosen.size:
        if not free.size:
            return target
        chosen = rng.choice(free, 1)
    pasted = above.masks[chosen]
    cover = np.asarray(pasted.any(axis=0), bool)
    image = np.where(cover[..., None], source.image, target.image)
    labels = np.where(cover, source.labels, target.labels)
    spaces = tuple(np.where(cover, s, t) for s, t in zip(source.spaces, target.spaces, strict=True))
    cut = below.masks * ~cover
    kept = cut.sum(axis=(1, 2)) >= _LEAST_PIXELS
    masks = np.concatenate([cut[kept], pasted]).astype(np.uint8)
    instances = Instances(
        mask_boxes(masks),
        np.concatenate([below.classes[kept], above.classes[chosen]]),
        masks=masks,
        keypoints=_join(_hide(below.keypoints, cover), above.keypoints, kept, chosen),
        crowd=_join(_crowd(below), _crowd(above), kept, chosen),
    )
    return Sample(image, labels, target.id, instances, None, spaces)


def _crowd(instances: Instances) -> NDArray[np.bool_]:
    return np.zeros(len(instances), bool) if instances.crowd is None else instances.crowd


def _hide(keypoints: NDArray[np.float32] | None, cover: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Points under what was pasted are no longer visible."""
    if keypoints is None or not keypoints.size:
        return keypoints
    column = np.clip(keypoints[..., 0], 0, cover.shape[1] - 1).astype(int)
    row = np.clip(keypoints[..., 1], 0, cover.shape[0] - 1).astype(int)
    hidden = cover[row, column] & (keypoints[..., 2] > 1)
    return np.concatenate([keypoints[..., :2], np.where(hidden, 1, keypoints[..., 2])[..., None]], -1).astype(np.float32)


def _join(first: NDArray | None, second: NDArray | None, kept: NDArray, chosen: NDArray) -> NDArray | None:
    if first is None or second is None:
        return None
    return np.concatenate([first[kept], second[chosen]])
