"""What a child process can be asked to do: a function per stage, from the specification to the work on one item."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from edgeseg.ops import launch
from gpu_check_lib.case import Case
from gpu_check_lib.check import bound, run_case
from gpu_check_lib.device import GUARD, Device
from gpu_check_lib.operators import all_cases

Specification = dict[str, Any]
Work = Callable[[str], dict[str, Any]]


def _device(specification: Specification, guard: int = GUARD) -> Device:
    kind = specification["device"]
    return Device(launch.Library(specification["library"], kind), kind, guard=guard)


def _cases() -> dict[str, Case]:
    return {case.name: case for case in all_cases()}


def correctness(specification: Specification) -> Work:
    """Items are names of cases; ``library`` runs them, ``twins`` (or null) is the CPU library to compare with."""
    if specification["device"] == "cpu":
        torch.set_num_threads(1)  # many small steps: more threads only wait for each other
    device, cases = _device(specification), _cases()
    twin = Device(launch.Library(specification["twins"], "cpu"), "cpu") if specification.get("twins") else None
    return lambda name: run_case(cases[name], device, twin)


def sanitize(specification: Specification) -> Work:
    """Items are names of cases, each launched once over arrays of their exact size; the sanitizer watches."""
    device, cases = _device(specification, guard=0), _cases()

    def work(name: str) -> dict[str, Any]:
        case = cases[name]
        from gpu_check_lib.operators import module_of

        call = bound(case, module_of(case.operator).inputs(case), device)
        call.run()
        return {"problems": []}

    return work


def machine(specification: Specification) -> Work:
    """One item: what torch tells of the GPU."""
    return lambda _: {"gpu": describe_gpu()}


def speed(specification: Specification) -> Work:
    """Items are names of speed cases; see timing.py."""
    from gpu_check_lib.speed import workloads
    from gpu_check_lib.timing import Bench

    bench = Bench(_device(specification, guard=0), quick=specification["quick"])
    return lambda name: bench.run(workloads(bench.host)[name])


def describe_gpu() -> dict[str, Any]:
    """The first GPU as torch sees it, or why there is none."""
    info: dict[str, Any] = {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "available": torch.cuda.is_available()}
    try:
        info["torchvision"] = import_module("torchvision").__version__
    except Exception as error:
        # A torchvision built for another torch fails in many ways; it is a contestant, no requirement.
        info["torchvision"], info["torchvision_problem"] = None, f"{type(error).__name__}: {error}".splitlines()[0]
    if not info["available"]:
        return info
    properties = torch.cuda.get_device_properties(0)
    return {
        **info,
        "name": properties.name,
        "capability": f"{properties.major}{properties.minor}",
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "processors": properties.multi_processor_count,
    }
