"""gpu_check's cases over the kernels' own source, run on the host: what the GPU will be asked, asked beforehand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.ops.launch import Library
from tests.ops import host_cuda

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tools"))

pytest.importorskip("torch", reason="gpu_check's oracles need torch")

from gpu_check_lib.check import run_case  # noqa: E402
from gpu_check_lib.device import Device  # noqa: E402
from gpu_check_lib.operators import all_cases  # noqa: E402

PLUGINS = ROOT / "trt_plugins"
KERNELS = {
    "roi_align": ["roi_align"],
    "upsample_argmax": ["upsample_argmax"],
    "frame": ["preprocess", "overlay"],
    "max_pool": ["max_pool_argmax", "max_unpool", "max_pool_indices", "max_unpool_indices"],
}


def kernels_on_the_host(name: str, directory: Path) -> Library:
    """The launchers of trt_plugins/NAME over host memory."""
    if name != "max_pool":
        return host_cuda.build(PLUGINS / name / f"{name}.cu", directory)
    compiler = shutil.which("g++") or pytest.skip("no g++ to run the kernels on the host with")
    source, built = ROOT / "tests" / "ops" / "max_pool_items.cpp", directory / "items.so"
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{PLUGINS}"]
    subprocess.run([compiler, *options, str(source), "-o", str(built)], check=True)
    return Library(built, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_every_case_holds_for_the_kernel_itself(name: str, tmp_path: Path) -> None:
    device = Device(kernels_on_the_host(name, tmp_path), "cpu")
    cases = [replace(case, refused=case.refused is True) for case in all_cases(KERNELS[name], quick=True)]
    if name == "roi_align":  # a thread at a time it is slow: one format of each type
        formats = {("float32", "linear"), ("float16", "hwc8"), ("int8", "chw32")}
        cases = [case for case in cases if (case.dtype, case.format) in formats]
    problems = {}
    for case in cases:
        try:
            problems[case.name] = run_case(case, device, None)["problems"]
        except ValueError as error:
            problems[case.name] = [str(error)]
    assert len(cases) > 30
    assert not {case: found for case, found in problems.items() if found}
