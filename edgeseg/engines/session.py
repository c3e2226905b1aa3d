"""What every backend looks like: named arrays in, named arrays out; and what it is given to build from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgeseg.engines.options import BuildOptions
from edgeseg.errors import BackendError

if TYPE_CHECKING:
    import onnx

    from edgeseg.folder import ModelFolder
    from edgeseg.manifest import Manifest

BACKENDS = {
    "ort": "edgeseg.engines.ort",
    "openvino": "edgeseg.engines.openvino",
    "torch": "edgeseg.engines.torch",
    "tensorrt": "edgeseg.engines.tensorrt",
    "rtx": "edgeseg.engines.rtx",
    "ort-cuda": "edgeseg.engines.ort_cuda",
}
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
Progress = Callable[[str], None]
Frames = Callable[[], Sequence[np.ndarray]]
"""Gives (H, W, 3) uint8 BGR frames; called only if accuracy must really be judged."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (None where it is known only at run time) and numpy dtype name of a network input or output."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str = "float32"

    def empty(self) -> np.ndarray:
        """A fresh C-contiguous array of this shape and dtype."""
        if self.shape is None:
            raise BackendError(f"{self.name}: the shape is known only at run time", "a fixed shape", "use Session.run")
        return np.empty(self.shape, self.dtype)


class Session(Protocol):
    """A loaded engine. It serves one caller at a time; make one per thread."""

    backend: str
    precision: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    @property
    def input_names(self) -> list[str]: ...

    @property
    def output_names(self) -> list[str]: ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, in arrays that the caller owns."""
        ...

    def run_into(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Run and write the named outputs into the given arrays; input and output memory is used in place."""
        ...

    def close(self) -> None:
        """Free the engine. Calling it again does nothing; running afterwards is an error."""
        ...


