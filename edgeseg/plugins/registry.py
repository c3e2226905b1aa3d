"""What a TensorRT registry says of a plugin library. The library is loaded in a child process: it may take it down."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeseg.errors import BackendError
from edgeseg.plugins import NAMESPACE, OPERATORS, PREFIX, VERSION

MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")
_TIMEOUT_S = 120

# The child gets the module and the library as arguments. The registry does not say why it loads nothing, the loader does.
# Only creators of our namespace are asked more than their name: some of TensorRT's own answer questions with errors.
_CHILD = """
import ctypes, json, sys
from importlib import import_module
trt = import_module(sys.argv[1])
answer = {"tensorrt": trt.__version__, "creators": [], "problem": None}
try:
    if not hasattr(ctypes.CDLL(sys.argv[2]), "getCreators"):
        answer["problem"] = "it has no getCreators"
except OSError as error:
    answer["problem"] = str(error)
if answer["problem"] is None:
    registry = trt.get_plugin_registry()
    registry.load_library(sys.argv[2])
    answer["creators"] = [
        {"name": creator.name, "version": creator.plugin_version, "fields": [field.name for field in creator.field_names]}
        for creator in registry.all_creators
        if creator.plugin_namespace == sys.argv[3]
    ]
print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Registered:
    """The answer: which module and version of TensorRT, and its creators of ours (name, version, fields)."""

    module: str
    version: str
    creators: list[dict[str, Any]]


def installed_module() -> str:
    """The TensorRT module that engines would be run with.

    Raises:
        BackendError: none is installed.
    """
    for name in MODULES:
        if find_spec(name) is not None:
            return name
    fix = "pip install 'edgeseg[tensorrt]', or tensorrt-lean for its registry alone"
    raise BackendError("no TensorRT to check the plugins in", f"a Python module {' or '.join(MODULES)}", fix)


def register(library: Path) -> Registered:
    """Load a plugin library into the registry of the installed TensorRT.

    Raises:
        BackendError: it cannot be loaded, or a creator of ours is missing or has another version.
    """
    module = installed_module()
    command = [sys.executable, "-c", _CHILD, module, str(library), NAMESPACE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{library}: {module} did not load it within {_TIMEOUT_S} s") from error
    answer = _answer(done)
    if answer["problem"]:
        what = f"{library}: {module} cannot load it: {answer['problem']}"
        raise BackendError(what, "a TensorRT plugin library for this machine", "edgeseg plugins build")
    registered = Registered(module, answer["tensorrt"], answer["creators"])
    _check_complete(library, registered)
    return registered


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if last[0].startswith("{"):
        answer: dict[str, Any] = json.loads(last[0])
        return answer
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return {"problem": lines[-1][:300] if lines else f"exit code {done.returncode}"}


def _check_complete(library: Path, registered: Registered) -> None:
    versions = {creator["name"]: creator["version"] for creator in registered.creators}
    wrong = [f"{PREFIX}{name} version {VERSION}" for name in OPERATORS if versions.get(f"{PREFIX}{name}") != VERSION]
    if not wrong:
        return
    others = ", ".join(f"{name} {version}" for name, version in versions.items()) or "none of ours"
    raise BackendError(
        f"{library}: {registered.module} {registered.version} finds no creator {', '.join(wrong)}; it finds {others}",
        "the plugin library of this edgeseg, for this machine",
        "edgeseg plugins build",
    )
