"""Times and rates of a running pipeline, in bounded memory."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import numpy as np

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
_KEPT = 8192
_RECENT_NS = 2 * NS_PER_S


class Series:
    """The last 8192 values in milliseconds; older ones are forgotten."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._values = np.zeros(kept, np.float64)
        self._lock = threading.Lock()
        self.count = 0

    def add_ns(self, nanoseconds: int) -> None:
        with self._lock:
            self._values[self.count % len(self._values)] = nanoseconds / NS_PER_MS
            self.count += 1

    def summary(self) -> dict[str, float]:
        """mean, p50, p95, p99 and max in ms; all 0 when nothing was measured."""
        with self._lock:
            values = self._values[: min(self.count, len(self._values))].copy()
        if not len(values):
            return dict.fromkeys(("mean", "p50", "p95", "p99", "max"), 0.0)
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        named = {"mean": values.mean(), "p50": p50, "p95": p95, "p99": p99, "max": values.max()}
        return {name: round(float(value), 3) for name, value in named.items()}


class Meter:
    """Counts events and tells their rate, over all of them and over the last two seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: collections.deque[int] = collections.deque(maxlen=512)
        self._first_ns = self._last_ns = 0
        self.count = 0

    def tick(self, now_ns: int) -> None:
        with self._lock:
            self._first_ns = self._first_ns or now_ns
            self._last_ns = now_ns
            self._recent.append(now_ns)
            self.count += 1

    @property
    def fps(self) -> float:
        """Mean rate between the first and the last event; 0 with fewer than two."""
        with self._lock:
            span = self._last_ns - self._first_ns
            return (self.count - 1) * NS_PER_S / span if span > 0 else 0.0

    def recent_fps(self) -> float:
        """Rate of the last two seconds; falls to 0 when events stop."""
        with self._lock:
            now = time.monotonic_ns()
            kept = [at for at in self._recent if now - at < _RECENT_NS]
        if len(kept) < 2:
            return 0.0
        # Time since the last event counts once it is longer than a period, so that a stall shows.
        span = max(kept[-1] - kept[0], (now - kept[0]) * (len(kept) - 1) // len(kept))
        return (len(kept) - 1) * NS_PER_S / span if span > 0 else 0.0


class Counters:
    """Named counts that several threads add to."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._counts)
