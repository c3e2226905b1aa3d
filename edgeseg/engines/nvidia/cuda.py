"""Memory, streams, events and graphs of CUDA, thin over cuda-python; every error becomes a ``BackendError``.

``Cuda`` is what the runner is handed, so that tests can hand it one that computes on the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import BackendError

# Errors that poison the context: every later call of the process fails with them too.
STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721})
_OUT_OF_MEMORY = 2


class StickyCudaError(BackendError):
    """The CUDA context is lost: nothing but a new process helps."""


def cuda_error(code: int, name: str, doing: str) -> BackendError:
    """The error of a CUDA call as one line."""
    what = f"CUDA error {code} ({name}) while {doing}"
    if code in STICKY:
        return StickyCudaError(what, fix="restart the process: its CUDA context is lost")
    if code == _OUT_OF_MEMORY:
        return BackendError(what, fix="close other programs on the GPU, or a smaller input or batch")
    return BackendError(what, fix="`edgeseg doctor` shows the driver; is it as new as the CUDA libraries?")


class Cuda:
    """One GPU through the runtime API (its primary context, which TensorRT and the kernels share).

    Addresses, streams, events and graphs are integers.

    Raises (all methods):
        BackendError: a call failed; ``StickyCudaError`` where the process must restart.
    """

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import runtime

        self._api: Any = runtime
        self._check(runtime.cudaSetDevice(index), "opening the GPU")

    def _check(self, answer: tuple[Any, ...], doing: str) -> Any:
        status, *values = answer
        if int(status):
            raise cuda_error(int(status), status.name, doing)
        return values[0] if values else None

    # --- memory ---

    def malloc(self, size: int) -> int:
        """Device memory, aligned to 256 bytes at least."""
        return int(self._check(self._api.cudaMalloc(max(size, 1)), f"allocating {size} bytes on the GPU"))

    def free(self, address: int) -> None:
        self._check(self._api.cudaFree(address), "freeing device memory")

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array in page-locked host memory; give it to ``free_pinned`` at the end."""
        count = int(np.prod(shape))
        size = max(count * np.dtype(dtype).itemsize, 1)
        address = int(self._check(self._api.cudaHostAlloc(size, self._api.cudaHostAllocDefault), f"pinning {size} bytes"))
        return np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), dtype, count).reshape(shape)

    def free_pinned(self, array: NDArray[Any]) -> None:
        self._check(self._api.cudaFreeHost(array.ctypes.data), "freeing pinned memory")

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy between any two places, in the order of ``stream``."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDefault
        self._check(self._api.cudaMemcpyAsync(target, source, size, kind, stream), f"copying {size} bytes")

    # --- streams and events ---

    def stream(self) -> int:
        """A stream that does not wait for the legacy default stream."""
        return int(self._check(self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking), "making a stream"))

    def free_stream(self, stream: int) -> None:
        self._check(self._api.cudaStreamDestroy(stream), "freeing a stream")

    def synchronize(self, stream: int) -> None:
        """Wait for ``stream``; errors of kernels appear here."""
        self._check(self._api.cudaStreamSynchronize(stream), "running the engine")

    def wait_for(self, stream: int, other: int) -> None:
        """Let ``stream`` wait for what was given to ``other`` so far."""
        event = self._check(self._api.cudaEventCreateWithFlags(self._api.cudaEventDisableTiming), "making an event")
        try:
            self._check(self._api.cudaEventRecord(event, other), "recording an event")
            self._check(self._api.cudaStreamWaitEvent(stream, event, 0), "waiting for an event")
        finally:
            self._check(self._api.cudaEventDestroy(event), "freeing an event")

    # --- graphs ---

    def capture(self, stream: int, enqueue: Callable[[], None]) -> Any:
        """Record what ``enqueue`` gives to ``stream`` instead of running it; returns a graph for ``launch``."""
        api = self._api
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(api.cudaStreamBeginCapture(stream, mode), "starting a capture")
        try:
            enqueue()
        except BaseException:
            api.cudaStreamEndCapture(stream)  # leaves capture mode; the graph is of no use
            raise
        graph = self._check(api.cudaStreamEndCapture(stream), "ending a capture")
        try:
            return self._check(api.cudaGraphInstantiate(graph, 0), "instantiating a graph")
        finally:
            self._check(api.cudaGraphDestroy(graph), "freeing a graph")

    def launch(self, graph: Any, stream: int) -> None:
        self._check(self._api.cudaGraphLaunch(graph, stream), "launching a graph")

    def free_graph(self, graph: Any) -> None:
        self._check(self._api.cudaGraphExecDestroy(graph), "freeing a graph")
