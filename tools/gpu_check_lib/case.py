"""What a case is, and how a result is judged: one table of tolerances for every operator."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

TOLERANCES = {"float32": 1e-5, "float16": 1e-3}
"""dtype of a result -> largest |got - expected| / max(1, |expected|). Everything else is exact."""

INT8_TIE = 1e-3
"""Where the exact value lies this close to the middle between two int8 codes, float32 arithmetic may give either."""


@dataclass(frozen=True)
class Case:
    """One launch with one set of inputs.

    Attributes:
        operator: name of the launcher without prefix and suffix.
        title: what is special about it.
        dtype: of the values; ``format`` their memory format.
        options: what the operator's module needs to make inputs and arguments.
        quick: part of the short list. sanitize: part of the list under compute-sanitizer.
        refused: the launcher must refuse these arguments ("cpu": only the twin must).
        tolerance: added to the table's, where float32 coordinates on large planes cost more.
    """

    operator: str
    title: str
    dtype: str = "float32"
    format: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    sanitize: bool = False
    refused: bool | str = False
    tolerance: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.operator}: {self.title}, {self.dtype} {self.format}"

    def random(self) -> np.random.Generator:
        """The same numbers on every machine and in every run."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def must_refuse(self, kind: str) -> bool:
        return self.refused is True or self.refused == kind


def values(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Normal floats, or int8 codes over the whole range."""
    if dtype == "int8":
        return random.integers(-128, 128, shape).astype(np.int8)
    return random.standard_normal(shape).astype(dtype)


@dataclass(frozen=True)
class Verdict:
    """How far a result lies from what was expected; ``problem`` is empty where it is good."""

    error: float
    problem: str = ""


def judge(got: NDArray[Any], expected: NDArray[Any], extra: float = 0.0) -> Verdict:
    """Compare a result with float64 (or exact integer) expectations of the same shape.

    int8 results are compared with the expectation before rounding, if that is float64.
    """
    if got.shape != expected.shape:
        return Verdict(np.inf, f"shape {got.shape}, expected {expected.shape}")
    if got.size == 0:
        return Verdict(0.0)
    if got.dtype == np.int8 and expected.dtype.kind == "f":
        wrong, error = _codes(got, expected)
    elif got.dtype.name in TOLERANCES:
        error = _relative(got, expected)
        wrong = error > TOLERANCES[got.dtype.name] + extra
    else:
        error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        wrong = got != expected
    largest = float(error.max())
    return Verdict(largest, _describe(got, expected, wrong) if wrong.any() else "")


def _relative(got: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    exact = expected.astype(np.float64)
    if got.dtype == np.float16:  # what lies beyond half's largest number is infinity
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float16).astype(np.float64)
        exact = np.where(np.isinf(rounded), rounded, exact)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - exact) / np.maximum(1, np.abs(exact))
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))


def _codes(got: NDArray[Any], expected: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    exact = np.nan_to_num(np.clip(expected, -128, 127), nan=0.0)
    distance = np.abs(got.astype(np.float64) - np.rint(exact))
    tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < INT8_TIE
    return (distance > np.where(tie, 1, 0)), distance


def _describe(got: NDArray[Any], expected: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {wrong.size} elements, first at {place}: {got[place]}, expected {expected[place]}"
