"""The model folder: the one thing every step reads and writes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import to_jsonable_python

from edgeseg.errors import EdgesegError, ManifestError
from edgeseg.files import atomic_directory, check_writable, file_lock, sha256_file
from edgeseg.manifest import FileInfo, Manifest, Measurement, load_manifest, parse_manifest

MANIFEST, WEIGHTS, GRAPH, RANGES, ENGINES = "model.json", "model.safetensors", "model.onnx", "ranges.json", "engines"


def home() -> Path:
    """Where working copies of shipped models live: ``$EDGESEG_HOME``, else the user's cache directory."""
    if configured := os.environ.get("EDGESEG_HOME"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg"


def zoo_directory() -> Path:
    """The read-only directory of the models shipped in the package."""
    return Path(__file__).resolve().parent / "zoo"


def shipped_models() -> list[str]:
    """Names of the models shipped in the package."""
    root = zoo_directory()
    return sorted(path.name for path in root.iterdir() if (path / MANIFEST).is_file()) if root.is_dir() else []


def recipes_directory() -> Path:
    """The read-only directory of training settings, one for each variant of a network."""
    return Path(__file__).resolve().parent / "recipes"


def recipes() -> list[str]:
    """Names of the recipes of the package."""
    return sorted(path.stem for path in recipes_directory().glob("*.json"))


@dataclass(frozen=True)
class ModelFolder:
    """A directory with a ``model.json`` and the files it names."""

    path: Path

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is on disk now."""
        return load_manifest(self.path / MANIFEST)

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def graph(self) -> Path:
        return self.path / GRAPH

    @property
    def ranges(self) -> Path:
        return self.path / RANGES

    @property
    def engines(self) -> Path:
        return self.path / ENGINES

    def require(self, name: str, fix: str) -> Path:
        """The verified path of file ``name``.

        Raises:
            ManifestError: it is not in the manifest, is missing, or its SHA-256 differs from the manifest's.
        """
        info, path = self.manifest.files.get(name), self.path / name
        if info is None or not path.is_file():
            raise ManifestError(f"{self.path}: no {name}", f"a model folder that has one ($.files.{name})", fix)
        if path.stat().st_size != info.bytes or (found := sha256_file(path)) != info.sha256:
            got = f"{path.stat().st_size} bytes" if path.stat().st_size != info.bytes else f"sha256 {found[:12]}..."
            raise ManifestError(
                f"{self.path / MANIFEST} $.files.{name}: the file has {got}",
                f"{info.bytes} bytes, sha256 {info.sha256[:12]}...",
                f"restore {name}, or {fix}",
            )
        return path

    def update(self, **changes: object) -> Manifest:
        """Replace top-level manifest keys under a lock and save; returns the new manifest."""
        with file_lock(self.path / ".lock"):
            return self._save(self.manifest, changes)

    def register(self, *names: str, **changes: object) -> Manifest:
        """Record the size and SHA-256 of files just written, together with other manifest changes.

        Figures measured on another graph are dropped, and with other ranges those of INT8.
        """
        with file_lock(self.path / ".lock"):
            manifest = self.manifest
            entries = {name: describe_file(self.path / name) for name in names}
            changed = {name for name, entry in entries.items() if manifest.files.get(name) != entry}
            kept = [item for item in manifest.measurements if not _outdated(item, changed)]
            return self._save(manifest, {"files": {**manifest.files, **entries}, "measurements": kept, **changes})

    def _save(self, manifest: Manifest, changes: dict[str, object]) -> Manifest:
        # model_copy does not validate: what could not be read again must never be written.
        if unknown := set(changes) - set(Manifest.model_fields):
            raise ManifestError(f"{self.path / MANIFEST} $.{min(unknown)}: unknown key")
        document = {**manifest.to_json(), **to_jsonable_python(changes)}
        checked = parse_manifest(json.dumps(document), str(self.path / MANIFEST))
        checked.save(self.path / MANIFEST)
        return checked

    def add_measurement(self, measurement: Measurement) -> None:
        """Keep a figure; an older one of the same kind, backend, precision, data and machine is replaced."""

        def key(item: Measurement) -> tuple[str, ...]:
            return item.what, item.backend, item.precision, item.data, item.machine

        with file_lock(self.path / ".lock"):
            manifest = self.manifest
            kept = [item for item in manifest.measurements if key(item) != key(measurement)]
            self._save(manifest, {"measurements": [*kept, measurement]})


def _outdated(item: Measurement, changed: set[str]) -> bool:
    # Other ranges change the accuracy of INT8, and with it which nodes stay float: its latency too.
    return GRAPH in changed or (RANGES in changed and item.precision == "int8")


def describe_file(path: Path) -> FileInfo:
    """Size and SHA-256 of ``path``."""
    return FileInfo(sha256=sha256_file(path), bytes=path.stat().st_size)


def open_folder(model: str | Path) -> ModelFolder:
    """The model folder at a path, or the working copy of a shipped model of that name.

    Raises:
        EdgesegError: neither; the message lists the shipped names.
    """
    path = Path(model)
    if (path / MANIFEST).is_file():
        load_manifest(path / MANIFEST)
        return ModelFolder(path)
    if str(model) in shipped_models():
        return _working_copy(str(model))
    shipped = ", ".join(shipped_models()) or "none"
    expected = f"a directory with a {MANIFEST}, or a shipped model ({shipped})"
    raise EdgesegError(f"{model}: no model folder", expected, "see `edgeseg zoo`")


def working_copies() -> list[ModelFolder]:
    """The working copies of shipped models that are in use, by name."""
    paths = sorted((home() / "models").glob(f"[!.]*/{MANIFEST}"))
    return [ModelFolder(path.parent) for path in paths]


def _working_copy(name: str) -> ModelFolder:
    # Engines and ranges are written beside the model, and site-packages may be read-only.
    source, target = zoo_directory() / name, home() / "models" / name
    try:
        check_writable(target.parent)
    except EdgesegError as error:
        raise EdgesegError(error.what, error.expected, "set EDGESEG_HOME to a directory that can be written") from error
    stamp = sha256_file(source / MANIFEST)
    with file_lock(home() / "models" / f".{name}.lock"):
        marker = target / ".shipped"
        if not marker.is_file() or marker.read_text() != stamp:
            with atomic_directory(target) as temporary:
                shutil.copytree(source, temporary, dirs_exist_ok=True)
                (temporary / marker.name).write_text(stamp)
    return ModelFolder(target)
