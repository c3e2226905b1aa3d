"""Range methods: from the histogram of an activation to the (low, high) that its 8-bit codes span.

Each takes a :class:`~calibration.histogram.Histogram` and returns two floats within the data's extremes. Adding a method
is one function and one line of ``METHODS``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from calibration.errors import CalibrationError
from calibration.histogram import Histogram

Method = Callable[[Histogram], tuple[float, float]]
_LEVELS = 256
_CANDIDATES = 64


def minmax(histogram: Histogram) -> tuple[float, float]:
    """The exact extremes."""
    return histogram.minimum, histogram.maximum


def percentile(histogram: Histogram, percent: float = 99.99) -> tuple[float, float]:
    """The range that holds ``percent`` of the values, (100 - percent) / 2 cut at either end of a two-sided tensor.

    A one-sided tensor (after ReLU) loses its share at the far end only.
    """
    cumulative = np.cumsum(histogram.counts)
    tail = (100.0 - percent) / 100.0 * cumulative[-1]
    if histogram.minimum < 0 < histogram.maximum:
        tail /= 2
    edges = histogram.edges
    low_bin = int(np.searchsorted(cumulative, tail, side="right"))
    high_bin = int(np.searchsorted(cumulative, cumulative[-1] - tail, side="left"))
    low = float(edges[low_bin]) if histogram.minimum < 0 else histogram.minimum
    high = float(edges[high_bin + 1]) if histogram.maximum > 0 else histogram.maximum
    return _within(histogram, low, high)


def entropy(histogram: Histogram) -> tuple[float, float]:
    """The clipped range whose 8-bit codes keep the distribution best: smallest KL(P || Q).

    S. Migacz, "8-bit Inference with TensorRT", GTC 2017. P is the histogram with the outliers added to its last bins,
    Q the same merged into the codes and spread again over the bins that were filled. The bin at zero is left out: after
    ReLU it holds the exact zeros, which every scale keeps.
    """
    return _best_clip(histogram, _kl_divergence)


def mse(histogram: Histogram) -> tuple[float, float]:
    """The clipped range with the smallest expected squared error of rounding and clipping together."""
    return _best_clip(histogram, _squared_error)


METHODS: dict[str, Method] = {"minmax": minmax, "percentile": percentile, "entropy": entropy, "mse": mse}
NEEDS_HISTOGRAM = frozenset(METHODS) - {"minmax"}


def resolve(method: str, percent: float = 99.99) -> Method:
    """The range method of that name.

    Raises:
        CalibrationError: unknown name, or a percentile outside (50, 100].
    """
    if method not in METHODS:
        raise CalibrationError(f"method {method!r}", f"one of {', '.join(METHODS)}", "choose one of these")
    if not 50.0 < percent <= 100.0:
        raise CalibrationError(f"percentile {percent}", "a number above 50 and at most 100", "99.99 is usual")
    return functools.partial(percentile, percent=percent) if method == "percentile" else METHODS[method]


def _within(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    return max(low, histogram.minimum), min(high, histogram.maximum)


def _best_clip(histogram: Histogram, cost: Callable[[np.ndarray, np.ndarray, float, float], float]) -> tuple[float, float]:
    """The cheapest among ranges shrunk from the full one: both ends by one factor, then each end by itself."""
    counts, centers = _filled(histogram)
    if counts.size < 2:
        return minmax(histogram)
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    factors = np.geomspace(1.0, 1.0 / 32, _CANDIDATES)
    best = min(factors, key=lambda f: cost(counts, centers, low * f, high * f))
    low, high = low * float(best), high * float(best)
    if low < 0 < high:
        side = np.geomspace(1.0, 0.25, _CANDIDATES // 4)
        low *= float(min(side, key=lambda f: cost(counts, centers, low * f, high)))
        high *= float(min(side, key=lambda f: cost(counts, centers, low, high * f)))
    return _within(histogram, low, high)


def _filled(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    filled = np.flatnonzero(histogram.counts)
    return histogram.counts[filled].astype(np.float64), histogram.centers[filled]


def _codes(centers: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float]:
    scale = (high - low) / (_LEVELS - 1)
    return np.clip(np.rint((centers - low) / scale), 0, _LEVELS - 1).astype(np.intp), scale


def _squared_error(counts: np.ndarray, centers: np.ndarray, low: float, high: float) -> float:
    codes, scale = _codes(centers, low, high)
    return float(np.dot(counts, (codes * scale + low - centers) ** 2))


def _kl_divergence(counts: np.ndarray, centers: np.ndarray, low: float, high: float) -> float:
    width = np.min(np.diff(centers)) if centers.size > 1 else 1.0
    keep = np.abs(centers) > width  # the bins on either side of zero
    counts, centers = counts[keep], centers[keep]
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return np.inf
    kept, places = counts[inside], centers[inside]
    reference = kept.copy()
    reference[0] += counts[centers < low].sum()
    reference[-1] += counts[centers > high].sum()
    codes, _ = _codes(places, low, high)
    total = np.bincount(codes, kept, minlength=_LEVELS)
    filled = np.bincount(codes, minlength=_LEVELS)
    approximate = total[codes] / filled[codes]
    p, q = reference / reference.sum(), approximate / approximate.sum()
    return float(np.dot(p, np.log(p / q)))
