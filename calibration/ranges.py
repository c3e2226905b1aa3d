"""ranges.json: the portable result of calibration, bound to its graph by hash."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.errors import CalibrationError

FORMAT, VERSION = "edgeseg-ranges", 1
_REQUIRED = {"format": str, "version": int, "graph_sha256": str, "method": str, "images": int, "tensors": dict}
_OPTIONAL = {"data": dict, "float_nodes": list, "warnings": list}


@dataclass
class Ranges:
    """Ranges of the activations of one prepared graph.

    Attributes:
        graph_sha256: :func:`calibration.graph_sha256` of the prepared graph they were measured on.
        method: name of the range method.
        images: number of images seen.
        data: what the images were; free, plus "sha256" of the arrays fed.
        tensors: tensor name -> (low, high), low <= high, finite.
        float_nodes: names of nodes that stay in float.
        warnings: sentences for the user.
    """

    graph_sha256: str
    method: str
    images: int
    data: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[float, float]] = field(default_factory=dict)
    float_nodes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A JSON value; floats written in full, so that reading gives the same numbers."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "graph_sha256": self.graph_sha256,
            "method": self.method,
            "images": self.images,
            "data": self.data,
            "float_nodes": list(self.float_nodes),
            "warnings": list(self.warnings),
            "tensors": {name: [low, high] for name, (low, high) in self.tensors.items()},
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "ranges") -> Ranges:
        """Read strictly: unknown keys, wrong types and senseless numbers are refused with their path.

        Raises:
            CalibrationError: ``value`` is not what :meth:`to_json` writes.
        """
        _check_keys(value, where)
        tensors = {name: _pair(pair, f"{where}.tensors[{name!r}]") for name, pair in value["tensors"].items()}
        for key in ("float_nodes", "warnings"):
            if not all(isinstance(item, str) for item in value.get(key, [])):
                raise CalibrationError(f"{where}.{key}", "a list of strings")
        return cls(
            graph_sha256=value["graph_sha256"],
            method=value["method"],
            images=value["images"],
            data=value.get("data", {}),
            tensors=tensors,
            float_nodes=list(value.get("float_nodes", [])),
            warnings=list(value.get("warnings", [])),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Read ``path``.

        Raises:
            CalibrationError: missing, not JSON, or not strictly of this format.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(f"{path}: {error.strerror}", "a ranges file", "calibrate the model first") from error
        except ValueError as error:
            raise CalibrationError(f"{path}: not JSON ({error})", "a ranges file", "calibrate the model again") from error
        return cls.from_json(value, str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``path`` atomically."""
        write_atomic(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    def check_graph(self, found_sha256: str) -> None:
        """Refuse a graph other than the one the ranges were measured on.

        Raises:
            CalibrationError: the hashes differ.
        """
        if found_sha256 != self.graph_sha256:
            raise CalibrationError(
                f"ranges of another model: they are of graph {self.graph_sha256[:12]}, this graph is {found_sha256[:12]}",
                "ranges measured on this very graph",
                "calibrate this model again",
            )


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader finds the old file or the new one, never half."""
    target = Path(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _check_keys(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise CalibrationError(f"{where}: {type(value).__name__}", "a JSON object", "calibrate the model again")
    if value.get("format") != FORMAT or value.get("version") != VERSION:
        raise CalibrationError(
            f"{where}: format {value.get('format')!r} version {value.get('version')!r}",
            f"{FORMAT!r} version {VERSION}",
            "calibrate the model again",
        )
    known = _REQUIRED | _OPTIONAL
    if unknown := sorted(set(value) - set(known)):
        raise CalibrationError(f"{where}.{unknown[0]}: unknown key", f"one of {', '.join(known)}", "remove it")
    if missing := [key for key in _REQUIRED if key not in value]:
        raise CalibrationError(f"{where}.{missing[0]}: missing", "the key to be there", "calibrate the model again")
    for key, kind in known.items():
        if key in value and (not isinstance(value[key], kind) or isinstance(value[key], bool)):
            raise CalibrationError(f"{where}.{key}: {type(value[key]).__name__}", kind.__name__)


def _pair(value: Any, where: str) -> tuple[float, float]:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(x) in (int, float) for x in value)
    if not numbers or not all(math.isfinite(x) for x in value) or value[0] > value[1]:
        raise CalibrationError(f"{where}: {value!r}", "[low, high], finite, low <= high", "calibrate the model again")
    return float(value[0]), float(value[1])
