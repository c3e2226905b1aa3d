"""ONNX Runtime on the CPU: float32 as it is, int8 from explicit Q/DQ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from edgeseg.engines.lowering import to_standard
from edgeseg.engines.session import BuildJob, SessionBase, TensorSpec
from edgeseg.errors import BackendError

NAME = "ort"
PRECISIONS = ("fp32", "int8")
ENGINE = "engine.onnx"
_ERRORS_ONLY = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def available() -> str | None:
    return None


def version() -> str:
    return onnxruntime.__version__


def supports(precision: str) -> str | None:
    return None


def session_options(threads: int, optimise: bool = True) -> onnxruntime.SessionOptions:
    """The options that engines run with; also what a bare loop should use to compare fairly."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    return options


def build(job: BuildJob) -> None:
    """Write the graph with ONNX Runtime's optimisations for this CPU already applied.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """
    graph, options = to_standard(job.graph()).SerializeToString(), session_options(job.threads)
    options.optimized_model_filepath = str(job.directory / ENGINE)
    try:
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BackendError(f"ONNX Runtime refuses the graph: {first_line(error)}", fix="run `edgeseg inspect`") from error


def load(directory: Path, precision: str, threads: int) -> OrtSession:
    """Open the engine that ``build`` wrote; its graph is optimised already."""
    return OrtSession(_open(str(directory / ENGINE), session_options(threads, optimise=False)), precision)


def open_graph(graph: onnx.ModelProto, threads: int = 1) -> OrtSession:
    """A session on a graph in memory, every tensor kept as it is named: for comparing layers."""
    return OrtSession(_open(graph.SerializeToString(), session_options(threads)), "fp32")


def _open(model: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BackendError(f"ONNX Runtime cannot open the engine: {first_line(error)}", fix="edgeseg cache clear") from error


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, short enough for one line of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _spec(item: onnxruntime.NodeArg) -> TensorSpec:
    fixed = all(isinstance(size, int) for size in item.shape)
    return TensorSpec(item.name, tuple(item.shape) if fixed else None, _DTYPES.get(item.type, "float32"))


class OrtSession(SessionBase):
    """An ONNX Runtime session whose inputs and outputs are the caller's own memory (IOBinding)."""

    backend = NAME

    def __init__(self, session: onnxruntime.InferenceSession, precision: str) -> None:
        super().__init__(precision, [_spec(item) for item in session.get_inputs()], [_spec(item) for item in session.get_outputs()])
        self._session: onnxruntime.InferenceSession | None = session
        self._binding = session.io_binding()
        self._fixed = all(spec.shape is not None for spec in self.outputs)

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise BackendError("the session is closed", fix="load the engine again")
        return self._session

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._fixed:
            return super().run(feeds)
        self.check(feeds, {})
        return dict(zip(self.output_names, self._opened().run(None, dict(feeds)), strict=True))

    def _execute(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        session, binding = self._opened(), self._binding
        binding.clear_binding_outputs()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)

    def close(self) -> None:
        self._session = self._binding = None
