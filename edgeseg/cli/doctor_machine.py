"""Doctor's checks of the processor, the inference backends and our native kernels."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeseg import __version__
from edgeseg.cli.doctor import Finding

_ISA = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
_FOR = {
    "ort": "the CPU backend that runs everywhere, calibration, and import",
    "openvino": "the fastest backend on x86 CPUs",
    "torch": "training and export; not needed on a device",
    "tensorrt": "INT8 and FP16 on servers and Jetsons",
    "rtx": "INT8 and FP16 on the GPUs of PCs; builds without one",
    "ort-cuda": "ONNX Runtime on NVIDIA GPUs",
}


def package_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_fields() -> dict[str, str]:
    """First processor of /proc/cpuinfo; empty where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def memory_gib() -> tuple[float, float]:
    """(total, available) memory in GiB from /proc/meminfo; zeros where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0, 0.0
    values = {line.split(":")[0]: int(line.split()[1]) / (1 << 20) for line in lines if len(line.split()) >= 2}
    return values.get("MemTotal", 0.0), values.get("MemAvailable", 0.0)


def machine() -> Iterator[Finding]:
    """Python, processor, instruction sets and memory."""
    fields = cpu_fields()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = memory_gib()
    yield Finding("edgeseg", None, __version__)
    yield Finding("python", None, f"{platform.python_version()} at {sys.executable}")
    yield Finding("system", None, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding("processor", None, f"{fields.get('model name') or platform.processor() or 'unknown'}, {cores} usable cores")
    yield Finding("instruction sets", None, ", ".join(name for flag, name in _ISA.items() if flag in flags) or "none known")
    yield Finding("memory", None, f"{total:.1f} GiB, {free:.1f} GiB available")


def backends() -> Iterator[Finding]:
    """Each backend with its version and the precisions this machine runs, or why it is missing."""
    from edgeseg.engines.session import BACKENDS, get_backend, how_to_install, not_runnable
    from edgeseg.errors import BackendError

    for name in BACKENDS:
        try:
            backend = get_backend(name)
        except BackendError as error:
            yield Finding(name, False, error.what, _FOR.get(name, "inference"), how_to_install(name))
            continue
        kinds = [kind for kind in backend.PRECISIONS if backend.supports(kind) is None]
        builds = f"; builds engines, cannot run them here: {reason}" if (reason := not_runnable(backend)) else ""
        yield Finding(name, True, f"{backend.version()}: {', '.join(kinds)}{builds}")


def kernels() -> Iterator[Finding]:
    """Our compiled kernels and the instruction set they use here."""
    purpose = "preprocessing, upsampling with argmax and overlays in one pass"
    try:
        from edgeseg.native import _kernels
    except ImportError as error:
        yield Finding("native kernels", False, str(error), purpose, "pip install edgeseg again, with a C++ compiler at hand")
        return
    yield Finding("native kernels", True, f"{_kernels.isa()} in use, this CPU runs {', '.join(_kernels.isa_names())}")
