"""Compile a ``.cu`` file of trt_plugins for the host (host_cuda.h): its kernels run without a GPU, thread by thread."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeseg.ops import launch

ROOT = Path(__file__).resolve().parents[2]
_LAUNCH = re.compile(r"(\w+(?:<[\w, ]+>)?)<<<(.*?), (\w+), [^;]*?>>>\((.*?)\);", re.DOTALL)


def build(source: Path, directory: Path) -> launch.Library:
    """The file's launchers as a library of kind "cuda" whose pointers are the host's.

    Skips the test where there is no C++ compiler.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to run the kernels on the host with")
    translated, built = directory / f"{source.stem}.cpp", directory / f"lib{source.stem}.so"
    translated.write_text('#include "host_cuda.h"\n' + _translate(source.read_text()))
    includes = [f"-I{Path(__file__).parent}", f"-I{source.parent}"]
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
    subprocess.run([compiler, *options, *includes, str(translated), "-o", str(built)], check=True)
    return launch.Library(built, "cuda")


def _translate(text: str) -> str:
    """Launches become calls; what CUDA's own headers and compiler would bring comes from host_cuda.h."""
    text = text.replace("#include <cuda_runtime.h>", "").replace(
        "extern __shared__ float shared[];", "static float shared[1 << 16];"
    )
    text = re.sub(r"^\s*#pragma unroll.*$", "", text, flags=re.MULTILINE)
    translated, found = _LAUNCH.subn(r"host_cuda::launch(\2, \3, [=] { \1(\4); });", text)
    if not found:
        raise ValueError("no kernel launch found")
    return translated
