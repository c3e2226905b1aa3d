"""A built engine's layers as they were described when it was built; needs neither a GPU nor the library."""

from __future__ import annotations

import json
from typing import Any

from edgeseg.engines import cache
from edgeseg.engines.nvidia import layers
from edgeseg.engines.nvidia.worker import LAYERS
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder


def describe_engine(folder: ModelFolder, key: str) -> dict[str, Any]:
    """{"key", "summary", "rows", "layers", "dla"} of the engine whose key starts with ``key``; the newest of several.

    Raises:
        BackendError: there is none, it is damaged, or its backend describes no layers.
    """
    found = [engine for engine in cache.engines(folder) if engine.info["key"].startswith(key)]
    if not found:
        have = ", ".join(engine.info["key"] for engine in cache.engines(folder)) or "no engines"
        raise BackendError(f"{folder.path}: no engine {key!r}", f"one of {have}", "see `edgeseg cache list`")
    engine = max(found, key=lambda item: str(item.info.get("created", "")))
    if LAYERS not in engine.info["files"]:
        raise BackendError(f"{engine.info['key']}: {engine.backend} does not describe its layers", "an engine of tensorrt or rtx")
    if problem := cache.verify(engine):
        raise BackendError(f"{engine.directory}: {problem}", fix="edgeseg build --force")
    said = json.loads((engine.directory / LAYERS).read_bytes())
    summary, rows = layers.summary(said["layers"]), layers.rows(said["layers"])
    return {"key": engine.info["key"], "summary": summary, "rows": rows, "layers": said["layers"], "dla": said["dla"]}
