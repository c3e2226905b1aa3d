"""compute-sanitizer over the reduced list of cases: memcheck and racecheck, initcheck on request.

First a probe: a program whose good kernel must come out clean and whose bad kernels must be found. A sanitizer that cannot run here
is skipped with its own words; one that finds nothing in the bad kernels is a failure, for its silence would mean nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_check_lib.build import BuildError, build_probe
from gpu_check_lib.machine import folder_of_toolkit
from gpu_check_lib.supervise import Limits, Outcome, run_stage

FOUND = 86  # the exit code that we ask for where the sanitizer found something
BAD_KERNEL = {"memcheck": "memory", "racecheck": "race"}
OPTIONS = {"memcheck": ["--report-api-errors", "no"], "racecheck": ["--racecheck-report", "all"], "initcheck": []}


@dataclass
class Finding:
    """What one tool said. Attributes: ``skipped`` why it did not run; ``problems`` what it found; ``cases`` how many it watched."""

    tool: str
    skipped: str = ""
    problems: list[str] = field(default_factory=list)
    cases: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def find_sanitizer(nvcc: Path) -> Path | None:
    """compute-sanitizer on the PATH or in the toolkit of this nvcc."""
    home = folder_of_toolkit(nvcc)
    inside = [home / "bin" / "compute-sanitizer", home / "compute-sanitizer" / "compute-sanitizer"]
    candidates = [shutil.which("compute-sanitizer"), *inside, "/usr/local/cuda/bin/compute-sanitizer"]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def sanitize(
    nvcc: Path, capability: str, library: Path, cases: list[str], folder: Path, tools: list[str], limit_s: float
) -> list[Finding]:
    """Each tool over all cases."""
    program = find_sanitizer(nvcc)
    if program is None:
        return [Finding(tool, skipped="compute-sanitizer not found on the PATH or beside nvcc") for tool in tools]
    try:
        probe = build_probe(nvcc, capability, folder)
    except BuildError as error:
        return [Finding(tool, problems=[f"probe: {error}"]) for tool in tools]
    return [_one(program, probe, tool, library, cases, folder, limit_s / len(tools)) for tool in tools]


def _one(program: Path, probe: Path, tool: str, library: Path, cases: list[str], folder: Path, limit_s: float) -> Finding:
    command = [str(program), "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    clean = _probe(command, probe, "good")
    if clean.returncode:
        return Finding(tool, skipped=f"does not run here: {_first_words(clean)}")
    if tool in BAD_KERNEL and _probe(command, probe, BAD_KERNEL[tool]).returncode != FOUND:
        return Finding(tool, problems=[f"blind: found nothing in a kernel with a bad {BAD_KERNEL[tool]} access"])
    prefix = [*command, *OPTIONS[tool], "--target-processes", "all", "--log-file", str(folder / f"{tool}-%p.txt")]
    specification = {"stage": "sanitize", "device": "cuda", "library": str(library), "items": cases}
    # torch's own cache would hand out pieces of large blocks, in which nothing is out of bounds.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    outcome = run_stage(specification, folder, Limits(limit_s, 120), prefix, environment)
    return _finding(tool, outcome, [line for log in sorted(folder.glob(f"{tool}-*.txt")) for line in _errors(log)], len(cases))


def _finding(tool: str, outcome: Outcome, errors: list[str], wanted: int) -> Finding:
    """What came out of the cases and of the sanitizer's logs. Cases that time left out are skipped, all others must have run."""
    finding = Finding(tool, cases=len(outcome.records), seconds=outcome.seconds)
    finding.problems = [f"{name}: {text}" for name, record in outcome.records.items() for text in record.get("problems", [])]
    finding.problems += errors
    if outcome.returncode == FOUND and not errors:
        finding.problems.append("errors found; the log is empty")
    if finding.problems or finding.cases == wanted:
        return finding
    why = outcome.stopped or f"ended with {outcome.returncode}"
    said = f"{finding.cases} of {wanted} cases watched: {why}"
    if "time limit" in why:
        finding.skipped = said
    else:
        finding.problems.append(said)
    return finding


def _probe(command: list[str], probe: Path, mode: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([*command, str(probe), mode], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no answer within 60 s")


def _first_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip("= ").strip() for line in (done.stdout + done.stderr).splitlines()]
    said = [line for line in lines if line and not line.startswith(("COMPUTE-SANITIZER", "probe "))]
    return (said[0] if said else f"exit code {done.returncode}")[:300]


def _errors(log: Path) -> list[str]:
    """The lines of a log of the sanitizer that tell of errors."""
    lines = [line.strip("= ").strip() for line in log.read_text(errors="replace").splitlines()]
    summary = next((line for line in lines if re.search(r"(ERROR|RACECHECK) SUMMARY: [1-9]", line)), "")
    if not summary:
        return []
    marks = ("Invalid ", "Error: ", "Warning: ", "Uninitialized ", "Race reported", "at ")
    return [summary, *[line for line in lines if line.startswith(marks)][:20]]
