"""Keeps a source running: opens it in a thread of its own, watches it, and connects again for ever.

A driver or network library that hangs cannot be interrupted from Python, so every connection lives in its own thread and is
left behind when it takes too long; its late frames are refused. At most four threads may be left behind at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import SourceError
from edgeseg_live.frames import Frame
from edgeseg_live.sources import CorruptFrameError, Picture, Source, SourceFactory
from edgeseg_live.stats import NS_PER_S, Counters, Meter, Series
from edgeseg_live.uri import redact
from edgeseg_live.watch import Backoff, FreezeDetector, Pacer, RateCap

_LEFT_BEHIND = 4
# No camera is meant to be this fast; a driver that fails may be.
_FLOOD_FPS = 240.0


@dataclass(frozen=True)
class SupervisorConfig:
    """Limits of a source, in seconds.

    Attributes:
        lossless: wait for the pipeline instead of dropping; only recorded sources.
        realtime: a recorded source plays at its own speed.
        max_fps: faster frames are dropped (counted as ``capped``), or waited for when lossless; 240 for live sources if None.
        freeze_s: identical pictures for this long mean a frozen camera; 0 switches the check off.
    """

    lossless: bool = False
    realtime: bool = True
    max_fps: float | None = None
    open_s: float = 5.0
    stall_s: float = 5.0
    freeze_s: float = 10.0
    stable_s: float = 5.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    poll_s: float = 0.05


class _Connection(threading.Thread):
    """One connection: open, read until it ends, close. ``busy_since_ns`` tells the watchdog for how long it has hung."""

    def __init__(
        self, factory: SourceFactory, accept: Callable[[_Connection, Picture], None], corrupt: Callable[[str], None]
    ) -> None:
        super().__init__(name="capture", daemon=True)
        self._factory, self._accept, self._corrupt = factory, accept, corrupt
        self.opened = self.abandoned = False
        self.error: Exception | None = None
        self.frames = 0
        self.read_ns = 0
        self.started_ns = time.monotonic_ns()
        self.busy_since_ns: int | None = self.started_ns

    def run(self) -> None:
        source: Source | None = None
        try:
            source = self._factory()
            source.open()
            self.opened = True
            self._read_all(source)
        except Exception as error:
            self.error = error
        finally:
            self.busy_since_ns = None
            if source is not None:
                _close_quietly(source)

    def _read_all(self, source: Source) -> None:
        self.busy_since_ns = time.monotonic_ns()
        while not self.abandoned:
            before = time.monotonic_ns()
            try:
                picture = source.read()
            except CorruptFrameError as error:
                self._corrupt(str(error))
                continue
            if picture is None:
                return
            self.read_ns = time.monotonic_ns() - before
            self.busy_since_ns = None
            if not self.abandoned:
                self.frames += 1
                self._accept(self, picture)
            self.busy_since_ns = time.monotonic_ns()


def _close_quietly(source: Source) -> None:
    try:
        source.close()
    except Exception:
        return  # a connection that failed often fails to close too; its error is already known


class Supervisor:
    """Runs a source and delivers its frames.

    Args:
        factory: makes a fresh connection; see ``sources.source_factory``.
        deliver: takes each frame, in the connection's thread; False ends the capture.
    """

    def __init__(self, factory: SourceFactory, deliver: Callable[[Frame], bool], config: SupervisorConfig | None = None) -> None:
        self._factory, self._deliver, self._config = factory, deliver, config or SupervisorConfig()
        self._shown, self._live = factory.shown, factory.live
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._lock = threading.Lock()
        self._left_behind: list[_Connection] = []
        self._cap, self._pacer = RateCap(self._config.max_fps or (_FLOOD_FPS if factory.live else None)), Pacer()
        self._freeze: FreezeDetector | None = None
        self._size: tuple[int, int] | None = None
        self._index = 0
        self._media_ns = -1
        self._frozen = False
        self._state, self._note = "starting", ""
        self.counters = Counters("connections", "reconnects", "corrupt", "capped", "frozen", "stalled", "size_changes")
        self.read_times, self.arrivals = Series(), Meter()
        self.error: Exception | None = None
        self.on_end: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    def status(self) -> dict[str, Any]:
        """State (starting, opening, playing, waiting, ended, failed, stopped), its reason, size and counts."""
        height, width = self._size or (0, 0)
        report = {"uri": self._shown, "state": self._state, "note": self._note, "width": width, "height": height}
        return {**report, "fps": round(self.arrivals.recent_fps(), 2), **self.counters.snapshot()}

    # --- the supervising thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(self._config.backoff_first_s, self._config.backoff_most_s)
        try:
            while not self._stop.is_set():
                connection = self._connect()
                if connection is None:
                    continue
                reason = self._watch(connection)
                if self._finished(connection, reason):
                    break
                if time.monotonic_ns() - connection.started_ns > self._config.stable_s * NS_PER_S and connection.frames:
                    backoff.reset()
                self._wait(backoff.next_s(), reason)
        finally:
            if self._stop.is_set():
                self._tell("stopped")
            self.on_end()

    def _connect(self) -> _Connection | None:
        self._left_behind = [item for item in self._left_behind if item.is_alive()]
        if len(self._left_behind) >= _LEFT_BEHIND:
            self._wait(self._config.backoff_most_s, "earlier connections still hang")
            return None
        self._tell("opening", self._note)
        self.counters.add("connections")
        if self.counters["connections"] > 1:
            self.counters.add("reconnects")
        self._freeze = FreezeDetector(self._config.freeze_s) if self._config.freeze_s > 0 else None
        self._frozen = False
        connection = _Connection(self._factory, self._accept, self._count_corrupt)
        connection.start()
        return connection

    def _watch(self, connection: _Connection) -> str:
        """Until the connection ends or is given up: why it did."""
        while connection.is_alive():
            connection.join(self._config.poll_s)
            since_ns = connection.busy_since_ns
            busy_s = (time.monotonic_ns() - since_ns) / NS_PER_S if since_ns else 0.0
            if self._stop.is_set():
                return self._leave(connection, "stopped")
            if not connection.opened and busy_s > self._config.open_s:
                return self._leave(connection, f"not open after {self._config.open_s:g} s")
            if connection.opened and busy_s > self._config.stall_s:
                self.counters.add("stalled")
                return self._leave(connection, f"no frame for {self._config.stall_s:g} s")
            if self._frozen:
                self.counters.add("frozen")
                return self._leave(connection, f"the same picture for {self._config.freeze_s:g} s")
        return redact(str(connection.error)) if connection.error else "the stream ended"

    def _leave(self, connection: _Connection, reason: str) -> str:
        with self._lock:  # once this is set, no frame of it is delivered any more
            connection.abandoned = True
        connection.join(0.2)
        if connection.is_alive():
            self._left_behind.append(connection)
        return reason

    def _finished(self, connection: _Connection, reason: str) -> bool:
        if self._stop.is_set():
            return True
        if self._live:
            return False
        hung = connection.abandoned
        if connection.error is not None or hung:
            self.error = connection.error or SourceError(f"{self._shown}: {reason}", "a source that delivers")
        elif not self._index and not self.counters["capped"]:
            self.error = SourceError(
                f"{self._shown}: no frame could be decoded", "a video or pictures that are whole", "check the file"
            )
        self._tell("failed" if self.error else "ended", reason)
        return True

    def _wait(self, seconds: float, reason: str) -> None:
        self._tell("waiting", f"{reason}; next try in {seconds:.0f} s")
        self._stop.wait(seconds)
        self._note = reason

    def _tell(self, state: str, note: str = "") -> None:
        self._state, self._note = state, note

    # --- the connection's thread -----------------------------------------------------------------------------------

    def _accept(self, connection: _Connection, picture: Picture) -> None:
        if not self._in_time(connection, picture):
            return
        now = time.monotonic_ns()
        if self._live and self._freeze and self._freeze.frozen(picture.image, now):
            self._frozen = True
            return
        with self._lock:
            if connection.abandoned or self._stop.is_set():
                return
            self._tell("playing")
            frame = self._frame(picture, now)
            self.read_times.add_ns(connection.read_ns)
            self.arrivals.tick(now)
        # Outside the lock: a lossless slot may wait here for the pipeline, and the watchdog must not wait with it.
        if not self._deliver(frame):
            self._stop.set()

    def _in_time(self, connection: _Connection, picture: Picture) -> bool:
        """Wait until the picture is due, or say that it comes too early to be taken."""
        if self._config.realtime and not self._live and picture.media_ns is not None:
            self._pause(self._pacer.wait_ns(picture.media_ns, time.monotonic_ns()))
        early_ns = self._cap.wait_ns(time.monotonic_ns())
        if early_ns > 0 and not self._config.lossless:
            self.counters.add("capped")
            return False
        self._pause(early_ns)
        self._cap.passed(time.monotonic_ns())
        return not self._stop.is_set()

    def _pause(self, nanoseconds: int) -> None:
        if nanoseconds > 0:
            self._stop.wait(nanoseconds / NS_PER_S)

    def _frame(self, picture: Picture, now: int) -> Frame:
        image = picture.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise SourceError(f"{self._shown}: pictures are {image.dtype} {image.shape}", "(H, W, 3) uint8")
        size = image.shape[0], image.shape[1]
        if self._size not in (None, size):
            self.counters.add("size_changes")
        self._size = size
        # A camera's clock is when its frames arrive, gaps and all; a recording has its own.
        self._media_ns = max(self._media_ns + 1, now if picture.media_ns is None else picture.media_ns)
        frame = Frame(self._index, image, now, self._media_ns)
        self._index += 1
        return frame

    def _count_corrupt(self, reason: str) -> None:
        self.counters.add("corrupt")
        self._note = f"damaged: {reason}"
