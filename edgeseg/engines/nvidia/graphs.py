"""CUDA graphs of work that comes again: captured on its second time, launched from then on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from edgeseg.engines.nvidia.cuda import Cuda, StickyCudaError
from edgeseg.errors import BackendError

_MAX_GRAPHS = 8


class GraphCache:
    """Runs work on a stream, from its second time on as a captured graph; the least recently used graphs are dropped."""

    def __init__(self, cuda: Cuda, stream: int, limit: int = _MAX_GRAPHS) -> None:
        self._cuda, self._stream, self._limit = cuda, stream, limit
        self._graphs: OrderedDict[Hashable, Any] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self.capturable = True

    def run(self, key: Hashable, enqueue: Callable[[], None]) -> None:
        """Give the work of ``enqueue`` to the stream; everything it depends on must be in ``key``."""
        if key in self._graphs:
            self._graphs.move_to_end(key)
            self._cuda.launch(self._graphs[key], self._stream)
        elif key in self._seen and self.capturable:
            self._capture(key, enqueue)
        else:
            # Plain once: a first enqueue brings the context up to date, which must not happen inside a capture.
            enqueue()
            self._seen[key] = None
            while len(self._seen) > 4 * self._limit:
                self._seen.popitem(last=False)

    def _capture(self, key: Hashable, enqueue: Callable[[], None]) -> None:
        try:
            graph = self._cuda.capture(self._stream, enqueue)
        except StickyCudaError:
            raise
        except BackendError:
            self.capturable = False  # control flow and some plugins cannot be captured: they still run
            enqueue()
            return
        self._graphs[key] = graph
        while len(self._graphs) > self._limit:
            self._cuda.free_graph(self._graphs.popitem(last=False)[1])
        self._cuda.launch(graph, self._stream)

    def drop(self, matches: Callable[[Any], bool] = lambda _: True) -> None:
        """Free the graphs whose key ``matches``."""
        for key in [key for key in self._graphs if matches(key)]:
            self._cuda.free_graph(self._graphs.pop(key))
        for key in [key for key in self._seen if matches(key)]:
            del self._seen[key]
