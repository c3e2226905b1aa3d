"""What the figures were measured on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_check_lib.build import ROOT

QUERY = {
    "driver": "driver_version",
    "graphics_clock_mhz": "clocks.gr",
    "graphics_clock_max_mhz": "clocks.max.gr",
    "memory_clock_mhz": "clocks.mem",
    "memory_clock_max_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}


def describe() -> dict[str, Any]:
    """Date, commit, system and what nvidia-smi gives; values that cannot be had are None."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "python": platform.python_version(),
        "nvidia_smi": nvidia_smi(),
    }


def nvidia_smi() -> dict[str, str | None]:
    """Driver, clocks, power and temperature of the first GPU; empty without nvidia-smi (Jetsons have none)."""
    program = shutil.which("nvidia-smi")
    if not program:
        return {}
    text = _output([program, "-i", "0", f"--query-gpu={','.join(QUERY.values())}", "--format=csv,noheader,nounits"])
    fields = [field.strip() for field in (text or "").split(",")]
    if len(fields) != len(QUERY):
        return {}
    return {name: field if field and not field.startswith("[") else None for name, field in zip(QUERY, fields, strict=True)}


def _commit() -> str | None:
    """The commit, marked where the checkout differs from it."""
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    if not commit:
        return None
    changed = _output(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return commit + (" with changes" if changed else "")


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def folder_of_toolkit(nvcc: Path) -> Path:
    """The toolkit that an nvcc belongs to."""
    return nvcc.resolve().parent.parent
