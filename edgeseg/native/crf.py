"""Inference in a fully connected CRF, all classes at once (C++)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.native import _kernels

LEAST_PROBABILITY = 1e-5
"""Unary potentials are -log p of a probability of at least this: without a floor no message could move a sure pixel."""


@dataclass(frozen=True)
class Kernels:
    """The two kernels of the pairwise potential (Kraehenbuehl and Koltun, NIPS 2011, equation 3); a weight of 0 leaves one out.

    Attributes:
        w1, sigma_alpha, sigma_beta: appearance: weight, deviation of position (px) and of each colour (0..255).
        w2, sigma_gamma: smoothness: weight and deviation of position (px).
    """

    w1: float
    sigma_alpha: float
    sigma_beta: float
    w2: float
    sigma_gamma: float


def memory() -> Any:
    """What one call of ``dense_crf`` may leave for the next; one call at a time uses it, others wait."""
    return _kernels.CrfMemory()


def dense_crf(
    frame: NDArray[np.uint8],
    scores: NDArray[np.float32],
    kernels: Kernels,
    iterations: int,
    *,
    probabilities: bool = False,
    marginals: NDArray[np.float32] | None = None,
    least: float = LEAST_PROBABILITY,
    threads: int = 1,
    memory: Any = None,
) -> NDArray[np.uint8]:
    """Labels (H, W) uint8 after ``iterations`` mean-field steps; the same bits for any number of threads.

    Args:
        frame: (H, W, 3) uint8.
        scores: (C, h, w) float32, logits or probabilities of C in 2..256 classes, upsampled bilinearly to the frame.
        marginals: (C, H, W) float32, filled if given.
        least: see ``LEAST_PROBABILITY``.
        memory: see ``memory``.

    A step is q_i(l) ~ exp(log p_i(l) + sum over both kernels of w sum_j k(i, j) q_j(l)), the update of section 3 with Potts
    compatibility. As in the authors' code k is normalised symmetrically, k(i, j) / sqrt(k(i) k(j)) with k(i) = sum_j k(i, j), and
    j = i takes part. The appearance kernel is summed on a permutohedral lattice, which is built once; the smoothness kernel
    exactly in two passes, cut at three deviations.

    Raises:
        ValueError: an array or a number is not of this kind.
    """
    labels = np.empty(frame.shape[:2], np.uint8)
    _kernels.dense_crf(
        _kernels.CrfMemory() if memory is None else memory,
        np.ascontiguousarray(frame),
        np.ascontiguousarray(scores),
        probabilities,
        float(least),
        float(kernels.w1),
        float(kernels.sigma_alpha),
        float(kernels.sigma_beta),
        float(kernels.w2),
        float(kernels.sigma_gamma),
        iterations,
        labels,
        marginals,
        threads,
    )
    return labels
