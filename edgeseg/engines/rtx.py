"""TensorRT-RTX: engines for the GPUs of PCs, built ahead of time with or without one and finished by the driver on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt_rtx as trt

from edgeseg.engines.lowering import to_primitive
from edgeseg.engines.nvidia import backend
from edgeseg.engines.nvidia.builder import check_targets
from edgeseg.engines.nvidia.device import gpu, why_no_gpu
from edgeseg.engines.nvidia.rules import check_for_rtx
from edgeseg.engines.nvidia.runner import NvidiaSession
from edgeseg.engines.options import differ_in_options_alone
from edgeseg.engines.session import BuildJob

NAME = "rtx"
PRECISIONS = ("fp32", "fp16", "int8")
# Hardware and version compatibility, refit and the DLA are refused by the library or without effect in it.
OPTIONS = ("shapes", "workspace_mb", "targets", "timeout_s")
THREADED = False
_TARGETS = "option.targets"


def available() -> str | None:
    return None


def runnable() -> str | None:
    return why_no_gpu() or None


def version() -> str:
    return str(trt.__version__)


def supports(precision: str) -> str | None:
    return None


def device_fields() -> dict[str, str]:
    """Nothing of the machine: an engine is for its targets, wherever it was built."""
    return {}


def serves(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """An engine built with options serves where none are asked for, if the GPU that is here is among its targets."""
    here = gpu()
    return here is not None and here.sm in found.get(_TARGETS, [here.sm]) and differ_in_options_alone(found, wanted)


def targets() -> list[str]:
    """What ``--target`` takes."""
    names = (name.lower() for name in dir(trt.ComputeCapability) if name.startswith("SM"))
    return sorted(names, key=lambda name: int(name[2:]))


def build(job: BuildJob) -> None:
    """Build for ``options.targets``, by default for every GPU from Ampere on.

    Raises:
        BackendError: the graph holds what TensorRT-RTX has not: names the node and the reason; or an option is refused.
    """
    check_targets(job.options.targets, targets())
    model = to_primitive(job.graph())
    check_for_rtx(model)
    backend.build(job, trt.__name__, backend.typed(model, job.precision), timing=False, inspect=False)


def load(directory: Path, precision: str, threads: int) -> NvidiaSession:
    """Open the engine on the first GPU. ``threads`` says nothing there."""
    return backend.load(trt, NAME, directory, precision)
