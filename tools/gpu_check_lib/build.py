"""Compile the kernels for one GPU with nvcc, the CPU twins with c++, the sanitizer's probe: no CMake, nothing installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGINS = ROOT / "trt_plugins"
# Those of trt_plugins/CMakeLists.txt, so that what is checked here is what is shipped.
CPU_FLAGS = ["-O3", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
CUDA_FLAGS = ["-O3", "-std=c++17", "-fmad=false", "-lineinfo", "-Xcompiler=-fPIC,-Wall,-Wextra", "-cudart", "static"]


class BuildError(Exception):
    """A compiler is missing or refused a source; the message is for the user."""


@dataclass(frozen=True)
class Built:
    """A library and what it took."""

    path: Path
    seconds: float
    warnings: list[str]


def find_nvcc() -> Path | None:
    """``$CUDACXX``, nvcc on the PATH, or the toolkit's usual places."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [os.environ.get("CUDACXX"), shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def nvcc_version(nvcc: Path) -> str:
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release [\d.]+, V([\d.]+)", text)
    return found[1] if found else "unknown"


def architecture_flag(nvcc: Path, capability: str) -> str:
    """-gencode for a compute capability such as "90"; PTX of the newest one below it where this nvcc does not know the card.

    Raises:
        BuildError: this nvcc makes nothing that the card runs.
    """
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False).stdout
    known = sorted(int(number) for number in re.findall(r"compute_(\d+)\b", listed))
    wanted = int(capability)
    if wanted in known:
        return f"-gencode=arch=compute_{wanted},code=sm_{wanted}"
    below = [number for number in known if number < wanted]
    if known and (not below or wanted < known[0]):
        raise BuildError(
            f"{nvcc} compiles for compute capability {known[0]} and up, the card has {wanted}; fix: an older CUDA toolkit"
        )
    newest = below[-1] if below else wanted
    return f"-gencode=arch=compute_{newest},code=compute_{newest}"


def cuda_sources() -> list[Path]:
    """Every kernel file of trt_plugins."""
    return sorted(path for path in PLUGINS.glob("*/*.cu") if path.parent.name != "harness")


def cpu_sources() -> list[Path]:
    return sorted([*PLUGINS.glob("*/*_cpu.cpp"), PLUGINS / "common" / "parallel.cpp"])


def build_cuda(nvcc: Path, capability: str, folder: Path) -> Built:
    """libedgeseg_kernels.so with the CUDA launchers of every kernel file.

    Raises:
        BuildError: with the compiler's words.
    """
    sources = cuda_sources()
    if not sources:
        raise BuildError(f"{PLUGINS}: no kernel files (*/*.cu)")
    flag = architecture_flag(nvcc, capability)
    link = [
        str(nvcc),
        flag,
        "-shared",
        "-cudart",
        "static",
        "-Xlinker",
        "--no-undefined",
        "-Xlinker",
        "--version-script=kernels.map",
    ]
    # nvcc splits what it hands to the linker at spaces: the script is named from where it runs.
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PLUGINS / "cmake" / "kernels.map", folder / "kernels.map")
    return _build([str(nvcc), flag, *CUDA_FLAGS], sources, link, folder / "libedgeseg_kernels.so")


def build_twins(folder: Path) -> Built:
    """libedgeseg_ops.so with the CPU twins.

    Raises:
        BuildError: no compiler, or its words.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        raise BuildError("no C++ compiler on the PATH; fix: install g++")
    link = [compiler, "-shared", "-pthread", "-Wl,--no-undefined"]
    return _build([compiler, *CPU_FLAGS, "-Wall", "-Wextra"], cpu_sources(), link, folder / "libedgeseg_ops.so")


def build_probe(nvcc: Path, capability: str, folder: Path) -> Path:
    """The program with a good and a bad kernel, on which the sanitizer shows that it sees."""
    program = folder / "probe"
    _run([str(nvcc), architecture_flag(nvcc, capability), "-O1", str(Path(__file__).parent / "probe.cu"), "-o", str(program)])
    return program


def _build(compile_: list[str], sources: list[Path], link: list[str], library: Path) -> Built:
    started, library = time.monotonic(), library.absolute()
    library.parent.mkdir(parents=True, exist_ok=True)
    objects = [library.parent / f"{library.stem}-{path.parent.name}-{path.name}.o" for path in sources]
    with ThreadPoolExecutor(max(1, min(len(sources), os.cpu_count() or 1))) as pool:
        pairs = zip(sources, objects, strict=True)
        said = list(pool.map(lambda pair: _run([*compile_, "-c", str(pair[0]), "-o", str(pair[1])]), pairs))
    _run([*link, *map(str, objects), "-o", str(library)], library.parent)
    warnings = [line for text in said for line in text.splitlines() if "warning" in line.lower()]
    return Built(library, time.monotonic() - started, warnings)


def _run(command: list[str], folder: Path | None = None) -> str:
    """What the compiler said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{(done.stderr or done.stdout).strip()[-4000:]}")
    return done.stdout + done.stderr
