"""One sink in its own thread: what it took, what it missed, and what happens when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from edgeseg_live.frames import Result
from edgeseg_live.sinks import Sink, SinkClosedError
from edgeseg_live.slot import Slot
from edgeseg_live.stats import Counters, Series
from edgeseg_live.uri import redact


class SinkRunner:
    """Feeds a sink from a slot of its own, so that a slow sink holds nobody else up.

    A sink that fails is closed and left out; the pipeline and the other sinks go on.

    Args:
        keep_all: the pipeline waits for the sink instead of dropping.
        on_closed: called when the sink itself asks for the end (its window was closed).
    """

    def __init__(self, sink: Sink, keep_all: bool, on_closed: Callable[[], None]) -> None:
        self.sink, self._on_closed = sink, on_closed
        self.slot: Slot[Result] = Slot(keep_all and sink.lossless, on_drop=Result.release)
        self.latency, self.write_times = Series(), Series()
        self.counters = Counters("frames", "errors")
        self.error = ""
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.shown}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def offer(self, result: Result) -> None:
        """Hand a finished frame to the sink; the sink releases it."""
        self.slot.put(result.retain())

    def report(self) -> dict[str, Any]:
        """``frames`` taken, ``dropped`` ones, the latency from capture until the sink had taken a frame, the error if it failed."""
        report = {"uri": self.sink.shown, **self.counters.snapshot(), "dropped": self.slot.dropped, "error": self.error}
        return {**report, "latency_ms": self.latency.summary(), "write_ms": self.write_times.summary(), **self.sink.details()}

    def _run(self) -> None:
        try:
            while (result := self.slot.take()) is not None:
                try:
                    self._write(result)
                finally:
                    result.release()
        except SinkClosedError:
            self.slot.close(discard=True)
            self._on_closed()
        except Exception as error:
            self._fail(error)
        self._close()

    def _write(self, result: Result) -> None:
        before = time.monotonic_ns()
        self.sink.write(result)
        now = time.monotonic_ns()
        self.write_times.add_ns(now - before)
        self.latency.add_ns(now - result.frame.capture_ns)
        self.counters.add("frames")

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.counters.add("errors")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.error = self.error or redact(str(reason))
        # Closed: later frames pass by without waiting, and are not counted as dropped.
        self.slot.close(discard=True)
