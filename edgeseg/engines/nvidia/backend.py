"""Building and loading as both backends do it; each adapter adds its library, its lowering and its checks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgeseg.engines.lowering import to_half
from edgeseg.engines.nvidia.child import build_in_child
from edgeseg.engines.nvidia.cuda import Cuda
from edgeseg.engines.nvidia.device import why_no_gpu
from edgeseg.engines.nvidia.frames import FrameSession
from edgeseg.engines.nvidia.runner import NvidiaSession, open_engine
from edgeseg.engines.nvidia.worker import ENGINE, GRAPH
from edgeseg.engines.session import BuildJob
from edgeseg.errors import BackendError
from edgeseg.files import write_json
from edgeseg.ops import functions
from edgeseg.plugins import PREFIX, plugin_library

IO = "io.json"


def typed(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph in the types of a precision: FP16 for fp16 and for what int8 leaves in float; inputs and outputs stay float32."""
    return model if precision == "fp32" else to_half(model)


def named_as_plugins(model: onnx.ModelProto) -> onnx.ModelProto:
    """Our operators under the names of their plugins: TensorRT's parser has an answer of its own for some operators' names.

    The uint8 labels and codes they give are declared int8, the same bits: TensorRT's plugins have no uint8, and its parser
    would set the declared type on a tensor that is of another.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    ours = list(filter(functions.is_ours, functions.walk(named.graph)))
    results = {name for node in ours for name in node.output}
    for node in ours:
        node.op_type = PREFIX + node.op_type.removeprefix(PREFIX)
    for value in [*named.graph.output, *named.graph.value_info]:
        if value.name in results and value.type.tensor_type.elem_type == TensorProto.UINT8:
            value.type.tensor_type.elem_type = TensorProto.INT8
    return named


def build(
    job: BuildJob, library: str, model: onnx.ModelProto, *, plugins: Path | None = None, timing: bool = True, inspect: bool = True
) -> None:
    """Build ``model`` in a process of its own into the job's directory.

    Args:
        library: name of the Python module.
        model: lowered for it.
        plugins: a plugin library that the graph needs.
        timing: whether the library measures tactics, which are then kept.
        inspect: whether a GPU is here, on which the built engine can be opened and described.

    Raises:
        BackendError: the library refuses the graph or an option, or its process died.
    """
    write_json(job.directory / IO, {"dtypes": _element_types(model), "plugins": plugins is not None})
    # Beside the engines, not in /tmp: it may be as large as they are.
    with tempfile.TemporaryDirectory(dir=job.folder.engines, prefix=".graph.", suffix=".tmp") as scratch:
        graph = Path(scratch) / GRAPH
        graph.write_bytes((named_as_plugins(model) if plugins else model).SerializeToString())
        request: dict[str, Any] = {
            "library": library,
            "graph": str(graph.absolute()),
            "directory": str(job.directory.absolute()),
            "precision": job.precision,
            "input": job.manifest.input.name,
            "options": job.options.given(),
            "plugins": str(plugins) if plugins else None,
            "timing_cache": _timing_cache(job, library) if timing else None,
            "inspect": inspect,
        }
        build_in_child(request, job.progress, job.options.timeout_s)


def _timing_cache(job: BuildJob, library: str) -> str:
    return str(Path(job.options.timing_cache or job.folder.engines / f".timing-{library}.cache").absolute())


def _element_types(model: onnx.ModelProto) -> dict[str, str]:
    """numpy dtype names of the graph's inputs and outputs."""
    stored = {tensor.name for tensor in model.graph.initializer}
    values = [*(value for value in model.graph.input if value.name not in stored), *model.graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return {name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name for name, kind in kinds.items()}


def load(trt: Any, name: str, directory: Path, precision: str, cuda: Cuda | None = None) -> NvidiaSession:
    """Open what ``build`` wrote; its files were verified.

    Raises:
        BackendError: the library refuses the engine, or a CUDA call fails.
    """
    if cuda is None:
        if reason := why_no_gpu():
            raise BackendError(
                f"{name}: {reason}", "an NVIDIA GPU to run the engine", "copy the model folder to a machine that has one"
            )
        cuda = Cuda()
    said = json.loads((directory / IO).read_bytes())
    opened = open_engine(
        trt,
        (directory / ENGINE).read_bytes(),
        plugins=plugin_path() if said["plugins"] else None,
        jit_cache=directory.parent / f".jit-{directory.name}.cache",
        dtypes=said["dtypes"],
    )
    return FrameSession(opened, name, precision, cuda)


def plugin_path() -> Path:
    """The plugin library, checked.

    Raises:
        BackendError: it is missing, or not safe to load; says how to build it.
    """
    return Path(plugin_library().path)
