"""Check and time the CUDA kernels on this machine's NVIDIA GPU.

    python tools/gpu_check.py                  everything, about six minutes; JSON and a Markdown table in build/gpu_check
    python tools/gpu_check.py --quick          the short list of cases, fewer rounds
    python tools/gpu_check.py --host           the same cases on the CPU twins, for machines with no GPU
    python tools/gpu_check.py --dry-run --arch 90   compile the kernels for an architecture and list the cases

Needs nvcc and torch with CUDA; no internet, no TensorRT, no installed edgeseg. docs/gpu.md tells what the columns mean.
Exit code: 0 well, 1 a check failed (a missed speed goal is none), 2 nothing could be checked here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

from gpu_check_lib import build, engines, machine, plugins, report, sanitizer  # noqa: E402
from gpu_check_lib.operators import MODULES  # noqa: E402
from gpu_check_lib.supervise import Limits, Outcome, run_stage  # noqa: E402

NO_GPU = (
    "gpu_check: no NVIDIA GPU here that torch can use ({why}); run it where there are one, nvcc and a CUDA build of torch; "
    "here `--host` checks the same cases on the CPU twins and `--dry-run --arch 90` compiles the kernels"
)
BUDGET_S = 360


def main() -> int:
    arguments = _arguments()
    if arguments.worker:
        from gpu_check_lib import worker

        return worker.main(arguments.worker)
    problem = _unknown_operators(arguments.only)
    if problem:
        print(f"gpu_check: {problem}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="edgeseg-gpu-check-") as temporary:
        folder = (arguments.build_dir or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return _dry_run(arguments, folder) if arguments.dry_run else Run(arguments, folder).all()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", default=ROOT / "build" / "gpu_check", help="for the report")
    parser.add_argument("--build-dir", type=Path, metavar="DIR", help="keep what is compiled (default: a temporary folder)")
    parser.add_argument("--only", action="append", metavar="OPERATOR", help="roi_align, max_unpool, ...; may be repeated")
    parser.add_argument("--quick", action="store_true", help="short list of cases, fewer rounds")
    parser.add_argument("--no-sanitizer", action="store_true", help="leave compute-sanitizer out")
    parser.add_argument("--initcheck", action="store_true", help="compute-sanitizer's initcheck besides memcheck and racecheck")
    parser.add_argument("--no-speed", action="store_true", help="leave the timing out")
    parser.add_argument("--no-engines", action="store_true", help="leave TensorRT's engines out where TensorRT is installed")
    parser.add_argument("--budget", type=float, metavar="S", default=BUDGET_S, help=f"seconds for everything (default {BUDGET_S})")
    parser.add_argument("--host", action="store_true", help="the CPU twins in place of the kernels")
    parser.add_argument("--dry-run", action="store_true", help="compile and list, run nothing")
    parser.add_argument("--arch", default="90", help="compute capability of --dry-run, 90 or sm_90")
    parser.add_argument(
        "--tensorrt-root", default=os.environ.get("TENSORRT_ROOT"), help="TensorRT's headers (default $TENSORRT_ROOT)"
    )
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    return parser.parse_args()


def _unknown_operators(only: list[str] | None) -> str:
    unknown = sorted(set(only or ()) - set(MODULES))
    return f"--only {', '.join(unknown)}; expected some of {', '.join(MODULES)}" if unknown else ""


def _dry_run(arguments: argparse.Namespace, folder: Path) -> int:
    if find_spec("torch"):
        from gpu_check_lib.operators import all_cases

        for case in all_cases(arguments.only, arguments.quick):
            print(case.name)
    nvcc = build.find_nvcc()
    if nvcc is None:
        print("gpu_check: no nvcc on the PATH, in $CUDACXX or $CUDA_HOME/bin; fix: install the CUDA toolkit", file=sys.stderr)
        return 2
    try:
        built = build.build_cuda(nvcc, arguments.arch.removeprefix("sm_"), folder)
        build.build_probe(nvcc, arguments.arch.removeprefix("sm_"), folder)
    except build.BuildError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    for warning in built.warnings:
        print(warning)
    size = built.path.stat().st_size / 1e6
    print(f"compiled for {arguments.arch} by nvcc {build.nvcc_version(nvcc)}: {size:.1f} MB in {built.seconds:.0f} s")
    return 1 if built.warnings else 0


class Run:
    """One run: the stages in order, the report after each."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.kind = "cpu" if arguments.host else "cuda"
        self.output: Path = arguments.output.resolve()
        self.started = time.monotonic()
        self.libraries: dict[str, Path] = {}
        self.report: dict[str, Any] = {"mode": "host" if arguments.host else "gpu", "quick": arguments.quick, "failures": []}

    def all(self) -> int:
        self.stages = self.folder / "stages"
        shutil.rmtree(self.stages, ignore_errors=True)
        self.stages.mkdir(parents=True)
        reason = self._machine() or self._build()
        if reason:
            print(reason, file=sys.stderr)
            return 2
        for stage in (self._correctness, self._speed, self._sanitizer, self._plugins, self._engines):
            if self.report["failures"]:
                break
            try:
                stage()
            except Exception as error:
                # The report of the other stages counts more than this one.
                self.report["failures"].append(f"{stage.__name__.strip('_')}: {type(error).__name__}: {error}")
            report.write(self.report, self.output)
        return self._finish()

    def left(self, share: float = 1.0, least: float = 20.0) -> float:
        """Seconds for the next stage."""
        return max(least, share * (self.arguments.budget - (time.monotonic() - self.started)))

    def _finish(self) -> int:
        self.report["finished"], self.report["seconds"] = True, round(time.monotonic() - self.started, 1)
        report.write(self.report, self.output)
        found = report.problems(self.report)
        for text in found[:20]:
            print(f"FAILED {text}"[:500])
        print(f"{len(found)} problems, {self.report['seconds']:.0f} s; {self.output / 'gpu_check.md'}")
        return 1 if found else 0

    def _stage(self, specification: dict[str, Any], total_s: float, silence_s: float) -> Outcome:
        return run_stage({"device": self.kind, **specification}, self.stages, Limits(total_s, silence_s))

    def _machine(self) -> str:
        """Why nothing can be checked here, or nothing."""
        self.report["machine"] = machine.describe()
        if find_spec("torch") is None:
            return NO_GPU.format(why="torch is not installed") if self.kind == "cuda" else "gpu_check: --host needs torch"
        outcome = self._stage({"stage": "machine", "items": ["gpu"]}, 120, 120)
        gpu = outcome.records.get("gpu", {}).get("gpu")
        if gpu is None:
            return f"gpu_check: torch does not start: {outcome.stopped or outcome.records or outcome.returncode}"
        self.report["gpu"] = gpu
        if self.kind == "cuda" and not gpu["available"]:
            why = "it is built without CUDA" if not gpu["torch_cuda"] else "no device or no driver"
            return NO_GPU.format(why=f"torch {gpu['torch']}: {why}")
        said = f"{gpu['name']}, compute capability {gpu['capability']}" if self.kind == "cuda" else "host, not a GPU"
        print(f"machine: {said}, torch {gpu['torch']}, torchvision {gpu['torchvision']}", flush=True)
        return ""

    def _build(self) -> str:
        """Compile; kernels that do not compile are a failure, a missing nvcc is a reason to stop."""
        nvcc = build.find_nvcc()
        if self.kind == "cuda" and nvcc is None:
            return "gpu_check: no nvcc on the PATH, in $CUDACXX or $CUDA_HOME/bin; fix: install the CUDA toolkit"
        self.nvcc = nvcc
        self.report["build"] = {"nvcc_version": build.nvcc_version(nvcc) if nvcc else None}
        for name, make in (("twins", self._twins), ("kernels", self._kernels)):
            try:
                built = make()
            except build.BuildError as error:
                if name == "kernels" or self.kind == "cpu":
                    self.report["failures"].append(f"build: {error}")
                print(f"build: {name} failed: {str(error).splitlines()[0][:200]}", flush=True)
                continue
            if built is None:
                continue
            self.libraries[name] = built.path
            self.report["build"][f"{name}_warnings"] = built.warnings
            print(f"build: {name}, {built.seconds:.0f} s, {len(built.warnings)} warnings", flush=True)
        return ""

    def _twins(self) -> build.Built:
        named = os.environ.get("EDGESEG_OPS_LIBRARY")
        return build.Built(Path(named), 0.0, []) if named else build.build_twins(self.folder)

    def _kernels(self) -> build.Built | None:
        if self.kind == "cpu":
            return None
        assert self.nvcc is not None
        return build.build_cuda(self.nvcc, self.report["gpu"]["capability"], self.folder)

    @property
    def library(self) -> str:
        return str(self.libraries["twins" if self.kind == "cpu" else "kernels"])

    def _correctness(self) -> None:
        from gpu_check_lib.operators import all_cases

        twins = self.libraries.get("twins") if self.kind == "cuda" else None
        items = [case.name for case in all_cases(self.arguments.only, self.arguments.quick)]
        specification = {"stage": "correctness", "items": items, "library": self.library, "twins": twins and str(twins)}
        outcome = self._stage(specification, self.left(0.45), 60)
        self.report["correctness"] = {"records": outcome.records, "stopped": outcome.stopped, "seconds": outcome.seconds}
        self._say("correctness", outcome)

    def _speed(self) -> None:
        from gpu_check_lib.speed import workloads

        only, quick = self.arguments.only, self.arguments.quick
        found = [] if self.arguments.no_speed else workloads(self.kind == "cpu").values()
        items = [w.name for w in found if (not only or set(w.operators) & set(only)) and (not quick or w.quick)]
        if not items:
            return
        specification = {"stage": "speed", "items": items, "library": self.library, "quick": self.arguments.quick}
        outcome = self._stage(specification, self.left(0.5), 90)
        self.report["speed"] = {"records": outcome.records, "stopped": outcome.stopped, "seconds": outcome.seconds}
        self._say("speed", outcome)
        for name, record in outcome.records.items():
            for goal in record.get("goals", []):
                got = "not measured" if goal["got"] is None else f"{goal['got']:.2f}"
                print(f"  {name}: {goal['goal']}: {got}{' (host, not a GPU figure)' if self.kind == 'cpu' else ''}", flush=True)

    def _sanitizer(self) -> None:
        from gpu_check_lib.operators import all_cases

        if self.arguments.no_sanitizer or self.kind == "cpu":
            return
        assert self.nvcc is not None
        tools = ["memcheck", "racecheck"] + (["initcheck"] if self.arguments.initcheck else [])
        cases = [case.name for case in all_cases(self.arguments.only, sanitize=True) if not case.refused]
        found = sanitizer.sanitize(
            *(self.nvcc, self.report["gpu"]["capability"], self.libraries["kernels"], cases, self.stages, tools, self.left(0.6))
        )
        self.report["sanitizer"] = [finding.to_json() for finding in found]
        for finding in found:
            said = finding.skipped or (f"{len(finding.problems)} problems" if finding.problems else "clean")
            print(f"{finding.tool}: {finding.cases} cases, {said}", flush=True)

    def _plugins(self) -> None:
        capability = self.report["gpu"].get("capability", "")
        record = plugins.drive(self.arguments.tensorrt_root, self.kind, capability, self.folder / "plugins", self.left(least=60))
        self.report["plugins"] = record
        print(f"plugins: {record.get('skipped') or record.get('summary') or record['problems'][0]}", flush=True)

    def _engines(self) -> None:
        missing = engines.missing_modules()
        if missing or self.arguments.no_engines or self.kind == "cpu":
            why = f"not installed: {', '.join(missing)}" if missing else "not asked for"
            self.report["engines"] = {"skipped": why}
            print(f"engines: {why}", flush=True)
            return
        records = engines.build_and_time(self.left(least=30))
        self.report["engines"] = {"records": records}
        print(f"engines: {sum('bench' in record for record in records)} of {len(records)} built and timed", flush=True)

    def _say(self, stage: str, outcome: Outcome) -> None:
        failed = sum(bool(record.get("problems")) for record in outcome.records.values())
        stopped = f"; {outcome.stopped}" if outcome.stopped else ""
        print(f"{stage}: {len(outcome.records)} items, {failed} failed, {outcome.seconds:.0f} s{stopped}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
