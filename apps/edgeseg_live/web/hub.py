"""Who watches, and what each of them gets next: always the newest frame, and none before the last one was acknowledged."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from edgeseg_live.stats import Series


@dataclass(frozen=True)
class Packet:
    """One frame for all viewers. ``message`` is a big-endian uint32 length, that much JSON, then the JPEG."""

    number: int
    capture_ns: int
    jpeg: bytes
    message: bytes


def make_packet(number: int, capture_ns: int, jpeg: bytes, meta: dict[str, Any]) -> Packet:
    text = json.dumps({"seq": number, **meta}, separators=(",", ":")).encode()
    return Packet(number, capture_ns, jpeg, struct.pack(">I", len(text)) + text + jpeg)


@dataclass(eq=False)
class Viewer:
    """One WebSocket or MJPEG connection. ``ready``: it has acknowledged what it was sent."""

    kind: str
    ready: bool = True
    sent: int = -1
    capture_ns: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, number: int) -> bool:
        """True if ``number`` is the frame that was sent last and not acknowledged yet."""
        if self.ready or number != self.sent:
            return False
        self.ready = True
        self.changed.set()
        return True


class Hub:
    """The newest packet and the viewers. All but ``publish`` and ``watched`` runs in the server's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_viewers: int) -> None:
        self._loop, self._max = loop, max_viewers
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._latest: Packet | None = None
        self.closed = False
        self.sent = 0
        self.display = Series()

    @property
    def watched(self) -> bool:
        """Somebody is there to see a frame. Any thread."""
        with self._lock:
            return bool(self._viewers)

    def counts(self) -> dict[str, int]:
        """Viewers by kind. Any thread."""
        with self._lock:
            kinds = [viewer.kind for viewer in self._viewers]
        return {"websocket": kinds.count("websocket"), "mjpeg": kinds.count("mjpeg")}

    def publish(self, packet: Packet) -> None:
        """Offer a frame to all viewers. Any thread; does not wait."""
        if not self.closed:
            self._loop.call_soon_threadsafe(self._set_latest, packet)

    def _set_latest(self, packet: Packet) -> None:
        self._latest = packet
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.changed.set()

    def join(self, kind: str) -> Viewer | None:
        """A new viewer, or None when there are too many already."""
        viewer = Viewer(kind)
        with self._lock:
            if len(self._viewers) >= self._max:
                return None
            self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        with self._lock:
            self._viewers.discard(viewer)

    async def next_packet(self, viewer: Viewer) -> Packet | None:
        """Wait until ``viewer`` is ready and there is a newer frame than its last; None once the hub is closed."""
        while not self.closed:
            packet = self._latest
            if packet is not None and viewer.ready and packet.number > viewer.sent:
                viewer.ready, viewer.sent, viewer.capture_ns = False, packet.number, packet.capture_ns
                self.sent += 1
                return packet
            viewer.changed.clear()
            await viewer.changed.wait()
        return None

    def seen(self, viewer: Viewer, number: int) -> None:
        """``viewer`` says that it shows frame ``number``; an answer that does not fit what it was sent is ignored."""
        if viewer.acknowledge(number):
            self.display.add_ns(time.monotonic_ns() - viewer.capture_ns)

    def close(self) -> None:
        """Send nothing more and let all waiting viewers go."""
        self.closed = True
        self._wake()
