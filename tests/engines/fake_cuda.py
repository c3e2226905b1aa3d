"""``edgeseg.engines.nvidia.cuda.Cuda`` on host memory: it counts what is allocated, and keeps captured work as a list."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeseg.engines.nvidia.cuda import cuda_error
from tests.engines import fake_tensorrt


class FakeCuda:
    """Set ``fails_with`` to a CUDA error code to let the next synchronisation fail with it."""

    def __init__(self, index: int = 0) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.pinned_arrays: dict[int, np.ndarray] = {}
        self.streams: set[int] = set()
        self.graphs: set[int] = set()
        self.captures, self.launches, self.copies = 0, 0, 0
        self.waits: list[tuple[int, int]] = []
        self.fails_with = 0
        self._kept: dict[int, list[Callable[[], None]]] = {}
        self._count = 0

    def _next(self) -> int:
        self._count += 1
        return self._count

    def malloc(self, size: int) -> int:
        block = np.zeros(max(size, 1) + 256, np.uint8)
        address = -(-block.ctypes.data // 256) * 256
        self.memory[address] = block
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        array = np.zeros(shape, dtype)
        self.pinned_arrays[array.ctypes.data] = array
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        del self.pinned_arrays[array.ctypes.data]

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        assert stream in self.streams

        def move() -> None:
            self.copies += 1
            ctypes.memmove(target, source, size)

        self.do(move)

    def do(self, work: Callable[[], None]) -> None:
        """Now, or into the capture."""
        if fake_tensorrt.CAPTURED:
            fake_tensorrt.CAPTURED[-1].append(work)
        else:
            work()

    def stream(self) -> int:
        self.streams.add(number := self._next())
        return number

    def free_stream(self, stream: int) -> None:
        self.streams.remove(stream)

    def synchronize(self, stream: int) -> None:
        assert not fake_tensorrt.CAPTURED, "a capture must not wait"
        if self.fails_with:
            raise cuda_error(self.fails_with, "cudaErrorFake", "running the engine")

    def wait_for(self, stream: int, other: int) -> None:
        self.waits.append((stream, other))

    def capture(self, stream: int, enqueue: Callable[[], None]) -> Any:
        self.captures += 1
        fake_tensorrt.CAPTURED.append([])
        try:
            enqueue()
        finally:
            work = fake_tensorrt.CAPTURED.pop()
        self.graphs.add(number := self._next())
        self._kept[number] = work
        return number

    def launch(self, graph: int, stream: int) -> None:
        self.launches += 1
        for work in self._kept[graph]:
            work()

    def free_graph(self, graph: int) -> None:
        self.graphs.remove(graph)
        del self._kept[graph]

    @property
    def live(self) -> int:
        """What is not freed."""
        return len(self.memory) + len(self.pinned_arrays) + len(self.streams) + len(self.graphs)
