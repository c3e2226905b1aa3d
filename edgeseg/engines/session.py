"""What every backend looks like: named arrays in, named arrays out; and what it is given to build from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgeseg.errors import BackendError

if TYPE_CHECKING:
    import onnx

    from edgeseg.folder import ModelFolder
    from edgeseg.manifest import Manifest

BACKENDS = {
    "ort": "edgeseg.engines.ort",
    "openvino": "edgeseg.engines.openvino",
    "torch": "edgeseg.engines.torch",
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
        if feeds.keys() != self._inputs.keys():
            raise BackendError(f"inputs {sorted(feeds)}", f"exactly {self.input_names}", "name the arrays as the network does")
        for specs, arrays in ((self._inputs, feeds), (self._outputs, outputs)):
            for name, array in arrays.items():
                _check_array(name, array, specs.get(name))

    def __enter__(self) -> SessionBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to free."""


def _check_array(name: str, array: np.ndarray, spec: TensorSpec | None) -> None:
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
        graph: gives the ONNX graph with fixed shapes: float for the float precisions, explicit Q/DQ for int8.
    """

    directory: Path
    folder: ModelFolder
    manifest: Manifest
    precision: str
    threads: int
    graph: Callable[[], onnx.ModelProto]


class Backend(Protocol):
    """What an adapter module offers; the module itself is the backend."""

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


def _missing(name: str, reason: str) -> BackendError:
    extra = {"ort": "cpu", "torch": "train"}.get(name, name)
    return BackendError(f"backend {name!r} is not installed ({reason})", fix=f"pip install 'edgeseg[{extra}]'")


def get_backend(name: str) -> Backend:
    """The adapter of a backend.

    Raises:
        BackendError: unknown, or not installed; the message says what to install.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}", "one of auto, " + ", ".join(BACKENDS), "choose one of these")
    try:
        module: ModuleType = import_module(BACKENDS[name])
    except ImportError as error:
        raise _missing(name, str(error)) from error
    backend = cast(Backend, module)
    if reason := backend.available():
        raise _missing(name, reason)
    return backend


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
    """Names of the backends that can be used here."""
    names = []
    for name in BACKENDS:
        try:
            get_backend(name)
        except BackendError:
            continue
        names.append(name)
    return names
