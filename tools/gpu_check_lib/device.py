"""Where a launcher runs: its library, its memory between guards, its stream. One code path for CUDA and for the CPU twins."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseg.ops import launch

GUARD = 256  # bytes; a multiple of it keeps the alignment of the allocator
GUARD_BYTE = 0x6B


class Memory:
    """Bytes on a device, ``size`` of them, between two guards that nobody may write to."""

    def __init__(self, device: torch.device, size: int, guard: int) -> None:
        self.size, self.guard = size, guard
        self.storage = torch.empty(size + 2 * guard, dtype=torch.uint8, device=device)
        self._put(0, np.full(guard, GUARD_BYTE, np.uint8))
        self._put(guard + size, np.full(guard, GUARD_BYTE, np.uint8))

    @property
    def pointer(self) -> int:
        return self.storage.data_ptr() + self.guard

    def write(self, data: NDArray[Any]) -> None:
        """Copy ``size`` bytes in."""
        self._put(self.guard, np.ascontiguousarray(data).reshape(-1).view(np.uint8))

    def fill(self, byte: int) -> None:
        self._put(self.guard, np.full(self.size, byte, np.uint8))

    def read(self) -> NDArray[np.uint8]:
        return self.storage[self.guard : self.guard + self.size].cpu().numpy().copy()

    def guards_hold(self) -> bool:
        ends = (self.storage[: self.guard], self.storage[self.guard + self.size :])
        return all(bool((end.cpu().numpy() == GUARD_BYTE).all()) for end in ends)

    def _put(self, start: int, data: NDArray[np.uint8]) -> None:
        # Copies alone, no fill kernels: under the sanitizer nothing but our own kernels is to run.
        self.storage[start : start + data.size].copy_(torch.from_numpy(data))


@dataclass
class Output:
    """One result in device memory: logical shape, type and format."""

    memory: Memory
    dtype: str
    shape: tuple[int, ...]
    format: str

    def packed(self) -> NDArray[Any]:
        shape = launch.packed_shape(self.shape, self.format) if len(self.shape) == 4 else self.shape  # type: ignore[arg-type]
        return self.memory.read().view(self.dtype).reshape(shape)

    def values(self) -> NDArray[Any]:
        """(N, C, H, W), or the array as it is where it has another rank."""
        return launch.unpack(self.packed(), self.format, self.shape[1]) if len(self.shape) == 4 else self.packed()


@dataclass
class Device:
    """A library of launchers and the memory they work on.

    Attributes:
        kind: "cuda" or "cpu", torch's name of the device.
        threads: of a CPU twin.
        guard: bytes kept before and after each array; 0 leaves out-of-bounds accesses to the sanitizer.
    """

    library: launch.Library
    kind: str
    threads: int = 2
    guard: int = GUARD
    torch_device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.torch_device = torch.device(self.kind)

    def run(self, name: str, args: ctypes.Structure) -> None:
        """Launch on torch's current stream (or run, on the CPU); ValueError with the operator's sentence if it refuses."""
        last = torch.cuda.current_stream().cuda_stream if self.kind == "cuda" else self.threads
        self.library.run(name, args, last)

    def synchronize(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """What ``work`` launches, as a CUDA graph. Without torch.cuda.graph's garbage collection: there are a thousand cases."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            graph.capture_begin()
            try:
                work()
            finally:
                graph.capture_end()
        return graph


@dataclass
class Call:
    """One operator's arguments with the memory behind them."""

    device: Device
    name: str
    args: ctypes.Structure | None = None
    inputs: list[Memory] = field(default_factory=list)
    before: list[NDArray[np.uint8]] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    scratch: list[Memory] = field(default_factory=list)
    first: dict[str, NDArray[Any]] = field(default_factory=dict)

    def input(self, array: NDArray[Any], format: str = "linear") -> launch.Tensor:
        """An (N, C, H, W) array in device memory; padding channels hold 0xFF bytes (NaN), which nobody may read."""
        packed = launch.pack(array, format)
        if packed.size != array.size:
            used = launch.pack(np.ones(array.shape, np.uint8), format).reshape(-1).astype(bool)
            packed.reshape(-1).view(np.uint8).reshape(used.size, -1)[~used] = 0xFF
        return launch.tensor(self.pointer(packed), array.dtype.name, array.shape, format)

    def pointer(self, array: NDArray[Any]) -> int:
        """The address of a copy of an array in device memory."""
        memory = Memory(self.device.torch_device, array.nbytes, self.device.guard)
        memory.write(array)
        self.inputs.append(memory)
        self.before.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return memory.pointer

    def output(self, name: str, dtype: str, shape: tuple[int, int, int, int], format: str = "linear") -> launch.Tensor:
        """Memory for one result, an EsTensor."""
        size = int(np.prod(launch.packed_shape(shape, format))) * np.dtype(dtype).itemsize
        memory = Memory(self.device.torch_device, size, self.device.guard)
        self.outputs[name] = Output(memory, dtype, shape, format)
        return launch.tensor(memory.pointer, dtype, shape, format)

    def plain_output(self, name: str, dtype: str, shape: tuple[int, ...]) -> int:
        """Memory for a result that the arguments name by its address alone."""
        memory = Memory(self.device.torch_device, int(np.prod(shape)) * np.dtype(dtype).itemsize, self.device.guard)
        self.outputs[name] = Output(memory, dtype, shape, "linear")
        return memory.pointer

    def in_place(self, name: str, array: NDArray[Any]) -> int:
        """Memory that is read and written: every run starts from ``array``."""
        self.first[name] = array
        return self.plain_output(name, array.dtype.name, array.shape)

    def workspace(self, size: int) -> int:
        memory = Memory(self.device.torch_device, size, self.device.guard)
        self.scratch.append(memory)
        return memory.pointer

    def prefill(self, byte: int) -> None:
        """Rubbish where the results go, so that a place nobody writes shows."""
        for memory in (*(output.memory for output in self.outputs.values()), *self.scratch):
            memory.fill(byte)
        for name, array in self.first.items():
            self.outputs[name].memory.write(array)

    def launch(self) -> None:
        assert self.args is not None
        self.device.run(self.name, self.args)

    def run(self) -> dict[str, NDArray[Any]]:
        self.launch()
        self.device.synchronize()
        return {name: output.values() for name, output in self.outputs.items()}

    def damage(self) -> list[str]:
        """What was written to that may not be: guards, inputs, padding channels with anything but 0."""
        problems = []
        for memory in (*self.inputs, *(output.memory for output in self.outputs.values()), *self.scratch):
            if not memory.guards_hold():
                problems.append("wrote outside an array")
        for memory, before in zip(self.inputs, self.before, strict=True):
            if not np.array_equal(memory.read(), before):
                problems.append("wrote to an input")
        return problems

    def padding_problems(self) -> list[str]:
        """Padding channels of results that hold anything but 0."""
        problems = []
        for name, output in self.outputs.items():
            if len(output.shape) != 4 or output.shape[1] % launch.VECTORS[output.format] == 0:
                continue
            used = launch.pack(np.ones(output.shape, np.uint8), output.format).astype(bool)
            if output.packed()[~used].any():
                problems.append(f"{name}: padding channels hold other than 0")
        return problems
