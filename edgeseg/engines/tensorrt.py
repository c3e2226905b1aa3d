"""TensorRT 10.3 to 11: INT8 as explicit Q/DQ and FP16 as types of the graph, our operators as plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt as trt

from edgeseg.engines.lowering import to_plugins
from edgeseg.engines.nvidia import backend
from edgeseg.engines.nvidia.device import gpu, why_no_gpu
from edgeseg.engines.nvidia.runner import NvidiaSession
from edgeseg.engines.options import differ_in_options_alone
from edgeseg.engines.session import BuildJob
from edgeseg.errors import BackendError
from edgeseg.ops import functions
from edgeseg.plugins import plugin_library

NAME = "tensorrt"
PRECISIONS = ("fp32", "fp16", "int8")
OPTIONS = (
    *("shapes", "workspace_mb", "timing_cache", "builder_level", "dla_core", "allow_gpu_fallback", "hardware_compatible"),
    *("version_compatible", "refit", "timeout_s"),
)
THREADED = False


def available() -> str | None:
    return why_no_gpu() or (None if hasattr(trt, "Builder") else "only a TensorRT runtime is installed, without its builder")


def version() -> str:
    return str(trt.__version__)


def supports(precision: str) -> str | None:
    return None


def device_fields() -> dict[str, str]:
    """What an engine depends on besides the graph: GPU, driver, and the plugin library by its content."""
    found = gpu()
    if found is None:
        raise BackendError(f"tensorrt: {why_no_gpu()}", fix="`edgeseg doctor` shows what this machine runs")
    return {"gpu": found.name, "sm": found.sm, "driver": found.driver, "plugins": _plugins_sha256()}


def _plugins_sha256() -> str:
    try:
        return plugin_library().sha256
    except BackendError:
        return "none"


def serves(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """An engine built with options serves where none are asked for."""
    return differ_in_options_alone(found, wanted)


def build(job: BuildJob) -> None:
    """Build for this GPU, and describe the layers of the result.

    Raises:
        BackendError: the graph or an option is refused, or the plugin library is missing where the graph needs it.
    """
    model = backend.typed(to_plugins(job.graph()), job.precision)
    ours = any(functions.is_ours(node) for node in functions.walk(model.graph))
    backend.build(job, trt.__name__, model, plugins=backend.plugin_path() if ours else None)


def load(directory: Path, precision: str, threads: int) -> NvidiaSession:
    """Open the engine on the first GPU. ``threads`` says nothing there."""
    return backend.load(trt, NAME, directory, precision)
