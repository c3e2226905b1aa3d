"""Video sources by URI. A source is one file here and one line in ``SOURCES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

from edgeseg.errors import SourceError
from edgeseg_live.frames import Image
from edgeseg_live.uri import Uri, parse_uri

SOURCES = {
    "file": "edgeseg_live.sources.file",
    "folder": "edgeseg_live.sources.folder",
    "v4l2": "edgeseg_live.sources.v4l2",
    "rtsp": "edgeseg_live.sources.stream",
    "rtsps": "edgeseg_live.sources.stream",
    "http": "edgeseg_live.sources.stream",
    "https": "edgeseg_live.sources.stream",
    "synth": "edgeseg_live.sources.synth",
}
"""Scheme -> module with ``open_source(uri: Uri) -> Source``."""


class Picture(NamedTuple):
    """``image`` (H, W, 3) uint8 BGR that nobody writes to afterwards; ``media_ns`` its place in a recording, if it has one."""

    image: Image
    media_ns: int | None = None


class CorruptFrameError(Exception):
    """One packet or picture could not be decoded; the next may be whole."""


class Source(Protocol):
    """One connection to a source. It is opened, read and closed by one thread, and then thrown away.

    Attributes:
        live: frames come when they come, and its end is a fault to recover from; else its end is the end.
    """

    live: bool

    def open(self) -> None:
        """Connect. May hang: the supervisor gives up on it."""
        ...

    def read(self) -> Picture | None:
        """The next picture, None at the end.

        Raises:
            CorruptFrameError: this picture is damaged; read on.
        """
        ...

    def close(self) -> None: ...


def resolve(text: str) -> Uri:
    """The URI with the scheme that serves it: a bare path is a device, a folder or a file."""
    uri = parse_uri(text)
    if uri.scheme not in ("", "file"):
        return uri
    recorded = "folder" if Path(uri.rest).is_dir() else "file"
    scheme = "v4l2" if uri.rest.startswith("/dev/video") else recorded
    return Uri(uri.text, scheme, uri.rest, uri.options)


@dataclass(frozen=True)
class SourceFactory:
    """Makes a fresh connection to one source each time it is called.

    Attributes:
        live: see ``Source.live``.
        shown: the URI without secrets.
    """

    make: Callable[[], Source]
    live: bool
    shown: str

    def __call__(self) -> Source:
        return self.make()


def source_factory(text: str) -> SourceFactory:
    """The source that a URI names. What is plainly wrong is refused here, before anything starts.

    Raises:
        SourceError: unknown scheme or option, missing file, folder or device.
    """
    uri = resolve(text)
    if uri.scheme not in SOURCES:
        known = "a path, " + ", ".join(f"{scheme}:" for scheme in SOURCES)
        raise SourceError(f"--source {uri.shown}: unknown scheme {uri.scheme!r}", known, "see docs/live.md")
    make: Callable[[Uri], Source] = import_module(SOURCES[uri.scheme]).open_source
    return SourceFactory(lambda: make(uri), make(uri).live, uri.shown)
