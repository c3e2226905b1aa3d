"""The compilers and headers that the tests of trt_plugins/ need, with the reason where one is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "trt_plugins"
ARCHITECTURES = (75, 87, 89, 90, 110, 120)
KERNELS = sorted(SOURCES.glob("*/*.cu"))
TWINS = sorted(SOURCES.glob("*/*_cpu.cpp"))
_TIMEOUT_S = 600


def nvcc() -> Path | None:
    """nvcc of the toolkit itself: its own path tells where the toolkit lies."""
    found = shutil.which(os.environ.get("CUDACXX") or "nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    return Path(found) if found else None


@cache
def known_architectures() -> frozenset[int]:
    compiler = nvcc()
    if compiler is None:
        return frozenset()
    done = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=False)
    return frozenset(int(number) for number in re.findall(r"sm_(\d+)\b", done.stdout))


@cache
def toolkit_include() -> Path | None:
    """The folder of cuda_runtime_api.h, which nvcc names in a dry run."""
    places = [Path("/usr/local/cuda/include")]
    if compiler := nvcc():
        done = subprocess.run([compiler, "--dryrun", "-x", "cu", "-c", "/dev/null"], capture_output=True, text=True, check=False)
        places += [Path(place) for place in re.findall(r'"-I([^"]+)"', done.stderr)]
    return next((place.resolve() for place in places if (place / "cuda_runtime_api.h").is_file()), None)


def tensorrt_roots() -> list[Path]:
    """``$TENSORRT_ROOT``: a directory with TensorRT's headers, or several with ``:`` between them."""
    return [Path(part) for part in os.environ.get("TENSORRT_ROOT", "").split(":") if part]


def run(*command: object) -> str:
    """What a tool said; a failure shows it all."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{said[-6000:]}"
    return said


def warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if re.search(r"\bwarning\b", line, re.IGNORECASE)]
