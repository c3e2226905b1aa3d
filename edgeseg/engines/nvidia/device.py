"""The GPU and its driver, asked without making a CUDA context: the process that asks may never run anything on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MISSING_BINDINGS = "cuda-python is not installed: pip install 'cuda-python>=12.6.1'"


@dataclass(frozen=True)
class Gpu:
    """Name, compute capability as TensorRT names it (sm87), driver version and memory of a GPU."""

    name: str
    sm: str
    driver: str
    memory_mb: int


@cache
def gpu(index: int = 0) -> Gpu | None:
    """The GPU of that index; None where there is none, which ``why_no_gpu`` explains."""
    found = _ask(index)
    return found if isinstance(found, Gpu) else None


@cache
def why_no_gpu(index: int = 0) -> str:
    """Empty where there is a GPU, else the reason in a few words."""
    found = _ask(index)
    return found if isinstance(found, str) else ""


@cache
def _ask(index: int) -> Gpu | str:
    try:
        from cuda.bindings import driver
    except ImportError:
        return MISSING_BINDINGS
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:  # the bindings find no libcuda: each version has another subclass for it
        return "no NVIDIA driver on this machine"
    if int(status):
        return f"no NVIDIA GPU (CUDA error {int(status)}, {status.name})"
    status, count = driver.cuDeviceGetCount()
    if int(status) or count <= index:
        return f"no NVIDIA GPU number {index} (there are {0 if int(status) else count})"
    return _describe(driver, index)


def _describe(driver: object, index: int) -> Gpu:
    def value(answer: tuple) -> object:
        return answer[1]

    attributes = driver.CUdevice_attribute  # type: ignore[attr-defined]
    device = value(driver.cuDeviceGet(index))  # type: ignore[attr-defined]
    major, minor = (
        value(driver.cuDeviceGetAttribute(getattr(attributes, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), device))  # type: ignore[attr-defined]
        for part in ("MAJOR", "MINOR")
    )
    raw = value(driver.cuDeviceGetName(128, device))  # type: ignore[attr-defined]
    name = raw.split(b"\0")[0].decode() if isinstance(raw, bytes) else str(raw)
    memory = int(value(driver.cuDeviceTotalMem(device)))  # type: ignore[attr-defined, call-overload]
    api = int(value(driver.cuDriverGetVersion()))  # type: ignore[attr-defined, call-overload]
    return Gpu(name, f"sm{major}{minor}", driver_version(api), memory >> 20)


def driver_version(api: int, root: Path = Path("/")) -> str:
    """The kernel driver's version where it says so (a Jetson: that of L4T), and the CUDA version that it brings."""
    cuda = f"CUDA {api // 1000}.{api % 1000 // 10}"
    for file, pattern in (
        ("proc/driver/nvidia/version", r"\s(\d+\.\d+(?:\.\d+)?)\s"),
        ("etc/nv_tegra_release", r"(R\d+.*?REVISION: [\d.]+)"),
    ):
        try:
            found = re.search(pattern, (root / file).read_text(errors="replace"))
        except OSError:
            continue
        if found:
            return f"{found.group(1)}, {cuda}"
    return cuda
