"""The child process of one stage: reads a specification, works through its items, writes one JSON line before and after each.

The parent (supervise.py) learns from the lines which item killed or hung the process.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_check_lib.stages import Work


def main(path: str) -> int:
    """Run the specification at ``path``; 0, or 3 where the device is lost and the rest needs a new process."""
    specification = json.loads(Path(path).read_text(encoding="utf-8"))
    with open(specification["output"], "a", encoding="utf-8") as stream:
        work = _work(specification)
        for item in specification["items"]:
            _line(stream, {"begin": item})
            started = time.perf_counter()
            try:
                record = work(item)
            except Exception as error:
                # Whatever it is, it belongs to this item; the others go on.
                record = {"problems": [f"{type(error).__name__}: {error}".splitlines()[0]], "trace": traceback.format_exc()}
            _line(stream, {"end": item, "record": {**record, "seconds": round(time.perf_counter() - started, 3)}})
            if record.get("problems") and not _device_lives(specification["device"]):
                return _leave(specification, 3)
    return 0


def _line(stream: Any, content: dict[str, Any]) -> None:
    stream.write(json.dumps(content, default=float) + "\n")
    stream.flush()


def _work(specification: dict[str, Any]) -> Work:
    from gpu_check_lib import stages

    return getattr(stages, specification["stage"])(specification)


def _device_lives(kind: str) -> bool:
    """False after a sticky CUDA error: nothing works in this process any more."""
    if kind != "cuda":
        return True
    import torch

    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").cpu()
    except RuntimeError:
        return False
    return True


def _leave(specification: dict[str, Any], code: int) -> int:
    """Without destructors, which may hang on a lost device; under the sanitizer with them, for then it writes its summary."""
    if specification["stage"] != "sanitize":
        os._exit(code)
    return code
