"""A loaded engine as a session: one stream, one context per input shape, one CUDA graph per shape and set of addresses.

Host arrays pass through pinned buffers; device arrays (``__cuda_array_interface__`` or DLPack) are bound where they are.
The first run of a set of addresses is plain, the second is captured, all later ones are launches of that graph.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.nvidia.arrays import DeviceArray, device_array
from edgeseg.engines.nvidia.caches import make_context
from edgeseg.engines.nvidia.cuda import Cuda, StickyCudaError
from edgeseg.engines.nvidia.graphs import GraphCache
from edgeseg.engines.nvidia.messages import Log
from edgeseg.engines.session import SessionBase, TensorSpec, check_array
from edgeseg.errors import BackendError

Shapes = tuple[tuple[int, ...], ...]
_ALIGNMENT = 256  # bytes, of the addresses that set_tensor_address takes
_MAX_CONTEXTS = 4
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8",
}  # fmt: skip


@dataclass
class Opened:
    """A deserialised engine, shared by the sessions on it."""

    trt: Any
    runtime: Any
    engine: Any
    log: Log
    jit_cache: Path | None = None
    dtypes: dict[str, str] = field(default_factory=dict)


def open_engine(
    trt: Any, plan: bytes, *, plugins: Path | None = None, jit_cache: Path | None = None, dtypes: dict[str, str] | None = None
) -> Opened:
    """Deserialise an engine whose bytes were verified.

    Args:
        plugins: the plugin library it was built with.
        jit_cache: where TensorRT-RTX keeps the kernels that it compiles.
        dtypes: input or output -> dtype of the ONNX graph, for which an 8-bit integer of the engine may stand.

    Raises:
        BackendError: the library refuses the engine; says why.
    """
    log = Log(trt)
    runtime = trt.Runtime(log.sink)
    if plugins is not None and not runtime.get_plugin_registry().load_library(str(plugins)):
        raise BackendError(f"{plugins}: cannot be loaded as a plugin library ({log.cause()})", fix="edgeseg plugins build")
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible engines bring their runtime along
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{trt.__name__} cannot open the engine: {log.cause()}", fix="edgeseg build --force")
    return Opened(trt, runtime, engine, log, jit_cache, dtypes or {})


@dataclass
class _Tensor:
    """Device memory of one input or output, and the page-locked memory that host arrays pass through."""

    spec: TensorSpec
    address: int = 0
    capacity: int = 0
    staging: NDArray[Any] | None = None


class NvidiaSession(SessionBase):
    """A session on an NVIDIA GPU. Inputs and outputs are numpy arrays or device arrays of any library.

    Args:
        opened: the engine; several sessions may share it, each with a stream and contexts of its own.
        cuda: memory and streams.
    """

    def __init__(self, opened: Opened, backend: str, precision: str, cuda: Cuda) -> None:
        self.backend = backend
        self.opened, self.cuda = opened, cuda
        engine = opened.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == opened.trt.TensorIOMode.INPUT]
        specs = {name: self._spec(name) for name in names}
        super().__init__(precision, [specs[name] for name in inputs], [specs[name] for name in names if name not in inputs])
        self._tensors = {name: _Tensor(spec) for name, spec in specs.items()}
        self._contexts: OrderedDict[Shapes, Any] = OrderedDict()
        self._closed = False
        self._lost: StickyCudaError | None = None
        self.stream = cuda.stream()
        self.graphs = GraphCache(cuda, self.stream)
        if all(spec.shape is not None for spec in self.inputs):
            self._context(tuple(spec.shape or () for spec in self.inputs))

    def _spec(self, name: str) -> TensorSpec:
        engine = self.opened.engine
        kind = str(engine.get_tensor_dtype(name)).rpartition(".")[2]
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise BackendError(f"{name}: type {kind}", f"one of {', '.join(_DTYPES)}", "a network with such inputs and outputs")
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        # TensorRT knows uint8 only at the edges, and plugins not at all: the same bits under the graph's name.
        declared = self.opened.dtypes.get(name, dtype)
        same = np.dtype(declared).itemsize == np.dtype(dtype).itemsize == 1
        return TensorSpec(name, None if min(shape, default=0) < 0 else shape, declared if same else dtype)

    def worker(self) -> NvidiaSession:
        """Another session on the same engine with a stream, contexts and buffers of its own: one per thread."""
        self._check_open()
        return type(self)(self.opened, self.backend, self.precision, self.cuda)

    # --- running ---

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        self._check_open()
        self.check_names(feeds)
        arrays = self._take(feeds, self._inputs)
        _, sizes = self._context(self._shapes(arrays))
        outputs = {spec.name: np.empty(sizes[spec.name], spec.dtype) for spec in self.outputs}
        self._run(arrays, dict(outputs))
        return outputs

    def run_into(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._check_open()
        self.check_names(feeds)
        self._run(self._take(feeds, self._inputs), self._take(outputs, self._outputs))

    def staging(self, name: str) -> NDArray[Any]:
        """The page-locked array of a tensor of fixed shape: filled in place, its copy is saved."""
        tensor = self._tensors[name]
        return self._staged(tensor, tensor.spec.empty().shape)

    def _take(self, arrays: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        """Each array as numpy or ``DeviceArray``, checked."""
        taken: dict[str, Any] = {}
        for name, array in arrays.items():
            found = device_array(name, array, self.stream, lambda other: self.cuda.wait_for(self.stream, other))
            if found is None:
                taken[name] = _on_host(array)
                check_array(name, taken[name], specs.get(name))
            else:
                taken[name] = found
                _check_device(name, found, specs.get(name))
        return taken

    def _shapes(self, arrays: Mapping[str, Any]) -> Shapes:
        return tuple(tuple(arrays[spec.name].shape) for spec in self.inputs)

    def _run(self, feeds: dict[str, Any], outputs: dict[str, Any]) -> None:
        try:
            self._execute(feeds, outputs)
        except StickyCudaError as error:
            self._lost = error
            raise

    def _execute(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        shapes = self._shapes(feeds)
        _, sizes = self._context(shapes)
        for name, array in outputs.items():
            if tuple(array.shape) != sizes[name]:
                raise BackendError(f"{name}: shape {tuple(array.shape)}", f"{sizes[name]}", "an array of the output's shape")
        bound = {name: self._upload(name, array) for name, array in feeds.items()}
        bound |= {name: self._target(name, outputs.get(name), sizes[name]) for name in self._outputs}
        self.graphs.run((shapes, tuple(bound.items())), lambda: self.enqueue(shapes, bound))
        staged = [(array, self._download(name, array, bound[name])) for name, array in outputs.items()]
        self.cuda.synchronize(self.stream)
        for array, source in staged:
            if source is not None and source is not array:
                np.copyto(array, source)

    def _upload(self, name: str, array: Any) -> int:
        """The address at which the input lies on the device, in the order of our stream."""
        tensor = self._tensors[name]
        if isinstance(array, DeviceArray):
            if array.address % _ALIGNMENT == 0:
                return array.address
            self.reserve(name, array.nbytes)
            self.cuda.copy(tensor.address, array.address, array.nbytes, self.stream)
            return tensor.address
        self.reserve(name, array.nbytes)
        staged = self._staged(tensor, array.shape)
        if array is not staged:
            np.copyto(staged, array)
        self.cuda.copy(tensor.address, staged.ctypes.data, array.nbytes, self.stream)
        return tensor.address

    def _target(self, name: str, array: Any, shape: tuple[int, ...]) -> int:
        """Where the engine writes an output: the caller's device memory if it is aligned, else ours."""
        if isinstance(array, DeviceArray) and array.address % _ALIGNMENT == 0:
            return array.address
        spec = self._outputs[name]
        return self.reserve(name, int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)

    def _download(self, name: str, array: Any, address: int) -> NDArray[Any] | None:
        """Start the output's way to the caller; gives the staging array that holds it after the stream is done."""
        if isinstance(array, DeviceArray):
            if array.address != address:
                self.cuda.copy(array.address, address, array.nbytes, self.stream)
            return None
        staged = self._staged(self._tensors[name], array.shape)
        self.cuda.copy(staged.ctypes.data, address, array.nbytes, self.stream)
        return staged

    def reserve(self, name: str, size: int) -> int:
        """Our device memory of a tensor, grown to ``size`` bytes."""
        tensor = self._tensors[name]
        if tensor.capacity < size or not tensor.address:
            self.cuda.synchronize(self.stream)
            if tensor.address:
                self.cuda.free(tensor.address)
                tensor.address, tensor.capacity = 0, 0
            tensor.address, tensor.capacity = self.cuda.malloc(size), size
        return tensor.address

    def _staged(self, tensor: _Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
        if tensor.staging is None or tensor.staging.shape != tuple(shape):
            if tensor.staging is not None:
                self.cuda.free_pinned(tensor.staging)
                tensor.staging = None
            tensor.staging = self.cuda.pinned(tuple(shape), tensor.spec.dtype)
        return tensor.staging

    def enqueue(self, shapes: Shapes, addresses: Mapping[str, int]) -> None:
        """Give one inference to the stream, its tensors at ``addresses``.

        Raises:
            BackendError: the library refuses.
        """
        context, _ = self._context(shapes)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(f"{name}: {self.opened.log.cause()}", fix="edgeseg build --force")
        if not context.execute_async_v3(self.stream):
            self.cuda.synchronize(self.stream)  # a lost CUDA context shows here, and is the better answer
            raise BackendError(
                f"the engine does not run: {self.opened.log.cause()}", fix="restart; if it stays, edgeseg build --force"
            )

    # --- contexts ---

    def _context(self, shapes: Shapes) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The context of these input shapes and the shapes of its outputs.

        Each shape has its own, since a captured graph goes on using what its context held at the capture.
        """
        if shapes not in self._contexts:
            self._contexts[shapes] = self._new_context(shapes)
            while len(self._contexts) > _MAX_CONTEXTS:
                self.cuda.synchronize(self.stream)
                old, _ = self._contexts.popitem(last=False)
                self._drop_shapes(old)
        self._contexts.move_to_end(shapes)
        found: tuple[Any, dict[str, tuple[int, ...]]] = self._contexts[shapes]
        return found

    def _drop_shapes(self, shapes: Shapes) -> None:
        self.graphs.drop(lambda key: key[0] == shapes)

    def _new_context(self, shapes: Shapes) -> tuple[Any, dict[str, tuple[int, ...]]]:
        context = make_context(self.opened.engine, self.opened.jit_cache)
        if context is None:
            raise BackendError(f"no execution context: {self.opened.log.cause()}", fix="close other programs on the GPU")
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(self.stream):
            self.graphs.capturable = False
        if profile := self._profile(shapes):
            context.set_optimization_profile_async(profile, self.stream)
            self.cuda.synchronize(self.stream)
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if spec.shape is None and not context.set_input_shape(spec.name, shape):
                raise BackendError(f"{spec.name}: shape {shape}: {self.opened.log.cause()}", "a shape of --shapes", "build for it")
        sizes = {spec.name: tuple(int(size) for size in context.get_tensor_shape(spec.name)) for spec in self.outputs}
        if free := [name for name, size in sizes.items() if min(size, default=0) < 0]:
            raise BackendError(
                f"output {free[0]!r}: its shape depends on the data", "a shape that follows from the input's", "--backend ort"
            )
        return context, sizes

    def _profile(self, shapes: Shapes) -> int:
        """The number of the first optimisation profile that holds the shapes; 0 where all shapes are fixed."""
        engine = self.opened.engine
        free = [(spec.name, shape) for spec, shape in zip(self.inputs, shapes, strict=True) if spec.shape is None]
        if not free:
            return 0
        ranges = []
        for index in range(engine.num_optimization_profiles):
            bounds = [(shape, *engine.get_tensor_profile_shape(name, index)) for name, shape in free]
            if all(_within(shape, low, high) for shape, low, _, high in bounds):
                return index
            ranges += [f"{tuple(low)} to {tuple(high)}" for _, low, _, high in bounds]
        raise BackendError(f"{free[0][0]}: shape {free[0][1]}", " or ".join(ranges), "resize, or build with --shapes for it")

    # --- the end ---

    def _check_open(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._closed:
            raise BackendError("the session is closed", fix="load the engine again")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # After a lost context every call fails, and the process must end anyway.
        with contextlib.suppress(BackendError):
            self.cuda.synchronize(self.stream)
            self.graphs.drop()
            self._contexts.clear()
            for tensor in self._tensors.values():
                if tensor.address:
                    self.cuda.free(tensor.address)
                if tensor.staging is not None:
                    self.cuda.free_pinned(tensor.staging)
                tensor.address, tensor.capacity, tensor.staging = 0, 0, None
            self.cuda.free_stream(self.stream)


def _within(shape: tuple[int, ...], low: Any, high: Any) -> bool:
    sizes = list(zip(shape, low, high, strict=False))
    return len(shape) == len(low) and all(a <= size <= b for size, a, b in sizes)


def _on_host(array: Any) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    # A CPU tensor of another library is viewed, not copied, where it can be.
    return np.from_dlpack(array) if hasattr(array, "__dlpack__") else np.asarray(array)


def _check_device(name: str, array: DeviceArray, spec: TensorSpec | None) -> None:
    if spec is None:
        raise BackendError(f"no tensor {name!r} in the network", "one of its names", "see Session.input_names and output_names")
    if spec.shape is not None and array.shape != spec.shape:
        raise BackendError(f"{name}: shape {array.shape}", f"{spec.shape}", "resize to the model's input")
    if np.dtype(array.dtype) != np.dtype(spec.dtype):
        raise BackendError(f"{name}: dtype {array.dtype}", spec.dtype, f"convert it to {spec.dtype} on the device")