class SessionBase:
    """The checks and the owned-array form of ``run`` that all sessions share."""

    backend = ""

    def __init__(self, precision: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
        self.precision, self.inputs, self.outputs = precision, inputs, outputs
        self._inputs = {spec.name: spec for spec in inputs}
        self._outputs = {spec.name: spec for spec in outputs}

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [spec.name for spec in self.outputs]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = {spec.name: spec.empty() for spec in self.outputs}
        self.run_into(feeds, outputs)
        return outputs

    def run_into(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        self.check(feeds, outputs)
        self._execute(feeds, outputs)

    def _execute(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        raise TypeError(f"{type(self).__name__} has no _execute")

    def check(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Refuse missing or unknown names, other shapes, dtypes or layouts, before native code sees them."""
        self.check_names(feeds)
        for specs, arrays in ((self._inputs, feeds), (self._outputs, outputs)):
            for name, array in arrays.items():
                check_array(name, array, specs.get(name))

    def check_names(self, feeds: Mapping[str, object]) -> None:
        """Refuse missing or unknown inputs."""
        if feeds.keys() != self._inputs.keys():
            raise BackendError(f"inputs {sorted(feeds)}", f"exactly {self.input_names}", "name the arrays as the network does")

    def __enter__(self) -> SessionBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to free."""


def check_array(name: str, array: np.ndarray, spec: TensorSpec | None) -> None:
    """Refuse an array of another shape, dtype or layout than ``spec``; None is a tensor that the network has not."""
    if spec is None:
        raise BackendError(f"no tensor {name!r} in the network", "one of its output names", "see Session.output_names")
    if spec.shape is not None and array.shape != spec.shape:
        raise BackendError(f"{name}: shape {array.shape}", f"{spec.shape}", "resize to the model's input (Segmenter does)")
    if array.dtype != spec.dtype:
        raise BackendError(f"{name}: dtype {array.dtype}", spec.dtype, f"array.astype('{spec.dtype}')")
    if not array.flags.c_contiguous:
        raise BackendError(f"{name}: not C-contiguous", "a contiguous array", "np.ascontiguousarray(array)")


@dataclass(frozen=True)
class BuildJob:
    """What a backend builds from.

    Attributes:
        directory: empty, temporary; whatever is written there becomes the engine.
        graph: gives the ONNX graph: float for the float precisions, explicit Q/DQ for int8. Its shapes are fixed, unless
            ``options.shapes`` asks for a range.
        options: only what the backend names in its ``OPTIONS`` differs from the defaults.
        progress: told in words what is being done.
    """

    directory: Path
    folder: ModelFolder
    manifest: Manifest
    precision: str
    threads: int
    graph: Callable[[], onnx.ModelProto]
    options: BuildOptions = field(default_factory=BuildOptions)
    progress: Progress = field(default=lambda _: None)


class Backend(Protocol):
    """What an adapter module offers; the module itself is the backend.

    It may also have:
        OPTIONS: names of the ``BuildOptions`` that it takes; none by default.
        THREADED = False: an engine is the same for any number of CPU threads.
        runnable(): None, or why engines can be built here but not run; ``available`` by default.
        device_fields(): what of the machine its engines depend on, for the key; the CPU by default.
        serves(found, wanted): whether an engine with the key fields ``found`` may stand in for ``wanted``; never by default.
    """

    NAME: str
    PRECISIONS: tuple[str, ...]

    def available(self) -> str | None:
        """None, or why it cannot be used here."""
        ...

    def version(self) -> str: ...

    def supports(self, precision: str) -> str | None:
        """None, or why this machine cannot run the precision."""
        ...

    def build(self, job: BuildJob) -> None: ...

    def load(self, directory: Path, precision: str, threads: int) -> Session: ...


def default_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_EXTRAS = {"ort": "cpu", "torch": "train", "ort-cuda": "gpu"}
_ELSEWHERE = {
    "tensorrt": "on a Jetson `apt install python3-libnvinfer`, elsewhere `pip install 'edgeseg[tensorrt]'` (see docs/tensorrt.md)",
}


def how_to_install(name: str) -> str:
    """What brings a backend."""
    return _ELSEWHERE.get(name, f"pip install 'edgeseg[{_EXTRAS.get(name, name)}]'")


def get_backend(name: str) -> Backend:
    """The adapter of a backend.

    Raises:
        BackendError: unknown, not installed, or of no use on this machine; the message says what to do.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}", "one of auto, " + ", ".join(BACKENDS), "choose one of these")
    try:
        module: ModuleType = import_module(BACKENDS[name])
    except ImportError as error:
        raise BackendError(f"backend {name!r} is not installed ({error})", fix=how_to_install(name)) from error
    backend = cast(Backend, module)
    if reason := backend.available():
        raise BackendError(f"backend {name!r} cannot be used: {reason}", fix="`edgeseg doctor` shows what this machine runs")
    return backend


def not_runnable(backend: Backend) -> str | None:
    """None, or why this machine can build the backend's engines but not run them."""
    asked = getattr(backend, "runnable", None)
    return asked() if asked else None


def check_runnable(name: str) -> None:
    """Refuse to open engines of a backend that can only build here, before one is built in vain.

    Raises:
        BackendError: says what is missing.
    """
    if reason := not_runnable(get_backend(name)):
        fix = "`edgeseg build` here, then copy the model folder to a machine that has what is missing"
        raise BackendError(f"{name} engines can be built here but not run: {reason}", fix=fix)


def check_precision(backend: Backend, precision: str) -> None:
    """Refuse a precision that the backend or this machine does not have.

    Raises:
        BackendError: names what there is instead.
    """
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r}", f"one of {', '.join(PRECISIONS)}", "choose one of these")
    if precision not in backend.PRECISIONS:
        have, first = ", ".join(backend.PRECISIONS), backend.PRECISIONS[0]
        raise BackendError(f"{backend.NAME} has no {precision}", f"one of {have}", f"--precision {first}, or another backend")
    if reason := backend.supports(precision):
        raise BackendError(f"{backend.NAME} {precision}: {reason}", fix="--precision fp32 or int8")


def installed() -> list[str]:
    """Names of the backends that can be used here, engines run and all."""
    names = []
    for name in BACKENDS:
        try:
            backend = get_backend(name)
        except BackendError:
            continue
        if not not_runnable(backend):
            names.append(name)
    return names
