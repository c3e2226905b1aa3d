"""Time contestants against each other: interleaved, warm, over buffers that together exceed the L2 cache.

On CUDA each contestant's calls over all its buffers are captured into one graph, so that neither side pays for Python or for
launches; one that cannot be captured is timed as it is and marked so. On the host the same code runs with perf_counter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import torch

from gpu_check_lib.device import Device

Turn = Callable[[int], Any]
"""One call on buffer set ``i``; what it returns is kept alive, so that results do not share memory."""

MOST_SETS = 48


@dataclass
class Contest:
    """What takes part in one workload.

    Attributes:
        contestants: name -> a call on buffer set i.
        minimum_bytes: what any implementation has to move: every input read once, every result written once.
        check: run once before timing; what is wrong with our results, or nothing.
        goals: (name, our contestant, rival or "" for the share of copy bandwidth, wanted ratio).
        absent: contestants that are not installed, and why.
        eager: contestants that wait for the GPU on their way and cannot be captured into a graph.
    """

    contestants: dict[str, Turn]
    minimum_bytes: int
    check: Callable[[], list[str]]
    goals: list[tuple[str, str, str, float]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    eager: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Workload:
    """Attributes: ``set_bytes`` of one buffer set, from which follows how many there are; ``make(device, sets)``."""

    name: str
    operators: tuple[str, ...]
    set_bytes: int
    make: Callable[[Device, int], Contest]
    quick: bool = False


class Bench:
    """Times workloads on one device.

    Args:
        quick: fewer rounds.
    """

    def __init__(self, device: Device, quick: bool) -> None:
        self.device, self.host = device, device.kind != "cuda"
        self.rounds, self.seconds = (5, 0.5) if quick else (60, 4.0)
        if self.host:
            self.rounds = 3
        self.l2_bytes, self.memory_bytes = _sizes(self.host)
        self.copy_gb_s = self._copy_bandwidth()

    def run(self, workload: Workload) -> dict[str, Any]:
        """The record of one workload: every contestant's times, the limit, the goals."""
        contest = workload.make(self.device, self.sets(workload.set_bytes))
        problems = contest.check()
        times = self._interleaved(contest, self.sets(workload.set_bytes))
        limit_ms = contest.minimum_bytes / (self.copy_gb_s * 1e6)
        for row in times.values():
            row["share_of_copy"] = limit_ms / row["ms"]
        return {
            "operators": workload.operators,
            "problems": problems,
            "contestants": times,
            "absent": contest.absent,
            "minimum_bytes": contest.minimum_bytes,
            "copy_gb_s": self.copy_gb_s,
            "limit_ms": limit_ms,
            "buffer_sets": self.sets(workload.set_bytes),
            "clock": "host, not a GPU figure" if self.host else "CUDA events",
            "goals": [_judge(goal, times) for goal in contest.goals],
        }

    def sets(self, set_bytes: int) -> int:
        """Buffer sets that together hold twice the L2 cache, in a quarter of the memory."""
        if self.host:
            return 2
        wanted = -(-2 * self.l2_bytes // max(set_bytes, 1)) + 1
        return int(max(2, min(wanted, MOST_SETS, self.memory_bytes // 4 // max(set_bytes, 1))))

    def _interleaved(self, contest: Contest, sets: int) -> dict[str, dict[str, Any]]:
        contestants = contest.contestants
        runners = {name: self._runner(turn, sets, name in contest.eager) for name, turn in contestants.items()}
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        self._warm_up([runner for runner, _ in runners.values()])
        started = time.monotonic()
        for count in range(self.rounds):
            if count >= 3 and time.monotonic() - started > self.seconds:
                break
            for name, (runner, _mode) in runners.items():
                samples[name].append(self._clocked(runner) / sets)
        return {name: {**_summary(samples[name]), "mode": runners[name][1]} for name in contestants}

    def _warm_up(self, runners: list[Callable[[], Any]]) -> None:
        """Until the clocks are up."""
        started = time.monotonic()
        for _ in range(2 if self.host else 1000):
            for runner in runners:
                self._clocked(runner)
            if not self.host and time.monotonic() - started > 0.3:
                return

    def _runner(self, turn: Turn, sets: int, eager: bool) -> tuple[Callable[[], Any], str]:
        """Something that makes one call on each buffer set, and how."""

        def every() -> list[Any]:
            return [turn(i) for i in range(sets)]

        if self.host:
            return every, "host"
        every()
        self.device.synchronize()
        if eager:
            return every, "eager"
        kept: list[Any] = []
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept.append(every())
        except RuntimeError:
            torch.cuda.synchronize()
            return every, "eager"

        # The graph's results stay alive with the closure: rivals get memory of their own for each set, as we do.
        def replay() -> list[Any]:
            graph.replay()
            return kept

        return replay, "graph"

    def _clocked(self, work: Callable[[], Any]) -> float:
        """Milliseconds of one run."""
        if self.host:
            begun = time.perf_counter()
            work()
            return (time.perf_counter() - begun) * 1e3
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        kept = work()
        after.record()
        after.synchronize()
        del kept
        return before.elapsed_time(after)

    def _copy_bandwidth(self) -> float:
        """GB/s read plus written by torch's copy of arrays far larger than the L2 cache."""
        size = 16 << 20 if self.host else min(1 << 30, self.memory_bytes // 16)
        source, target = (torch.zeros(size, dtype=torch.uint8, device=self.device.torch_device) for _ in range(2))
        samples = [self._clocked(lambda: target.copy_(source)) for _ in range(12)][2:]
        return 2 * size / median(samples) / 1e6


def _sizes(host: bool) -> tuple[int, int]:
    """Bytes of L2 cache and of free memory."""
    if host:
        return 4 << 20, 1 << 30
    properties = torch.cuda.get_device_properties(0)
    return int(getattr(properties, "L2_cache_size", 0)) or 128 << 20, int(torch.cuda.mem_get_info()[0])


def _summary(samples: list[float]) -> dict[str, Any]:
    tenths = quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else [samples[0]] * 9
    return {"ms": median(samples), "p10_ms": tenths[0], "p90_ms": tenths[-1], "runs": len(samples)}


def _judge(goal: tuple[str, str, str, float], times: dict[str, dict[str, Any]]) -> dict[str, Any]:
    name, ours, rival, wanted = goal
    if ours not in times or (rival and rival not in times):
        return {"goal": name, "wanted": wanted, "got": None, "reached": None}
    got = times[rival]["ms"] / times[ours]["ms"] if rival else times[ours]["share_of_copy"]
    return {"goal": name, "wanted": wanted, "got": got, "reached": got >= wanted}
