"""The kernels compile for every GPU that is meant, without a warning, and for aarch64."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trt_plugins.toolchain import ARCHITECTURES, KERNELS, TWINS, known_architectures, nvcc, run, toolkit_include, warnings

FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Xcompiler=-fPIC,-Wall,-Wextra", "-c"]  # those of trt_plugins/CMakeLists.txt
CROSS = "aarch64-linux-gnu-g++"
LAUNCHERS = {
    "frame": {"edgeseg_preprocess_cuda", "edgeseg_overlay_cuda"},
    "max_pool": {f"edgeseg_max_{name}_cuda" for name in ("pool_argmax", "pool_indices", "unpool", "unpool_indices")},
    "roi_align": {"edgeseg_roi_align_cuda"},
    "upsample_argmax": {"edgeseg_upsample_argmax_cuda"},
}

needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="no nvcc: install the CUDA toolkit, or name it in CUDACXX")
needs_cross = pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no {CROSS}: apt install g++-aarch64-linux-gnu")


def compile_kernel(source: Path, architectures: list[int], out: Path, *extra: str) -> str:
    """What nvcc says while it compiles ``source`` to ``out`` for all of ``architectures``."""
    missing = [number for number in architectures if number not in known_architectures()]
    if missing:
        pytest.skip(f"this nvcc knows no sm_{missing[0]}")
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    return run(nvcc(), *FLAGS, *codes, *extra, source, "-o", out)


def test_every_operator_has_a_kernel_file() -> None:
    assert {source.parent.name for source in KERNELS} == set(LAUNCHERS)


@needs_nvcc
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_file_compiles_without_a_warning(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "kernel.o"
    assert warnings(compile_kernel(source, [87], out)) == []
    symbols = {line.split()[-1] for line in run("nm", "--defined-only", "-g", out).splitlines() if " T " in line}
    assert LAUNCHERS[source.parent.name] <= symbols


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernels_compile_for_every_gpu(architecture: int, tmp_path: Path) -> None:
    for source in KERNELS:
        assert warnings(compile_kernel(source, [architecture], tmp_path / "kernel.o")) == [], source


@needs_nvcc
@needs_cross
@pytest.mark.slow
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_file_compiles_for_aarch64(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "kernel.o"
    include = toolkit_include()
    assert include is not None
    assert warnings(compile_kernel(source, [87], out, f"-ccbin={CROSS}", f"-I{include}")) == []
    assert "AArch64" in run("readelf", "-h", out)


@needs_cross
@pytest.mark.parametrize("source", TWINS, ids=lambda path: path.stem)
def test_a_twin_compiles_for_aarch64(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "twin.o"
    assert warnings(run(CROSS, "-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-c", source, "-o", out)) == []
    assert "AArch64" in run("readelf", "-h", out)
