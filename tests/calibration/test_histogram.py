"""Histograms that grow: counts are kept, any order and batching gives the same state, memory stays constant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration import CalibrationError
from calibration.histogram import BINS, Histogram
from calibration.methods import METHODS, entropy, minmax, mse, percentile, resolve

MAGNITUDES = st.floats(2.0**-40, 2.0**40, width=32)
FLOATS = st.one_of(MAGNITUDES, MAGNITUDES.map(lambda x: -x), st.just(0.0))
VALUES = arrays(np.float32, st.integers(1, 300), elements=FLOATS)


def histogram(*parts: np.ndarray) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part)
    return made


def same(one: Histogram, other: Histogram) -> bool:
    return (one.exponent, one.first, one.minimum, one.maximum) == (
        other.exponent,
        other.first,
        other.minimum,
        other.maximum,
    ) and bool((one.counts == other.counts).all())


@given(VALUES, st.integers(0, 300))
def test_batching_and_order_do_not_matter(values: np.ndarray, cut: int) -> None:
    whole = histogram(values)
    assert whole.total == values.size
    assert same(whole, histogram(values[cut:], values[:cut]))
    assert same(whole, histogram(*np.split(values[::-1], [min(cut, values.size)])))


@given(VALUES, VALUES)
def test_merge_is_the_histogram_of_both(one: np.ndarray, other: np.ndarray) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    assert same(merged, histogram(one, other))


@given(VALUES)
def test_every_value_lies_in_its_bin(values: np.ndarray) -> None:
    made = histogram(values)
    counted, _ = np.histogram(values.astype(np.float64), made.edges)
    # numpy closes the last edge on the right; ours is open, and no value lies on it.
    assert (counted == made.counts).all()
    assert (made.minimum, made.maximum) == (values.min(), values.max())


def test_growth_keeps_counts_and_memory() -> None:
    random = np.random.default_rng(0)
    made = Histogram()
    for power in range(-20, 20):
        made.add(random.standard_normal(1000) * 2.0**power)
    assert made.total == 40_000
    assert made.counts.shape == (BINS,)
    span = made.maximum - made.minimum
    assert span / made.width > BINS / 2 - 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        histogram(np.array([1.0, value, 2.0], np.float32))


@given(VALUES)
def test_methods_stay_within_the_data(values: np.ndarray) -> None:
    made = histogram(values)
    for method in METHODS.values():
        low, high = method(made)
        assert made.minimum <= low <= high <= made.maximum or (made.minimum == made.maximum == low == high)


@given(VALUES, st.floats(60.0, 100.0))
def test_percentile_keeps_its_share(values: np.ndarray, percent: float) -> None:
    low, high = percentile(histogram(values), percent)
    kept = np.count_nonzero((values >= low) & (values <= high))
    assert kept >= np.floor(values.size * percent / 100.0) - 1e-9


def test_methods_agree_with_plain_searches() -> None:
    values = np.random.default_rng(1).laplace(size=50_000).astype(np.float32)
    values[:2] = -40, 60  # outliers that stretch minmax
    made = histogram(values)
    assert minmax(made) == (values.min(), values.max())
    low, high = mse(made)

    def error(bounds: tuple[float, float]) -> float:
        scale = (bounds[1] - bounds[0]) / 255
        codes = np.clip(np.rint((values - bounds[0]) / scale), 0, 255)
        return float(((codes * scale + bounds[0] - values) ** 2).mean())

    plain = min(error((a, b)) for a in np.linspace(-40, -2, 24) for b in np.linspace(2, 60, 24))
    assert error((low, high)) < min(1.02 * plain, error(minmax(made)))
    low, high = entropy(made)
    assert made.minimum < low < -2
    assert 2 < high < 30
    low, high = percentile(made, 99.0)
    assert np.quantile(values, 0.005) == pytest.approx(low, abs=2 * made.width)
    assert np.quantile(values, 0.995) == pytest.approx(high, abs=2 * made.width)


def test_unknown_method_and_percentile_are_refused() -> None:
    with pytest.raises(CalibrationError, match="minmax, percentile, entropy, mse"):
        resolve("median")
    with pytest.raises(CalibrationError, match="percentile 101"):
        resolve("percentile", 101)
