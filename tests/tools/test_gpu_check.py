"""tools/gpu_check.py on machines with no GPU: its cases, oracles, timing and report over the CPU twins, and that it can fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "tools" / "gpu_check.py"
sys.path.append(str(SCRIPT.parent))

torch = pytest.importorskip("torch", reason="gpu_check's oracles need torch")

from gpu_check_lib import build, engines, plugins, report, sanitizer, stages  # noqa: E402
from gpu_check_lib.case import judge  # noqa: E402
from gpu_check_lib.operators import all_cases  # noqa: E402
from gpu_check_lib.operators.roi_align_oracle import Settings, roi_align  # noqa: E402
from gpu_check_lib.supervise import Limits, Outcome, run_stage  # noqa: E402

COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of CPU twins: the one named or installed, else compiled."""
    if named := os.environ.get("EDGESEG_OPS_LIBRARY"):
        return Path(named)
    from edgeseg.ops.launch import cpu_library

    try:
        return cpu_library().path
    except OSError:
        if not COMPILER:
            pytest.skip("no library of CPU twins and no C++ compiler to make one")
        return build.build_twins(tmp_path_factory.mktemp("twins")).path


@pytest.fixture(scope="session")
def host_run(twins: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One ``--host --quick`` run for all tests that read its report."""
    folder = tmp_path_factory.mktemp("gpu_check")
    return run("--host", "--quick", "--no-engines", "-o", str(folder), EDGESEG_OPS_LIBRARY=str(twins), TENSORRT_ROOT=""), folder


def test_every_case_holds_on_the_cpu_twins(host_run: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = host_run
    found = json.loads((folder / "gpu_check.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["finished"] and not report.problems(found)
    assert set(found["correctness"]["records"]) == {case.name for case in all_cases(quick=True)}
    compared = {name for record in found["correctness"]["records"].values() for name in record.get("errors", {})}
    assert {"oracle", "torch to the oracle", "torch grid_sample to the oracle"} <= compared


def test_a_host_run_times_but_never_passes_for_a_gpu(host_run: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = host_run
    found, text = json.loads((folder / "gpu_check.json").read_text()), (folder / "gpu_check.md").read_text()
    speed = found["speed"]["records"]
    assert {operator for record in speed.values() for operator in record["operators"]} >= {"roi_align", "max_unpool", "preprocess"}
    for record in speed.values():
        assert record["clock"] == "host, not a GPU figure"
        assert {"ours"} < set(record["contestants"])
        assert all(row["ms"] > 0 and row["mode"] == "host" for row in record["contestants"].values())
    assert "Not a GPU figure" in text and "| yes |" not in text and "host, not a GPU" in done.stdout


def test_the_list_of_cases_covers_what_it_promises() -> None:
    cases = all_cases()
    assert {case.operator for case in cases} == set(build_operators())
    assert len(all_cases(quick=True)) < len(cases)
    for operator in ("roi_align", "max_pool_argmax", "max_unpool", "upsample_argmax"):
        of_one = [case for case in cases if case.operator == operator]
        assert {(case.dtype, case.format) for case in of_one} >= {
            (dtype, format)
            for dtype in ("float32", "float16", "int8")
            for format in ("linear", "hwc", "hwc8", "hwc16", "chw4", "chw16", "chw32")
        }
        assert any(case.sanitize for case in of_one) and any(case.refused for case in of_one)


def build_operators() -> list[str]:
    from edgeseg.ops.launch import OPERATORS

    return list(OPERATORS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    done = run("-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no NVIDIA GPU" in done.stderr and "--host" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_operator_is_refused() -> None:
    done = run("--only", "roialign")
    assert done.returncode == 2 and "roialign" in done.stderr and "roi_align" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(build.find_nvcc() is None, reason="no nvcc")
def test_dry_run_compiles_the_kernels(tmp_path: Path) -> None:
    done = run("--dry-run", "--arch", "sm_90", "--build-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compiled for sm_90" in done.stdout and all(case.name in done.stdout for case in all_cases())
    from edgeseg.ops.launch import Library, Tensor

    library = Library(tmp_path / "libedgeseg_kernels.so", "cuda")
    assert all(library.has(operator) for operator in build_operators())
    assert library.unpool_workspace(Tensor(None, 0, 0, 1, 1, 8, 8)) >= 0


@pytest.mark.skipif(build.find_nvcc() is None, reason="no nvcc")
def test_architectures() -> None:
    nvcc = build.find_nvcc()
    assert nvcc is not None
    assert build.architecture_flag(nvcc, "90") == "-gencode=arch=compute_90,code=sm_90"
    assert ",code=compute_" in build.architecture_flag(nvcc, "999")  # a card to come: PTX
    with pytest.raises(build.BuildError, match="an older CUDA toolkit"):
        build.architecture_flag(nvcc, "20")


# --- judging -------------------------------------------------------------------------------------------------------------


def test_tolerances() -> None:
    one, half = np.float32([1.0]), np.float16([100.0])
    assert not judge(one, np.array([1 + 5e-6])).problem
    assert judge(one, np.array([1 + 5e-5])).problem
    assert not judge(half, np.array([100.04])).problem
    assert judge(half, np.array([100.2])).problem
    assert not judge(np.float16([np.inf]), np.array([1e6])).problem  # beyond the largest half
    nan = np.float32([np.nan])
    assert not judge(nan, nan).problem and judge(one, nan).problem and judge(nan, one).problem


def test_int8_is_exact_but_at_ties() -> None:
    codes = np.int8([2, 3, 127, -128])
    assert not judge(codes, np.array([2.4, 2.6, 300.0, -300.0])).problem
    assert not judge(np.int8([2, 3]), np.array([2.5, 2.5])).problem
    assert judge(np.int8([3]), np.array([2.4])).problem
    assert judge(np.int8([4]), np.array([2.5])).problem


def test_roi_align_oracle_on_a_ramp() -> None:
    """The average of x over a bin is the bin's centre, whatever is written in this repository."""
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    boxes = np.float32([[4.0, 6.0, 20.0, 24.0]])
    settings = Settings((2, 4), 3, False, True, [1.0], 224.0, 0)
    found = roi_align([ramp], boxes, np.zeros(1, np.int64), settings)[0, 0]
    np.testing.assert_allclose(found.numpy(), np.tile([5.5, 9.5, 13.5, 17.5], (2, 1)), rtol=1e-6)


# --- faults: the tool must find them, and go on ----------------------------------------------------------------------------

BAD_OVERLAY = """
#include <csignal>
#include <cstdlib>
#include <unistd.h>
#include "{plugins}/frame/frame.h"
extern "C" EsStatus edgeseg_overlay_cpu(const EsOverlay* a, int32_t) {{
  static int calls = 0;
  for (int y = 0; y < a->h; ++y)
    for (int i = 0; i < 3 * a->w; ++i) {{
      const unsigned char label = a->labels[y * a->w + i / 3], frame = a->frame[y * a->frame_stride + i];
      const int mixed = (frame * (256 - a->alpha) + a->palette_bgr[3 * label + i % 3] * a->alpha + 128) >> 8;
      a->out[y * a->out_stride + i] = label == 255 ? frame : mixed;
    }}
  ++calls;
  if (a->h == 33 || a->alpha == 77) switch (a->alpha == 77 ? -atoi(getenv("FAULT")) : atoi(getenv("FAULT"))) {{
    case 1: a->out[7] ^= 1; break;
    case 2: a->out[0] = calls; break;
    case 3: a->out[a->out_stride * a->h] = 1; break;
    case 4: a->out[-1] = 1; break;
    case 5: ((unsigned char*)a->labels)[3] ^= 1; break;
    case -6: a->out[3 * a->w] = 0; break;
    case 7: return "no";
    case 8: raise(SIGSEGV); break;
    case 9: sleep(1000);
  }}
  return nullptr;
}}
"""
FAULTS = {
    1: "oracle: out: 1 of",
    2: "a second run gave other bits",
    3: "wrote outside an array",
    4: "wrote outside an array",
    5: "wrote to an input",
    6: "wrote between the rows",
    7: "overlay: no",
}


@pytest.fixture(scope="session")
def bad_overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose overlay has the fault that $FAULT names, in one case of all."""
    if not COMPILER:
        pytest.skip("no C++ compiler to make a bad operator with")
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad.cpp").write_text(BAD_OVERLAY.format(plugins=build.PLUGINS))
    subprocess.run([COMPILER, "-shared", "-fPIC", "-w", str(folder / "bad.cpp"), "-o", str(folder / "bad.so")], check=True)
    return folder / "bad.so"


@pytest.mark.parametrize("fault", [0, *FAULTS])
def test_a_bad_operator_is_found(fault: int, bad_overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", str(fault))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # meant for a process of its own
    cases = [case.name for case in all_cases(["overlay"]) if not case.refused]
    work = stages.correctness({"device": "cpu", "library": str(bad_overlay)})
    failed = []
    for name in cases:
        try:
            failed += work(name)["problems"]
        except ValueError as error:
            failed.append(str(error))
    assert any(FAULTS[fault] in text for text in failed) if fault else not failed, failed


DEADLY = [(7, "ValueError: overlay: no"), (8, "signal 11"), pytest.param(9, "hung for", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("fault", "said"), DEADLY)
def test_a_dead_process_costs_its_case_alone(
    fault: int, said: str, bad_overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", str(fault))
    items = [case.name for case in all_cases(["overlay"]) if not case.refused]
    specification = {"stage": "correctness", "device": "cpu", "library": str(bad_overlay), "items": items}
    outcome = run_stage(specification, tmp_path, Limits(180, 20 if fault == 9 else 60))
    failed = [text for record in outcome.records.values() for text in record["problems"]]
    assert set(outcome.records) == set(items) and not outcome.stopped
    assert len(failed) == 1 and said in failed[0]


def test_a_stage_that_takes_too_long_says_what_it_left_out(twins: Path, tmp_path: Path) -> None:
    items = [case.name for case in all_cases(["overlay"])]
    specification = {"stage": "correctness", "device": "cpu", "library": str(twins), "items": items}
    outcome = run_stage(specification, tmp_path, Limits(0.2, 60))
    assert "time limit" in outcome.stopped and f"{len(items)} not run" in outcome.stopped


# --- sanitizer -----------------------------------------------------------------------------------------------------------

FAKE = """#!/bin/sh
# Stands for compute-sanitizer. Its words: --tool T --error-exitcode 86 ... then the probe and its mode, or python and the worker.
for word in "$@"; do last=$word; done
case "$last" in
  good) {good} ;;
  memory|race) {bad} ;;
