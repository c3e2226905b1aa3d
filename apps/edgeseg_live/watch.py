"""Small judges of a stream: is it frozen, is it too fast, when is its next frame due."""

from __future__ import annotations

import random

import numpy as np

from edgeseg_live.frames import Image
from edgeseg_live.stats import NS_PER_S


class FreezeDetector:
    """Tells when the picture has been the same for too long. Sensor noise changes every picture of a working camera."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_ns = int(timeout_s * NS_PER_S)
        self._last: Image | None = None
        self._since_ns = 0

    def frozen(self, image: Image, now_ns: int) -> bool:
        """Take a picture; True if it and all before it in the last ``timeout_s`` are identical."""
        same = self._last is not None and self._identical(self._last, image)
        if not same:
            self._since_ns = now_ns
        self._last = image
        return same and now_ns - self._since_ns >= self._timeout_ns

    @staticmethod
    def _identical(before: Image, image: Image) -> bool:
        # A sparse look settles it for nearly every frame; only then are all pixels compared.
        if before.shape != image.shape or not np.array_equal(before[::31, ::17], image[::31, ::17]):
            return False
        return bool(np.array_equal(before, image))


class RateCap:
    """At most ``max_fps`` frames a second pass, evenly spaced; None lets all pass."""

    def __init__(self, max_fps: float | None) -> None:
        self._period_ns = int(NS_PER_S / max_fps) if max_fps else 0
        self._due_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds until the next frame may pass; 0 or less: it may pass now."""
        # Cameras are not exact: a frame that comes a little early counts as on time.
        return self._due_ns - self._period_ns // 8 - now_ns

    def passed(self, now_ns: int) -> None:
        """A frame passed."""
        self._due_ns = max(self._due_ns + self._period_ns, now_ns)


class Pacer:
    """When a recorded frame is due so that the file plays at its own speed."""

    def __init__(self) -> None:
        self._start: tuple[int, int] | None = None

    def wait_ns(self, media_ns: int, now_ns: int) -> int:
        """Nanoseconds until the frame at ``media_ns`` is due. A player that is late by over a second starts anew from here."""
        if self._start is None:
            self._start = now_ns, media_ns
        wait = self._start[0] + media_ns - self._start[1] - now_ns
        if wait < -NS_PER_S:
            self._start = now_ns, media_ns
        return wait


class Backoff:
    """Seconds to wait before trying again: 1, 2, 4 ... 30, each spread by +-25% so that many clients do not come at once."""

    def __init__(self, first_s: float = 1.0, most_s: float = 30.0, seed: int | None = None) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._random = random.Random(seed)
        self._failures = 0

    def next_s(self) -> float:
        base = min(self._first_s * 2 ** min(self._failures, 16), self._most_s)
        self._failures += 1
        return min(base * self._random.uniform(0.75, 1.25), self._most_s)

    def reset(self) -> None:
        self._failures = 0
