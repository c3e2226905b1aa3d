"""An ONNX Runtime session on the GPU: device arrays are bound where they lie, host arrays pass through device memory of ours.

ONNX Runtime computes on a stream of ours, so that copies, a producer's work and the network follow each other without the
CPU waiting in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from edgeseg.engines.nvidia.arrays import DeviceArray, device_array
from edgeseg.engines.nvidia.cuda import Cuda
from edgeseg.engines.ort import OrtSession, first_line
from edgeseg.errors import BackendError


class CudaSession(OrtSession):
    """Inputs are numpy arrays or device arrays of any library (``__cuda_array_interface__``, DLPack), outputs numpy arrays.

    Args:
        session: made for ``stream`` and with fixed output shapes.
        cuda: memory and copies.
        stream: the one that the session's providers compute on; it is freed with the session.
        device: ONNX Runtime's name for where addresses lie.
        cuda_graph: the session replays one captured graph, whose tensors lie in our memory; a run with the caller's
            device arrays is a plain one.

    Attributes:
        providers: execution provider -> how many nodes it runs; empty where this ONNX Runtime does not say.
    """

    backend = "ort-cuda"

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        precision: str,
        cuda: Cuda,
        stream: int,
        *,
        providers: Mapping[str, int] | None = None,
        device: str = "cuda",
        cuda_graph: bool = False,
    ) -> None:
        super().__init__(session, precision)
        if not self._fixed:
            raise BackendError("an output whose shape depends on the data", "fixed shapes", "--backend ort")
        self.providers = dict(providers or {})
        self.cuda, self.stream = cuda, stream
        self._device = device
        self._plain = _without_graph() if cuda_graph else None
        self._memory = {spec.name: cuda.malloc(spec.empty().nbytes) for spec in [*self.inputs, *self.outputs]}

    def run_into(self, feeds: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> None:
        self._opened()
        taken = {name: self._take(name, array) for name, array in feeds.items()}
        self.check({name: self._stand_in(name, array) for name, array in taken.items()}, outputs)
        self._execute(taken, outputs)

    def _take(self, name: str, array: Any) -> np.ndarray | DeviceArray:
        found = device_array(name, array, self.stream, lambda other: self.cuda.wait_for(self.stream, other))
        if found is not None:
            return found
        return array if isinstance(array, np.ndarray) else np.asarray(array)

    def _stand_in(self, name: str, array: np.ndarray | DeviceArray) -> np.ndarray:
        """A host array that is right or wrong as ``array`` is: the checks look at nothing else of it."""
        return array if isinstance(array, np.ndarray) else np.empty(array.shape, array.dtype)

    def _execute(self, feeds: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> None:
        session, binding = self._opened(), self._binding
        for name, array in feeds.items():
            address = array.address if isinstance(array, DeviceArray) else self._upload(name, array)
            binding.bind_input(name, self._device, 0, np.dtype(array.dtype), array.shape, address)
        for spec in self.outputs:
            binding.bind_output(spec.name, self._device, 0, np.dtype(spec.dtype), spec.shape, self._memory[spec.name])
        foreign = any(isinstance(array, DeviceArray) for array in feeds.values())
        try:
            session.run_with_iobinding(binding, self._plain if foreign else None)
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            with contextlib.suppress(BackendError):
                self.cuda.synchronize(self.stream)  # nothing may still read the caller's arrays
            raise BackendError(f"ONNX Runtime does not run: {first_line(error)}", fix="restart, or --backend ort") from error
        for name, array in outputs.items():
            self.cuda.copy(array.ctypes.data, self._memory[name], array.nbytes, self.stream)
        self.cuda.synchronize(self.stream)

    def _upload(self, name: str, array: np.ndarray) -> int:
        self.cuda.copy(self._memory[name], array.ctypes.data, array.nbytes, self.stream)
        return self._memory[name]

    def close(self) -> None:
        if self._session is None:
            return
        super().close()  # before the memory that is bound to it, and the stream that it computes on
        with contextlib.suppress(BackendError):  # after a lost CUDA context nothing can be freed, and the process must end
            for address in self._memory.values():
                self.cuda.free(address)
            self.cuda.free_stream(self.stream)


def _without_graph() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options
