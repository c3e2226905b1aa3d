"""The mailbox between two stages: one place, the newest item wins, and what it pushes out is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """A mailbox for one item between a producer and a consumer thread.

    With ``keep_all=False`` ``put`` never waits: an item that was not read yet is replaced and counted as dropped, so what
    the consumer reads is never older than one put. With ``keep_all=True`` ``put`` waits until the place is free instead.

    Args:
        keep_all: wait rather than replace.
        on_drop: called with every item that leaves unread, so that its buffers return to their pool.
    """

    def __init__(self, keep_all: bool = False, on_drop: Callable[[T], None] | None = None) -> None:
        self._keep_all, self._on_drop = keep_all, on_drop
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Place ``item``; False when the slot is closed (the item is handed to ``on_drop``, not counted)."""
        with self._condition:
            while self._keep_all and self._item is not None and not self._closed:
                self._condition.wait()
            if refused := self._closed:
                loser: T | None = item
            else:
                loser, self._item = self._item, item
                self.dropped += loser is not None
                self._condition.notify_all()
        if loser is not None and self._on_drop:
            self._on_drop(loser)
        return not refused

    def take(self) -> T | None:
        """Wait for the item and remove it; None once the slot is closed and empty."""
        with self._condition:
            while self._item is None and not self._closed:
                self._condition.wait()
            item, self._item = self._item, None
            self._condition.notify_all()
            return item

    def close(self, discard: bool = False) -> None:
        """No more items; one that waits is still read, unless ``discard``. Wakes both sides; may be repeated."""
        with self._condition:
            self._closed = True
            loser = self._item if discard else None
            self._item = None if discard else self._item
            self._condition.notify_all()
        if loser is not None and self._on_drop:
            self._on_drop(loser)
