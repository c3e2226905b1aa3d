"""Where the plugin library is, and whether it may be loaded: it runs with the rights of whoever loads it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeseg.errors import BackendError
from edgeseg.files import sha256_file
from edgeseg.folder import home

FILE = "libedgeseg_trt.so"
_MOST_LINKS = 40  # as many as the kernel follows


@dataclass(frozen=True)
class PluginLibrary:
    """A plugin library that is there and that nobody else can change."""

    path: Path

    @cached_property
    def sha256(self) -> str:
        """What an engine's key holds: an engine built with another library is another engine."""
        return sha256_file(self.path)


def plugins_directory() -> Path:
    """Where ``edgeseg plugins build`` puts the library."""
    return home() / "plugins"


def plugin_library() -> PluginLibrary:
    """The library of this machine: ``$EDGESEG_PLUGINS`` (the file or its directory), else the one that was built here.

    Raises:
        BackendError: there is none, or others could change it.
    """
    named = os.environ.get("EDGESEG_PLUGINS")
    return open_library(Path(named) if named else plugins_directory())


def open_library(path: Path) -> PluginLibrary:
    """The library at a path, or in a directory.

    Raises:
        BackendError: there is none, or others could change it.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise BackendError(f"{file}: no TensorRT plugin library there", FILE, "edgeseg plugins build")
    check_trusted(file)
    return PluginLibrary(file.resolve())


def check_trusted(path: Path) -> None:
    """Refuse a library that every user could change or replace, directly or through a link on the way to it.

    Raises:
        BackendError: names the file or directory that is open to all.
    """
    for file in _links(path):
        around = file.parent.resolve()
        for place in (file, *file.parents, around, *around.parents):
            mode = place.stat().st_mode
            # In a directory like /tmp nobody replaces what others own, but anybody puts a file there first: fine above, not around.
            harmless = mode & stat.S_ISVTX and stat.S_ISDIR(mode) and place.resolve() != around
            if mode & stat.S_IWOTH and not harmless:
                raise BackendError(
                    f"{path}: not loaded, every user may write {place}",
                    "a library that only its owner can change",
                    f"chmod o-w '{place}', or move the library elsewhere",
                )


def _links(path: Path) -> list[Path]:
    """The file as it was named, and what each link leads to, ending with the file itself."""
    found = [Path(os.path.abspath(path))]
    while found[-1].is_symlink() and len(found) < _MOST_LINKS:
        found.append(Path(os.path.abspath(found[-1].parent.resolve() / os.readlink(found[-1]))))
    return found
