"""OpenVINO on the CPU: float32, bfloat16, float16 where the CPU computes in them, and int8 from explicit Q/DQ."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino

from edgeseg.engines.lowering import lower_for_openvino
from edgeseg.engines.session import BuildJob, SessionBase, TensorSpec
from edgeseg.errors import BackendError

NAME = "openvino"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
ENGINE = "engine.blob"
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


@cache
def _core() -> openvino.Core:
    return openvino.Core()


def available() -> str | None:
    return None if "CPU" in _core().available_devices else "it finds no CPU plugin"


def version() -> str:
    return openvino.get_version()


def _capable(precision: str) -> bool:
    return _CAPABILITIES[precision] in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def supports(precision: str) -> str | None:
    if precision in _CAPABILITIES and not _capable(precision):
        return "this CPU has no instructions for it"
    return None


def properties(precision: str, threads: int) -> dict[str, Any]:
    """The properties that engines are compiled with; also what a bare loop should use to compare fairly.

    Left to itself OpenVINO computes float32 models in bfloat16 on some CPUs, so the precision is always said.
    """
    # What an int8 graph leaves in float may as well be bfloat16: it is read back from 8 bits anyway.
    hint = ("bf16" if _capable("bf16") else "f32") if precision == "int8" else _HINTS[precision]
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        # Capture, decoding and display share the cores: a pinned thread could not step aside for them.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": hint,
    }


def _read(graph: onnx.ModelProto) -> openvino.Model:
    lowered = lower_for_openvino(graph)
    model = _core().read_model(io.BytesIO(lowered.SerializeToString()))
    # A port collects the names of tensors that OpenVINO merged; only the network's own may remain.
    for port, value in zip([*model.inputs, *model.outputs], [*_inputs(lowered), *lowered.graph.output], strict=True):
        port.get_tensor().set_names({value.name})
    return model


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def build(job: BuildJob) -> None:
    """Compile the graph for this CPU and write the compiled blob.

    Raises:
        BackendError: OpenVINO cannot convert or compile the graph.
    """
    graph = job.graph()
    try:
        compiled = _core().compile_model(_read(graph), "CPU", properties(job.precision, job.threads))
    except RuntimeError as error:
        raise BackendError(f"OpenVINO refuses the graph: {_cause(error)}", fix="--backend ort runs any standard graph") from error
    (job.directory / ENGINE).write_bytes(compiled.export_model().getvalue())


def load(directory: Path, precision: str, threads: int) -> OpenVinoSession:
    """Open the blob that ``build`` wrote."""
    blob = (directory / ENGINE).read_bytes()
    try:
        return OpenVinoSession(_core().import_model(blob, "CPU", properties(precision, threads)), precision)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot open the engine: {_cause(error)}", fix="edgeseg cache clear") from error


def open_graph(graph: onnx.ModelProto, threads: int = 1) -> OpenVinoSession:
    """A float32 session on a graph in memory: for comparing layers."""
    return OpenVinoSession(_core().compile_model(_read(graph), "CPU", properties("fp32", threads)), "fp32")


def _cause(error: Exception) -> str:
    # The first lines name OpenVINO's own source files; the cause comes after them.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("Exception from", "Check '", "FrontEnd API", "Model wasn't", "Summary")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [type(error).__name__])[0][:300]


def _name(port: openvino.ConstOutput) -> str:
    return port.get_any_name()


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    shape = port.get_partial_shape()
    dtype = np.dtype(port.get_element_type().to_dtype()).name
    return TensorSpec(_name(port), tuple(port.get_shape()) if shape.is_static else None, dtype)


class OpenVinoSession(SessionBase):
    """An OpenVINO infer request whose tensors are views of the caller's memory."""

    backend = NAME

    def __init__(self, compiled: openvino.CompiledModel, precision: str) -> None:
        super().__init__(precision, [_spec(port) for port in compiled.inputs], [_spec(port) for port in compiled.outputs])
        self._compiled: openvino.CompiledModel | None = compiled
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._ports = {_name(port): port for port in [*compiled.inputs, *compiled.outputs]}
        self._scratch = {spec.name: spec.empty() for spec in self.outputs if spec.shape is not None}
        self._fixed = len(self._scratch) == len(self.outputs)

    def _open(self) -> openvino.InferRequest:
        if self._request is None:
            raise BackendError("the session is closed", fix="load the engine again")
        return self._request

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._fixed:
            return super().run(feeds)
        self.check(feeds, {})
        self._open()
        assert self._compiled is not None
        result = self._compiled.create_infer_request().infer(dict(feeds))
        return {spec.name: np.array(result[self._ports[spec.name]]) for spec in self.outputs}

    def _execute(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        request = self._open()
        for name, array in feeds.items():
            request.set_tensor(self._ports[name], openvino.Tensor(array, shared_memory=True))
        # An output nobody asked for must not land in memory handed over by an earlier call.
        for name, scratch in self._scratch.items():
            request.set_tensor(self._ports[name], openvino.Tensor(outputs.get(name, scratch), shared_memory=True))
        request.infer()

    def close(self) -> None:
        self._request = self._compiled = None
