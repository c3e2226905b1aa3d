"""Where TensorRT itself is installed: build and time every shipped model through edgeseg's own commands, in FP16 and INT8."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from gpu_check_lib.build import ROOT

PRECISIONS = ("fp16", "int8")
NEEDED = ("tensorrt", "onnx", "cv2", "pydantic", "typer", "rich")


def missing_modules() -> list[str]:
    """What has to be installed before edgeseg can build TensorRT engines."""
    from importlib.util import find_spec

    return [name for name in NEEDED if find_spec(name) is None]


def zoo() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "edgeseg" / "zoo").glob("*/model.json"))


def build_and_time(limit_s: float) -> list[dict[str, Any]]:
    """One record per model and precision: what ``build`` and ``bench`` say, or their one line why not."""
    records, started = [], time.monotonic()
    for model in zoo():
        for precision in PRECISIONS:
            left = limit_s - (time.monotonic() - started)
            record: dict[str, Any] = {"model": model, "precision": precision}
            records.append(record | (_one(model, precision, left) if left > 5 else {"skipped": "time limit"}))
    return records


def _one(model: str, precision: str, limit_s: float) -> dict[str, Any]:
    common = [model, "--backend", "tensorrt", "--precision", precision, "--json"]
    started = time.monotonic()
    built = _edgeseg(["build", *common], limit_s)
    if "problem" in built:
        return built
    timed = _edgeseg(["bench", *common, "--duration", "2"], max(1.0, limit_s - (time.monotonic() - started)))
    return timed if "problem" in timed else {"build": built, "bench": timed}


def _edgeseg(words: list[str], limit_s: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgeseg", *words], cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"{words[0]}: no end within {limit_s:.0f} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"problem": f"{words[0]}: {lines[-1].strip() if lines else f'exit code {done.returncode}'}"}
    result: dict[str, Any] = json.loads(done.stdout)
    return result
