"""Builds the plugin library on this machine, from the sources that came with the package."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BackendError
from edgeseg.files import atomic_path, check_writable
from edgeseg.plugins.library import FILE, PluginLibrary, plugins_directory

HEADER = "NvInferRuntime.h"
_CUDA = Path("/usr/local/cuda")  # where JetPack and the toolkit put themselves, on no PATH


@dataclass(frozen=True)
class Toolchain:
    """What a build needs: our sources, CMake, nvcc, and the directory given as TENSORRT_ROOT."""

    sources: Path
    cmake: Path
    nvcc: Path
    tensorrt_root: Path
    tensorrt_version: str


def find_toolchain(tensorrt_root: Path | None = None) -> Toolchain:
    """Everything that a build needs.

    Raises:
        BackendError: names every missing thing and how to get it.
    """
    root = _headers(tensorrt_root)
    if tensorrt_root is not None and root is None:
        raise BackendError(f"{tensorrt_root}: no {HEADER}", f"a directory with include/{HEADER}", "name TensorRT's own directory")
    parts = {
        "plugin sources": (_sources(), "reinstall edgeseg"),
        "CMake": (_tool("cmake"), "pip install cmake"),
        "C++ compiler": (_tool(os.environ.get("CXX") or "c++", "g++"), "apt install g++"),
        "make": (_tool("make", "ninja"), "apt install make"),
        "nvcc": (_nvcc(), "install the CUDA toolkit (on a Jetson: apt install cuda-toolkit)"),
        "TensorRT headers": (
            root,
            f"apt install libnvinfer-headers-dev, or --tensorrt-root DIR with include/{HEADER}",
        ),
    }
    if missing := [name for name, (path, _) in parts.items() if path is None]:
        fixes = "; ".join(f"{name}: {fix}" for name, (path, fix) in parts.items() if path is None)
        raise BackendError(f"the plugins cannot be built here: no {', no '.join(missing)}", fix=fixes)
    found = {name: Path(str(path)) for name, (path, _) in parts.items()}
    include = found["TensorRT headers"]
    return Toolchain(found["plugin sources"], found["CMake"], found["nvcc"], include, _version(include))


def build(
    directory: Path | None = None,
    *,
    tensorrt_root: Path | None = None,
    architectures: str = "",
    on_line: Callable[[str], None] = lambda line: None,
) -> PluginLibrary:
    """Compile the library and put it into ``directory`` (by default where engines look for it), whole or not at all.

    Args:
        architectures: such as "87" or "86,89"; by default this Jetson's own, else all that nvcc knows.
        on_line: called with each line of the compiler's output.

    Raises:
        BackendError: something is missing, an architecture is no number, or the compiler failed; its error is told.
        EdgesegError: the directory cannot be written.
    """
    target = plugins_directory() if directory is None else directory
    wanted = _architectures(architectures)
    tools = find_toolchain(tensorrt_root)
    check_writable(target)
    with tempfile.TemporaryDirectory(prefix="edgeseg-plugins-") as scratch:
        options = [f"-DTENSORRT_ROOT={tools.tensorrt_root}", f"-DCMAKE_CUDA_COMPILER={tools.nvcc}", "-DEDGESEG_CUDA=ON"]
        options += [f"-DCMAKE_CUDA_ARCHITECTURES={wanted}"] if wanted else []
        _run([str(tools.cmake), "-S", str(tools.sources), "-B", scratch, "-DCMAKE_BUILD_TYPE=Release", *options], on_line)
        jobs = str(min(os.cpu_count() or 1, 4))  # nvcc takes about 1 GB for each
        _run([str(tools.cmake), "--build", scratch, "--target", "edgeseg_trt", "-j", jobs], on_line)
        with atomic_path(target / FILE) as temporary:
            shutil.copyfile(Path(scratch) / FILE, temporary)
            temporary.chmod(0o755)  # whatever the umask says: others may not write what TensorRT loads
    return PluginLibrary((target / FILE).resolve())


def _architectures(text: str) -> str:
    names = [name.strip().removeprefix("sm_") for name in text.split(",") if name.strip()]
    if any(not re.fullmatch(r"[1-9]\d{1,2}[af]?", name) for name in names):
        raise BackendError(f"--arch {text}", "numbers such as 87 or 86,89", "see https://developer.nvidia.com/cuda-gpus")
    return ";".join(f"{name}-real" for name in names)


# --- what is on this machine -------------------------------------------------------------------------------------


def _sources() -> Path | None:
    here = Path(__file__).resolve().parent
    places = (here / "src", here.parent.parent / "trt_plugins")  # of a wheel, of a checkout
    return next((place for place in places if (place / "plugin" / "entry.cpp").is_file()), None)


def _tool(*names: str) -> Path | None:
    beside = Path(sys.executable).parent  # pip's scripts, also where the environment is not activated
    found = [shutil.which(name) or shutil.which(name, path=str(beside)) for name in names]
    return next((Path(path) for path in found if path), None)


def _nvcc() -> Path | None:
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [Path(os.environ.get("CUDACXX") or "nvcc"), *(home / "bin" / "nvcc" for home in (*homes, _CUDA))]
    return next((Path(path) for place in places if (path := shutil.which(str(place)))), None)


def _headers(given: Path | None) -> Path | None:
    named = os.environ.get("TENSORRT_ROOT")
    roots = [given] if given else [Path(named)] if named else []
    roots = roots or [Path("/usr"), Path("/usr/local"), Path("/usr/local/tensorrt"), Path("/opt/tensorrt")]
    return next((root for root in roots if _include(root)), None)


def _include(root: Path) -> Path | None:
    machine = sysconfig.get_config_var("MULTIARCH") or "none"
    places = (root / "include", root / "include" / machine, root)
    return next((place for place in places if (place / HEADER).is_file()), None)


def _version(root: Path) -> str:
    header = (_include(root) or root) / "NvInferVersion.h"
    try:
        text = header.read_text(errors="replace")
    except OSError:
        return "unknown"
    # Newer headers give the numbers under names of their own.
    pattern = r"#define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)?\s+(\d+)"
    found = [re.search(pattern.replace("{part}", part), text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(match.group(1) for match in found if match) or "unknown"


# --- the compiler ------------------------------------------------------------------------------------------------


def _run(command: list[str], on_line: Callable[[str], None]) -> None:
    """Run a build tool in a group of its own, which ends with us however we end."""
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                on_line(lines[-1])
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise BackendError(f"{Path(command[0]).name}: {_first_error(lines)}", fix="EDGESEG_DEBUG=1 shows the whole output")


def _first_error(lines: list[str]) -> str:
    telling = [index for index, line in enumerate(lines) if re.search(r"\berror\b", line, re.IGNORECASE)]
    if not telling:
        return lines[-1] if lines else "failed"
    first = lines[telling[0]]
    # CMake tells the reason on the lines below.
    rest = lines[telling[0] + 1 : telling[0] + 4] if first.startswith("CMake Error") else []
    return " ".join([first, *(line.strip() for line in rest if line.strip())])[:500]
