"""The engine cache of a model folder: ``engines/<key>/engine.json`` and the files it vouches for."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.engines.keys import difference, engine_key
from edgeseg.files import check_writable, file_lock, sha256_file
from edgeseg.folder import ModelFolder, describe_file

INFO, LOCK, CHOICE = "engine.json", ".lock", "auto.json"
FORMAT = "edgeseg-engine"
log = logging.getLogger("edgeseg.engines")


@dataclass(frozen=True)
class Engine:
    """A built engine: its directory and what engine.json says of it (key, fields, files, build_seconds, created)."""

    directory: Path
    info: dict[str, Any]

    @property
    def backend(self) -> str:
        return str(self.info["fields"]["backend"])

    @property
    def precision(self) -> str:
        return str(self.info["fields"]["precision"])

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(int(entry["bytes"]) for entry in self.info["files"].values())


@contextmanager
def cache_lock(folder: ModelFolder) -> Iterator[None]:
    """One builder at a time; another process waits, then finds the engine made. Leftovers of killed builds go."""
    check_writable(folder.engines)
    with file_lock(folder.engines / LOCK):
        for leftover in [*folder.engines.glob(".*.tmp"), *folder.engines.glob(".*.old")]:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def describe(directory: Path, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The content of engine.json for the files in ``directory``."""
    files = {path.name: describe_file(path).model_dump() for path in sorted(directory.iterdir()) if path.name != INFO}
    return {"format": FORMAT, "key": engine_key(fields), "fields": fields, "files": files, **more}


def read_engine(directory: Path) -> tuple[Engine | None, str]:
    """The engine in ``directory`` without looking into its files, or None and what is wrong with engine.json."""
    try:
        info = json.loads((directory / INFO).read_bytes())
        well = info["format"] == FORMAT and info["key"] == directory.name == engine_key(info["fields"]) and bool(info["files"])
        if well and all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in info["files"].values()):
            return Engine(directory, info), ""
        return None, f"{INFO} does not describe this engine"
    except FileNotFoundError:
        return None, f"{INFO} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"{INFO} cannot be read ({type(error).__name__})"


def verify(engine: Engine) -> str:
    """Empty when every file has the size and SHA-256 that engine.json says, else which has not."""
    for name, entry in engine.info["files"].items():
        path = engine.directory / name
        if path.name != name or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, expected {entry['bytes']}"
        if sha256_file(path) != entry["sha256"]:
            return f"{name} has another SHA-256 than when it was built"
    return ""


def find(folder: ModelFolder, fields: dict[str, Any]) -> Engine | None:
    """The engine of these fields, verified; None when there is none or it is damaged, which is logged."""
    directory = folder.engines / engine_key(fields)
    if not directory.is_dir():
        return None
    engine, problem = read_engine(directory)
    if engine is not None:
        problem = verify(engine)
    if problem:
        log.warning("%s: damaged engine (%s); it is built again", directory, problem)
        return None
    return engine


def entries(folder: ModelFolder) -> list[tuple[Path, Engine | None, str]]:
    """Every engine directory by key, its engine if engine.json can be read, and what is wrong with it (empty: nothing)."""
    found = []
    for path in sorted(folder.engines.glob("*-*-*")):
        if path.is_dir() and not path.name.startswith("."):
            engine, problem = read_engine(path)
            found.append((path, engine, verify(engine) if engine else problem))
    return found


def engines(folder: ModelFolder) -> list[Engine]:
    """Every engine of the folder whose engine.json can be read, by key."""
    found = (read_engine(path)[0] for path in sorted(folder.engines.glob("*-*-*")) if path.is_dir())
    return [engine for engine in found if engine is not None]


def explain(folder: ModelFolder, fields: dict[str, Any]) -> dict[str, Any]:
    """Whether a build with ``fields`` would reuse an engine, and if not, why: damage, or each field old vs new.

    Returns:
        {"key", "status": "hit" | "damaged" | "stale" | "absent", "reason", "changed": {field: [old, new]}}, compared
        with the engine of the same backend and precision that differs least.
    """
    key = engine_key(fields)
    directory = folder.engines / key
    answer: dict[str, Any] = {"key": key, "status": "absent", "reason": "never built", "changed": {}}
    if directory.is_dir():
        engine, problem = read_engine(directory)
        problem = verify(engine) if engine else problem
        return {**answer, "status": "damaged" if problem else "hit", "reason": problem or "nothing changed since it was built"}
    same = [item for item in engines(folder) if (item.backend, item.precision) == (fields["backend"], fields["precision"])]
    if same:
        changed = min((difference(item.info["fields"], fields) for item in same), key=len)
        reason = "; ".join(f"{name} was {_short(old)}, is {_short(new)}" for name, (old, new) in changed.items())
        answer.update(status="stale", reason=reason, changed={name: list(pair) for name, pair in changed.items()})
    return answer


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def clear(folder: ModelFolder) -> tuple[int, int]:
    """Remove every engine and the recorded choice of ``auto``; returns (engines removed, bytes freed)."""
    if not folder.engines.is_dir():
        return 0, 0
    with cache_lock(folder):
        directories = [path for path in folder.engines.iterdir() if path.is_dir()]
        freed = sum(item.stat().st_size for path in directories for item in path.rglob("*") if item.is_file())
        for path in directories:
            shutil.rmtree(path)
        for path in [folder.engines / CHOICE, *folder.engines.glob(".timing-*"), *folder.engines.glob(".jit-*")]:
            path.unlink(missing_ok=True)
    return len(directories), freed
