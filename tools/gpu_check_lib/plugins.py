"""Where TensorRT's headers are given: build the plugins with their harness and drive every plugin's ``enqueue`` through it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from gpu_check_lib.build import PLUGINS, find_nvcc

LIBRARY = {"cuda": "libedgeseg_trt.so", "cpu": "libedgeseg_trt_host.so"}
HARNESS = "edgeseg_plugin_harness"


def drive(root: str | None, kind: str, capability: str, folder: Path, limit_s: float) -> dict[str, Any]:
    """Record with "skipped", or "problems" and the harness's "summary".

    Args:
        root: TensorRT's root with include/NvInferRuntime.h.
        kind: "cuda": the real launchers on device memory; "cpu": the twins on host memory.
    """
    if not root:
        return {"skipped": "no TENSORRT_ROOT: the plugins need TensorRT's headers"}
    cmake = shutil.which("cmake")
    if not cmake:
        return {"skipped": "no cmake on the PATH: the plugin harness is built with it"}
    started = time.monotonic()
    try:
        problem = _build(cmake, root, kind, capability, folder, limit_s)
        if problem:
            return {"problems": [problem]}
        record = _run(kind, folder, max(5.0, limit_s - (time.monotonic() - started)))
    except subprocess.TimeoutExpired as error:
        return {"problems": [f"no end within {error.timeout:.0f} s: {Path(error.cmd[0]).name}"]}
    return {**record, "tensorrt_root": root, "seconds": round(time.monotonic() - started, 1)}


def _build(cmake: str, root: str, kind: str, capability: str, folder: Path, limit_s: float) -> str:
    """What went wrong, or nothing."""
    nvcc = find_nvcc()
    cuda = [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={capability}-real"] if kind == "cuda" else []
    options = [f"-DTENSORRT_ROOT={root}", "-DEDGESEG_HARNESS=ON", f"-DEDGESEG_CUDA={'ON' if kind == 'cuda' else 'OFF'}", *cuda]
    targets = ["--target", "edgeseg_trt" if kind == "cuda" else "edgeseg_trt_host", HARNESS]
    for command in (
        [cmake, "-S", str(PLUGINS), "-B", str(folder), *options],
        [cmake, "--build", str(folder), f"-j{os.cpu_count() or 1}", *targets],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line] or ["failed"]
            return f"{' '.join(command[:2])}: {lines[0].strip()[:300]}"
    return ""


def _run(kind: str, folder: Path, limit_s: float) -> dict[str, Any]:
    library, harness = (next(folder.rglob(name)) for name in (LIBRARY[kind], HARNESS))
    command = [str(harness), str(library), *(["--cuda"] if kind == "cuda" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    summary = lines[-1] if lines else f"exit code {done.returncode}"
    failed = [line for line in lines if "FAIL" in line.upper() and line != summary]
    return {"problems": (failed or [summary]) if done.returncode else [], "summary": summary}
