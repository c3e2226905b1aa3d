"""What travels through the pipeline, and the pools its buffers come from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Frame:
    """A captured frame.

    Attributes:
        index: number of the frame as captured, from 0; dropped frames leave gaps.
        image: (H, W, 3) uint8 BGR, rows may be strided; never written to.
        capture_ns: ``time.monotonic_ns()`` when the source handed it over. Wall clock is not used anywhere.
        media_ns: its place in the recording made of it; grows strictly.
    """

    index: int
    image: Image
    capture_ns: int
    media_ns: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]


class ArrayPool:
    """Arrays of one shape, lent and given back; another shape (the source changed size) empties the pool.

    ``limit`` bounds what is kept, not what is lent.
    """

    def __init__(self, dtype: Any, limit: int = 8) -> None:
        self._dtype, self._limit = np.dtype(dtype), limit
        self._lock = threading.Lock()
        self._shape: tuple[int, ...] = ()
        self._free: list[npt.NDArray[Any]] = []

    def get(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """An array of ``shape`` with undefined contents."""
        with self._lock:
            if shape != self._shape:
                self._shape, self._free = shape, []
            if self._free:
                return self._free.pop()
        return np.empty(shape, self._dtype)

    def put(self, array: npt.NDArray[Any]) -> None:
        """Give ``array`` back; the giver must not touch it again."""
        with self._lock:
            if array.shape == self._shape and len(self._free) < self._limit:
                self._free.append(array)

    def __len__(self) -> int:
        return len(self._free)


class BufferPool:
    """Equal arrays made by ``make``, lent and given back. A ``make`` that gives None (shape unknown) makes it a no-op."""

    def __init__(self, make: Callable[[], npt.NDArray[Any] | None]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._free: list[npt.NDArray[Any]] = []

    def get(self) -> npt.NDArray[Any] | None:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make()

    def put(self, array: npt.NDArray[Any] | None) -> None:
        """Give back what ``get`` gave; None is ignored."""
        if array is not None:
            with self._lock:
                self._free.append(array)


@dataclass(slots=True)
class Job:
    """A frame on its way: ``tensor`` after preprocessing, ``output`` (which may be a part of ``buffer``) after inference."""

    frame: Frame
    tensor: npt.NDArray[np.float32] | None = None
    output: npt.NDArray[Any] | None = None
    buffer: npt.NDArray[Any] | None = None


@dataclass(slots=True)
class Result:
    """A finished frame, shared by all sinks.

    Attributes:
        labels: (H, W) uint8, the frame's size.
        overlay: (H, W, 3) uint8 BGR.

    A holder calls ``release`` once; after the last one the buffers go back to their pools, so a sink that wants to keep
    pixels calls ``retain`` or copies.
    """

    frame: Frame
    labels: Image
    overlay: Image
    pools: tuple[ArrayPool, ArrayPool]
    _holders: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def retain(self) -> Result:
        """One more holder."""
        with self._lock:
            self._holders += 1
        return self

    def release(self) -> None:
        """One holder less."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self.pools[0].put(self.labels)
            self.pools[1].put(self.overlay)
