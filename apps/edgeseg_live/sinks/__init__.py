"""Where finished frames go, by URI. A sink is one file here and one line in ``SINKS``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from edgeseg.errors import SourceError
from edgeseg.manifest import Manifest
from edgeseg_live.frames import Result
from edgeseg_live.uri import Uri, parse_uri

SINKS = {
    "mp4": "edgeseg_live.sinks.mp4",
    "http": "edgeseg_live.sinks.page",
    "window": "edgeseg_live.sinks.window",
    "labels": "edgeseg_live.sinks.labels",
    "none": "edgeseg_live.sinks.none",
}
"""Scheme -> module with ``open_sink(uri: Uri, options: SinkOptions) -> Sink``."""


class SinkClosedError(Exception):
    """The viewer closed the sink: the pipeline ends."""


@dataclass(frozen=True)
class SinkOptions:
    """What the command line says to all sinks: the page's token, and whether existing files are replaced."""

    token: str = ""
    force: bool = False


class Host(Protocol):
    """The pipeline as a sink sees it."""

    manifest: Manifest

    def snapshot(self) -> dict[str, Any]: ...


class Sink(Protocol):
    """Takes finished frames, in a thread of its own after ``open``.

    Attributes:
        shown: the URI without secrets.
        lossless: a recording: when nothing is live the pipeline waits for it rather than drop a frame.
    """

    shown: str
    lossless: bool

    def check(self) -> None:
        """Refuse an output that exists or cannot be written, before any work; makes nothing.

        Raises:
            EdgesegError: says why.
        """
        ...

    def open(self, host: Host) -> None:
        """Before the first frame; refuses what cannot work.

        Raises:
            SourceError: says why.
        """
        ...

    def write(self, result: Result) -> None:
        """Take a frame; its arrays are lent until this returns.

        Raises:
            SinkClosedError: the viewer has gone.
        """
        ...

    def close(self) -> None:
        """Finish well: after this a recording plays."""
        ...

    def abort(self) -> None:
        """Leave nothing behind: the pipeline never started."""
        ...

    def details(self) -> dict[str, Any]:
        """More for the report, JSON-ready."""
        ...


def resolve(text: str) -> Uri:
    """The URI with the scheme that serves it: ``out.mp4`` is a recording, ``dir/`` a folder of label maps."""
    uri = parse_uri(text)
    if uri.scheme not in ("", "file"):
        return uri
    is_video = Path(uri.rest).suffix.lower() in (".mp4", ".m4v", ".mov")
    is_folder = uri.rest.endswith("/") or Path(uri.rest).is_dir()
    return Uri(uri.text, "mp4" if is_video else "labels" if is_folder else "?", uri.rest, uri.options)


def make_sink(text: str, options: SinkOptions | None = None) -> Sink:
    """The sink that a URI names, not yet open.

    Raises:
        SourceError: unknown scheme or option.
    """
    uri = resolve(text)
    if uri.scheme not in SINKS:
        known = "FILE.mp4, DIR/, " + ", ".join(f"{scheme}:" for scheme in SINKS)
        raise SourceError(f"--sink {uri.shown}: nothing is known for it", known, "see docs/live.md")
    sink: Sink = import_module(SINKS[uri.scheme]).open_sink(uri, options or SinkOptions())
    return sink
