"""A histogram that grows with its data: fixed memory, one pass, the same result in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

BINS = 4096
_CHUNK = 1 << 16  # elements worked on at a time: the temporaries stay in the second-level cache
_MAX_BIN = 1 << 22  # bin numbers stay exact in float32
_SMALLEST_EXPONENT = -126  # float32's smallest normal is 2**-126


@dataclass
class Histogram:
    """Counts over bins of width ``2**exponent`` aligned to zero: bin i of ``counts`` is [(first+i), (first+i+1)) * width.

    The exponent is the smallest at which the data seen so far fit into :data:`BINS` bins. Going up by one merges bins
    2j and 2j+1, which is exact as bins are aligned to zero; so the state depends on the values seen and not on their
    order or batching, and two histograms can be merged. (Values below 2**-149 widths count as zero: float32 ends there.)

    Attributes:
        counts: (BINS,) int64.
        minimum, maximum: exact extremes; +inf and -inf before the first value.
    """

    exponent: int = _SMALLEST_EXPONENT
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    minimum: float = math.inf
    maximum: float = -math.inf

    @property
    def width(self) -> float:
        """Bin width in the unit of the data."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> np.ndarray:
        """(BINS + 1,) float64 bin edges."""
        return (self.first + np.arange(BINS + 1)) * self.width

    @property
    def centers(self) -> np.ndarray:
        """(BINS,) float64 bin centres."""
        return (self.first + np.arange(BINS) + 0.5) * self.width

    def add(self, values: np.ndarray) -> None:
        """Count ``values``, any shape, float32.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if flat.size == 0:
            return
        self.fit(*extremes(flat))
        self.count(flat)

    def fit(self, low: float, high: float) -> None:
        """Widen the extremes to include ``low`` and ``high``, and the bins with them."""
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        exponent = self.exponent
        while not _fits(_bin(self.minimum, exponent), _bin(self.maximum, exponent)):
            exponent += 1
        self._regrid(exponent, _bin(self.minimum, exponent))

    def count(self, flat: np.ndarray) -> None:
        """Count values of a (n,) float32 array that lie within the extremes already fitted."""
        factor, first = np.float32(math.ldexp(1.0, -self.exponent)), np.float32(self.first)
        for start in range(0, flat.size, _CHUNK):
            scaled = flat[start : start + _CHUNK] * factor
            np.floor(scaled, out=scaled)
            scaled -= first
            self.counts += np.bincount(scaled.astype(np.intp), minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` has counted."""
        if other.minimum > other.maximum:
            return
        moved = Histogram(other.exponent, other.first, other.counts.copy(), other.minimum, other.maximum)
        self.fit(other.minimum, other.maximum)
        moved._regrid(self.exponent, self.first)
        self.counts += moved.counts

    def _regrid(self, exponent: int, first: int) -> None:
        if (exponent, first) == (self.exponent, self.first):
            return
        filled = np.flatnonzero(self.counts)
        places = ((self.first + filled) >> (exponent - self.exponent)) - first
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, places, self.counts[filled])
        self.exponent, self.first, self.counts = exponent, first, counts


def _fits(low_bin: int, high_bin: int) -> bool:
    return high_bin - low_bin < BINS and max(abs(low_bin), abs(high_bin)) <= _MAX_BIN


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def extremes(flat: np.ndarray) -> tuple[float, float]:
    """Smallest and largest of a (n,) float array.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    low, high = float(flat.min()), float(flat.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("NaN" if math.isnan(low) or math.isnan(high) else "infinite")
    return low, high
