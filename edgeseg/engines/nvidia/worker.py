"""The process that builds: a library that aborts takes only this one with it.

Reads one JSON request on stdin; writes JSON lines to the descriptor it is told: ``{"progress": words}`` while it works, then
``{"done": {...}}`` or ``{"error": [what, expected, fix]}``. What native code prints goes to stderr, which the parent keeps.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeseg.engines.nvidia import builder, layers
from edgeseg.engines.nvidia.messages import Log
from edgeseg.engines.options import BuildOptions
from edgeseg.errors import EdgesegError
from edgeseg.files import write_json

ENGINE, LAYERS, GRAPH = "engine.plan", "layers.json", "lowered.onnx"
EXIT_ERROR, EXIT_CANCELLED = 3, 130
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Build as the request on stdin says."""
    _die_with_parent()
    stop = _Stop()
    request = json.loads(sys.stdin.buffer.read())
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as pipe:

        def send(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")

        try:
            send(done=build(request, lambda words: send(progress=words), stop))
        except EdgesegError as error:
            send(error=[error.what, error.expected, error.fix])
            sys.exit(EXIT_ERROR)
        except KeyboardInterrupt:
            sys.exit(EXIT_CANCELLED)


class _Stop:
    """True once the parent asked to stop: the builder is told between its steps, since it must not be torn down within one."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def build(request: dict[str, Any], tell: builder.Tell, stop: _Stop) -> dict[str, Any]:
    """Build into ``request["directory"]``: the engine and the description of its layers."""
    trt = import_module(request["library"])
    directory, log = Path(request["directory"]), Log(trt)
    paths = {name: Path(request[name]) if request.get(name) else None for name in ("plugins", "timing_cache")}
    model = Path(request["graph"]).read_bytes()
    options = BuildOptions.from_json(request["options"])
    wanted = builder.Request(request["library"], model, request["precision"], request["input"], options, **paths)
    built = builder.build(trt, wanted, log, tell, stop)
    (directory / ENGINE).write_bytes(built.engine)
    found = layers.describe(trt, built.engine, log, plugins=paths["plugins"]) if request["inspect"] else layers.from_log(log.layers)
    write_json(directory / LAYERS, {"layers": found, "dla": built.dla})
    return {"bytes": len(built.engine), "layers": len(found)}


if __name__ == "__main__":
    main()
