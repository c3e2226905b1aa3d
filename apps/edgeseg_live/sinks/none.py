"""``none:`` takes every frame and shows it to nobody: for measuring everything but the output."""

from __future__ import annotations

from typing import Any

from edgeseg_live.frames import Result
from edgeseg_live.sinks import Host, SinkOptions
from edgeseg_live.uri import Uri


class NoSink:
    shown = "none:"
    lossless = True

    def check(self) -> None:
        """Nothing to refuse."""

    def open(self, host: Host) -> None:
        """Nothing to open."""

    def write(self, result: Result) -> None:
        """Nothing to write."""

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to undo."""

    def details(self) -> dict[str, Any]:
        return {}


def open_sink(uri: Uri, options: SinkOptions) -> NoSink:
    uri.only()
    return NoSink()
