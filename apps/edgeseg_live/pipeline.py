"""capture -> preprocess -> inference -> postprocess -> sinks: each its own thread, a one-place mailbox between any two.

Native code does the work of every stage without the GIL, so the stages of successive frames run at the same time; the Python
of a stage is a few dozen microseconds a frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edgeseg_live.frames import BufferPool, Frame, Job, Result
from edgeseg_live.output import SinkRunner
from edgeseg_live.render import Renderer, Stages
from edgeseg_live.sinks import Sink
from edgeseg_live.slot import Slot
from edgeseg_live.sources import SourceFactory
from edgeseg_live.stats import Meter, Series
from edgeseg_live.supervise import Supervisor, SupervisorConfig

STAGES = ("preprocess", "inference", "postprocess")
In = TypeVar("In")


class Pipeline:
    """Runs a source through a segmenter into sinks.

    Args:
        segmenter: the stages; ``infer`` is called from one thread.
        source: see ``sources.source_factory``.
        sinks: at least one; opened by ``start``, closed when the pipeline ends.
        config: of the source; ``lossless`` makes every stage wait for the next instead of dropping.
        frames: end after so many finished frames; None runs until the source ends or ``stop``.
    """

    def __init__(
        self,
        segmenter: Stages,
        source: SourceFactory,
        sinks: Sequence[Sink],
        config: SupervisorConfig | None = None,
        frames: int | None = None,
        alpha: float = 0.5,
    ) -> None:
        config = config or SupervisorConfig()
        self._segmenter, self._limit = segmenter, frames
        self._renderer = Renderer(segmenter, alpha)
        keep_all = config.lossless and not source.live
        self._captured: Slot[Frame] = Slot(keep_all)
        self._ready: Slot[Job] = Slot(keep_all, on_drop=self._recycle)
        self._inferred: Slot[Job] = Slot(keep_all, on_drop=self._recycle)
        self._supervisor = Supervisor(source, self._captured.put, config)
        self._supervisor.on_end = self._captured.close
        self._runners = [SinkRunner(sink, keep_all, self.stop) for sink in sinks]
        self._tensors, self._outputs = BufferPool(segmenter.allocate_input), BufferPool(segmenter.allocate_output)
        self._times = {name: Series() for name in STAGES}
        self._done = Meter()
        self._threads: list[threading.Thread] = []
        self.manifest = segmenter.manifest
        self.error: Exception | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the sinks and start all threads.

        Raises:
            SourceError: a sink cannot be opened; those opened before it are closed again.
        """
        self._open_sinks()
        self._warm_up()
        for runner in self._runners:
            runner.start()
        for name, inbox, work, outbox in (
            ("preprocess", self._captured, self._preprocess, self._ready),
            ("inference", self._ready, self._infer, self._inferred),
            ("postprocess", self._inferred, self._postprocess, None),
        ):
            thread = threading.Thread(target=self._stage, args=(name, inbox, work, outbox), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._supervisor.start()

    def stop(self) -> None:
        """End the capture; frames already taken are finished and the sinks are closed. Returns at once."""
        self._supervisor.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything has ended and every sink is closed; False if it has not by then.

        Raises:
            EdgesegError: the source failed for good, or a stage did.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        joins = [self._supervisor.join, *(item.join for item in self._threads), *(item.join for item in self._runners)]
        for join in joins:
            join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.alive():
            return False
        if self.error or self._supervisor.error:
            raise self.error or self._supervisor.error  # type: ignore[misc]
        return True

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads) or any(runner.alive() for runner in self._runners)

    def _open_sinks(self) -> None:
        opened: list[Sink] = []
        try:
            for runner in self._runners:
                runner.sink.open(self)
                opened.append(runner.sink)
        except BaseException:
            for sink in opened:
                sink.abort()
            raise

    def _warm_up(self) -> None:
        # The first run of most engines allocates and is many times slower; it belongs to no frame.
        tensor, buffer = self._segmenter.allocate_input(), self._outputs.get()
        tensor[...] = 0
        self._segmenter.infer(tensor, buffer)
        self._tensors.put(tensor)
        self._outputs.put(buffer)

    # --- stages ----------------------------------------------------------------------------------------------------

    def _stage(self, name: str, inbox: Slot[In], work: Callable[[In], Any], outbox: Slot[Any] | None) -> None:
        times = self._times[name]
        try:
            while (item := inbox.take()) is not None:
                before = time.monotonic_ns()
                made = work(item)
                times.add_ns(time.monotonic_ns() - before)
                if outbox is not None:
                    outbox.put(made)
                else:
                    self._emit(made)
        except Exception as error:
            self.error = self.error or error
            self.stop()
            inbox.close(discard=True)
        finally:
            if outbox is not None:
                outbox.close()
            else:
                self._close_sinks()

    def _preprocess(self, frame: Frame) -> Job:
        return Job(frame, tensor=self._segmenter.preprocess(frame.image, self._tensors.get()))

    def _infer(self, job: Job) -> Job:
        if job.tensor is not None:
            job.buffer = self._outputs.get()
            job.output = self._segmenter.infer(job.tensor, job.buffer)
            self._tensors.put(job.tensor)
            job.tensor = None
        return job

    def _postprocess(self, job: Job) -> Result:
        if job.output is None:
            raise RuntimeError("a frame reached postprocessing without an output")
        result = self._renderer(job.frame, job.output)
        self._recycle(job)
        return result

    def _recycle(self, job: Job) -> None:
        self._tensors.put(job.tensor)
        self._outputs.put(job.buffer)

    def _emit(self, result: Result) -> None:
        if self._limit is None or self._done.count < self._limit:
            self._done.tick(time.monotonic_ns())
            for runner in self._runners:
                runner.offer(result)
            if self._done.count == self._limit:
                self.stop()
        result.release()

    def _close_sinks(self) -> None:
        for runner in self._runners:
            runner.slot.close()

    # --- report ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The pipeline as it is now, JSON-ready; what ``--json``, the status line and the page show.

        ``latency_ms`` is from capture until the first sink had taken the frame; ``dropped`` counts the frames that never
        reached it.
        """
        sinks = [runner.report() for runner in self._runners]
        drops = {"preprocess": self._captured.dropped, "inference": self._ready.dropped, "postprocess": self._inferred.dropped}
        drops["sink"] = sinks[0]["dropped"]
        times = {"capture": self._supervisor.read_times, **self._times}
        return {
            "fps": round(self._done.fps, 3),
            "recent_fps": round(self._done.recent_fps(), 2),
            "latency_ms": sinks[0]["latency_ms"],
            "frames": self._done.count,
            "dropped": sum(drops.values()),
            "drops": drops,
            "source": self._supervisor.status(),
            "stages_ms": {**{name: series.summary() for name, series in times.items()}, "output": sinks[0]["write_ms"]},
            "sinks": sinks,
        }
