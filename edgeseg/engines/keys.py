"""The engine key: everything that an engine depends on, field by field, so that a change can be named."""

from __future__ import annotations

import functools
import importlib.util
import platform
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.engines.options import BuildOptions
from edgeseg.engines.session import Backend
from edgeseg.errors import EdgesegError
from edgeseg.files import sha256_file, sha256_json
from edgeseg.folder import GRAPH, RANGES, WEIGHTS, ModelFolder
from edgeseg.manifest import Manifest

ENGINE_FORMAT = 1
_ISA_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)


@functools.cache
def device() -> dict[str, str]:
    """The CPU an engine is compiled for: architecture, model name, and the instruction sets that backends use."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        fields = {}
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    family = "/".join(fields[name] for name in ("cpu family", "model", "stepping", "cpu part") if name in fields)
    return {
        "arch": platform.machine(),
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "stepping": family,
        "isa": " ".join(flag for flag in _ISA_FLAGS if flag in flags),
    }


_PROFILES = {"openvino": "openvino", "tensorrt": "tensorrt", "rtx": "tensorrt", "ort-cuda": "tensorrt"}


def target_profile(backend: str) -> str:
    """The calibration profile of a backend on this machine: where Q/DQ nodes go and how they are signed."""
    if named := _PROFILES.get(backend):
        return named
    return "arm" if platform.machine().lower() in ("aarch64", "arm64", "armv7l") else "x86"


@functools.cache
def _passes(backend: str) -> str:
    """SHA-256 of the code that rewrites graphs on their way into an engine: another placement of Q/DQ is another engine."""
    spec = importlib.util.find_spec("calibration")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    own, ours = Path(__file__).parent, Path(__file__).parent.parent / "ops"
    nvidia = [own / "nvidia"] if backend in ("tensorrt", "rtx") else []
    files = [path for root in [*roots, own / "passes", ours, *nvidia] for path in root.glob("*.py")]
    files += [own / "lowering.py", own / f"{backend.replace('-', '_')}.py"]
    return sha256_json(sorted((f"{path.parent.name}/{path.name}", sha256_file(path)) for path in files if path.is_file()))


def _sha(manifest: Manifest, name: str) -> str:
    info = manifest.files.get(name)
    return info.sha256 if info else "none"


def engine_fields(
    folder: ModelFolder, backend: Backend, precision: str, threads: int, options: BuildOptions | None = None
) -> dict[str, Any]:
    """What the engine of this model depends on, as a flat JSON object."""
    manifest = folder.manifest
    spec = _input(manifest)
    fields: dict[str, Any] = {
        "format": ENGINE_FORMAT,
        "edgeseg": __version__,
        "passes": _passes(backend.NAME),
        "graph": _sha(manifest, GRAPH),
        # Weights live in the graph, except for torch, which builds the network and loads them.
        "weights": _sha(manifest, WEIGHTS) if backend.NAME == "torch" else "in graph",
        "precision": precision,
        "ranges": _sha(manifest, RANGES) if precision == "int8" else "unused",
        "profile": target_profile(backend.NAME) if precision == "int8" else "unused",
        "backend": backend.NAME,
        "backend_version": backend.version(),
        "threads": threads if getattr(backend, "THREADED", True) else 1,
    }
    if backend.NAME == "torch" and manifest.architecture is not None:
        fields["architecture"] = manifest.architecture.model_dump(mode="json")
    fields.update({f"input.{name}": value for name, value in spec.items()})
    fields.update({"output.name": manifest.output.name, "output.kind": manifest.output.kind})
    machine = getattr(backend, "device_fields", device)()
    fields.update({f"device.{name}": value for name, value in machine.items()})
    fields.update((options or BuildOptions()).fields())
    return fields


def engine_key(fields: dict[str, Any]) -> str:
    """The name of the engine's directory: readable, and unique to ``fields``."""
    return f"{fields['backend']}-{fields['precision']}-{sha256_json(fields)[:16]}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, as name -> (old, new); a field that one side lacks is None there."""
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def preprocessing_digest(manifest: Manifest) -> str:
    """SHA-256 of how a frame enters the network; ranges hold only for the preprocessing they were measured with."""
    return sha256_json(_input(manifest))


def _input(manifest: Manifest) -> dict[str, Any]:
    """The input as ranges and engines know it: they are older than the modalities, so plain colour is not named."""
    spec = manifest.input.model_dump(mode="json")
    if spec["modality"] == "rgb":
        del spec["modality"]
    return spec


def check_threads(threads: int) -> None:
    """Refuse a thread count that is not a positive number.

    Raises:
        EdgesegError: names the count.
    """
    if threads < 1 or threads > 1024:
        raise EdgesegError(f"--threads {threads}", "1 to 1024", "leave it out for all cores")
