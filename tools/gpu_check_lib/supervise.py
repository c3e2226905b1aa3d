"""The parent's side of a stage: children that are started anew where one dies, and killed where one hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENTRY = Path(__file__).resolve().parent.parent / "gpu_check.py"
RESTARTS = 12


@dataclass
class Outcome:
    """What became of a stage: one record per item that was begun, and why it ended early, if it did."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    returncode: int = 0
    stopped: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Seconds: of the whole stage, and without a sign of life (the start of the process included)."""

    total: float
    silence: float


def run_stage(
    specification: dict[str, Any],
    folder: Path,
    limits: Limits,
    prefix: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Work through ``specification["items"]`` in child processes.

    Args:
        specification: "stage", "device", "items" and what the stage needs; see stages.py.
        folder: for the specification, the lines and the log.
        prefix: a command that runs the child, such as compute-sanitizer's.
    """
    outcome, started, remaining = Outcome(), time.monotonic(), list(specification["items"])
    for attempt in range(RESTARTS):
        left = limits.total - (time.monotonic() - started)
        if left <= 0:
            outcome.stopped = outcome.stopped or f"time limit of {limits.total:.0f} s: {len(remaining)} not run"
            break
        name = f"{specification['stage']}-{len(list(folder.glob('*.jsonl')))}"
        reason = _attempt(specification, remaining, folder / name, outcome, Limits(left, limits.silence), prefix, environment)
        before, remaining = len(remaining), [item for item in remaining if item not in outcome.records]
        if not reason or not remaining:
            break
        if before == len(remaining) or attempt + 1 == RESTARTS:
            outcome.stopped = f"{reason}; {len(remaining)} not run"
            break
    outcome.seconds = time.monotonic() - started
    return outcome


def _attempt(
    specification: dict[str, Any],
    items: list[str],
    base: Path,
    outcome: Outcome,
    limits: Limits,
    prefix: Sequence[str],
    environment: dict[str, str] | None,
) -> str:
    """One child; why it ended early, or nothing."""
    lines, log, plan = base.with_suffix(".jsonl"), base.with_suffix(".log"), base.with_suffix(".json")
    lines.touch()
    plan.write_text(json.dumps({**specification, "items": items, "output": str(lines)}), encoding="utf-8")
    with log.open("w") as stream:
        child = subprocess.Popen(
            [*prefix, sys.executable, str(ENTRY), "--worker", str(plan)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        reason = _wait(child, lines, limits)
    outcome.returncode = child.returncode
    reason = reason or _cause(child.returncode, log)
    _collect(lines, outcome, reason)
    return reason


def _wait(child: subprocess.Popen[bytes], lines: Path, limits: Limits) -> str:
    """Wait for the end, or kill the child and say why."""
    started = last = time.monotonic()
    size = 0
    while child.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        if lines.stat().st_size != size:
            size, last = lines.stat().st_size, now
        if now - started > limits.total or now - last > limits.silence:
            _kill(child)
            return f"hung for {now - last:.0f} s and was killed" if now - last > limits.silence else "stopped by the time limit"
    return ""


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # its own session: the sanitizer's processes go with it
    child.wait()


def _cause(returncode: int, log: Path) -> str:
    if returncode == 0:
        return ""
    text = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = f": {text[-1].strip()[:300]}" if text else ""
    return f"process ended with signal {-returncode}{last}" if returncode < 0 else f"process ended with {returncode}{last}"


def _collect(lines: Path, outcome: Outcome, reason: str) -> None:
    begun = ""
    for line in lines.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:  # cut off by the end of the process
            continue
        begun = content.get("begin", begun)
        if "end" in content:
            outcome.records[content["end"]] = content["record"]
            begun = ""
    if begun:
        stopped = reason.startswith("stopped by")
        outcome.records[begun] = {"skipped": reason} if stopped else {"problems": [reason or "the process ended within it"]}