esac
log=$(echo "$@" | sed 's/.*--log-file \\([^ ]*\\).*/\\1/; s/%p/1/')
{cases}
"""
RUNS = "exit 0"
SEES = "exit 86"
ERRORS = """
echo "========= Invalid __global__ write of size 4 bytes" > "$log"
echo "========= ERROR SUMMARY: 1 error" >> "$log"
exit 86
"""
SANITIZERS = {
    "does not run": ("echo '========= Error: Device not supported'; exit 1", SEES, RUNS, "skipped", "Device not supported"),
    "sees nothing": (RUNS, RUNS, RUNS, "problems", "blind"),
    "finds an error": (RUNS, SEES, ERRORS, "problems", "Invalid __global__ write"),
    "watches nothing": (RUNS, SEES, RUNS, "problems", "0 of 2 cases watched"),
}


@pytest.mark.parametrize("name", SANITIZERS)
def test_what_the_sanitizer_says_is_taken_for_what_it_is(name: str, tmp_path: Path) -> None:
    good, bad, cases, field, said = SANITIZERS[name]
    program = tmp_path / "compute-sanitizer"
    program.write_text(FAKE.format(good=good, bad=bad, cases=cases))
    program.chmod(0o755)
    probe = tmp_path / "probe"
    found = sanitizer._one(program, probe, "memcheck", tmp_path / "no.so", ["a", "b"], tmp_path, 30)
    assert said in " ".join(getattr(found, field) if field == "problems" else [found.skipped])
    assert bool(found.problems) == (field == "problems")


def test_cases_that_time_left_out_are_skipped_not_clean() -> None:
    outcome = Outcome({"a": {"problems": []}}, -9, "time limit of 9 s: 1 not run")
    found = sanitizer._finding("memcheck", outcome, [], 2)
    assert not found.problems and "1 of 2" in found.skipped
    assert not sanitizer._finding("memcheck", Outcome({"a": {"problems": []}}, 0), [], 1).skipped


def test_a_missing_sanitizer_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "find_sanitizer", lambda nvcc: None)
    (found,) = sanitizer.sanitize(Path("nvcc"), "90", tmp_path, ["a"], tmp_path, ["memcheck"], 9)
    assert "not found" in found.skipped and not found.problems


# --- report, plugins, engines ----------------------------------------------------------------------------------------------


def gpu_report() -> dict:
    times = {name: {"ms": ms, "p10_ms": ms, "p90_ms": ms, "runs": 9, "mode": "graph", "share_of_copy": 0.5} for name, ms in
             (("ours", 1.0), ("torch", 1.5))}  # fmt: skip
    goals = [
        {"goal": "at least 2x torch", "wanted": 2.0, "got": 1.5, "reached": False},
        {"goal": "at least 40% of copy bandwidth", "wanted": 0.4, "got": 0.5, "reached": True},
        {"goal": "at least 2x torchvision", "wanted": 2.0, "got": None, "reached": None},
    ]
    record = {
        "contestants": times, "absent": {"torchvision": "not installed"}, "goals": goals, "problems": [],
        "copy_gb_s": 100.0, "limit_ms": 0.5, "minimum_bytes": 5e7,
    }  # fmt: skip
    good = {"dtype": "float32", "problems": [], "errors": {"oracle": 1e-7}, "equals_twin": True}
    return {
        "mode": "gpu", "finished": True, "failures": [], "machine": {"commit": "abc", "date": "today"}, "gpu": {"name": "card"},
        "correctness": {"records": {"overlay: a": good}, "stopped": ""}, "speed": {"records": {"pool": record}, "stopped": ""},
        "sanitizer": [sanitizer.Finding("memcheck", cases=3).to_json()],
    }  # fmt: skip


def test_a_missed_goal_is_shown_and_no_failure() -> None:
    text = report.markdown(gpu_report())
    assert not report.problems(gpu_report())
    assert "| at least 2x torch | pool | 2 | 1.50 | **no** |" in text
    assert "| 0.50 | yes |" in text and "| not measured | not measured |" in text
    assert "1 of 1 cases" in text and "| memcheck | 3 | clean |" in text and "not here: not installed" in text


@pytest.mark.parametrize("stage", ["correctness", "speed", "sanitizer", "plugins", "build"])
def test_whatever_fails_is_a_failure(stage: str, tmp_path: Path) -> None:
    found = gpu_report()
    if stage == "sanitizer":
        found["sanitizer"][0]["problems"].append("Invalid read")
    elif stage == "plugins":
        found["plugins"] = {"problems": ["one check failed"]}
    elif stage == "build":
        found["failures"].append("build: error")
    else:
        found[stage]["records"]["bad"] = {"problems": ["off"]}
    assert len(report.problems(found)) == 1
    report.write(found, tmp_path)
    assert "1 problems" in (tmp_path / "gpu_check.md").read_text() and json.loads((tmp_path / "gpu_check.json").read_text())


def test_what_a_stage_left_out_is_a_failure() -> None:
    found = gpu_report()
    found["correctness"]["stopped"] = "time limit of 9 s: 4 not run"
    found["speed"]["stopped"] = "time limit of 9 s: 2 not run"
    assert report.problems(found) == ["correctness: time limit of 9 s: 4 not run"]
    assert "Not all was timed: time limit of 9 s: 2 not run" in report.markdown(found)


def test_plugins_are_skipped_without_headers(tmp_path: Path) -> None:
    assert "TENSORRT_ROOT" in plugins.drive(None, "cpu", "", tmp_path, 9)["skipped"]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TENSORRT_ROOT"), reason="no TENSORRT_ROOT with TensorRT's headers")
def test_plugins_are_driven_over_the_twins(tmp_path: Path) -> None:
    found = plugins.drive(os.environ["TENSORRT_ROOT"], "cpu", "", tmp_path, 600)
    assert not found["problems"] and "0 failed" in found["summary"]


def test_engines_come_from_edgeseg_itself() -> None:
    assert "camvid" in engines.zoo()
    assert engines._edgeseg(["zoo", "--json"], 60)["models"]
    problem = engines._edgeseg(["build", "no-such-model", "--backend", "tensorrt", "--precision", "fp16", "--json"], 60)["problem"]
    assert problem.startswith("build: ") and "no-such-model" in problem
