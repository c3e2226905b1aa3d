"""A network camera: ``rtsp://`` and ``http://`` (MJPEG), by PyAV with everything that buffers switched off."""

from __future__ import annotations

from typing import Any

import av
from av.error import FFmpegError

from edgeseg.errors import SourceError
from edgeseg_live.sources import Picture
from edgeseg_live.sources.file import BgrConverter, decode_packets, next_image
from edgeseg_live.uri import Uri, redact

_TIMEOUT_S = 5.0
_RTSP = {"rtsp_transport": "tcp", "probesize": "32", "analyzeduration": "0"}
_LOW_LATENCY = {"fflags": "nobuffer", "flags": "low_delay"}


class StreamSource:
    """``rtsp://[user:password@]host[:port]/path``. Opening and each read give up after 5 s.

    Threads of the decoder would each hold a frame back, so it has none.
    """

    live = True

    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._options = {**_LOW_LATENCY, **(_RTSP if uri.scheme.startswith("rtsp") else {})}
        self._container: Any = None
        self._convert = BgrConverter()
        if not uri.rest.startswith("//") or len(uri.rest) < 3:
            raise SourceError(f"--source {uri.shown}: no host", f"{uri.scheme}://host/path", "correct the URI")

    def open(self) -> None:
        try:
            self._container = av.open(self._uri.text, options=self._options, timeout=(_TIMEOUT_S, _TIMEOUT_S))
        except (FFmpegError, OSError) as error:
            raise SourceError(
                f"{self._uri.shown}: {_reason(error)}", "a reachable camera", "check address, user and password"
            ) from error
        if not self._container.streams.video:
            raise SourceError(f"{self._uri.shown}: no video in the stream", "a stream with video", "check the path")
        stream = self._container.streams.video[0]
        stream.thread_type = "NONE"
        self._frames = decode_packets(self._container, stream)

    def read(self) -> Picture | None:
        try:
            found = next_image(self._frames, self._convert)
        except (FFmpegError, OSError) as error:
            raise SourceError(f"{self._uri.shown}: {_reason(error)}") from error
        return None if found is None else Picture(found[0])

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _reason(error: Exception) -> str:
    # The full text repeats the URL, password and all.
    return redact(str(getattr(error, "strerror", None) or type(error).__name__))


def open_source(uri: Uri) -> StreamSource:
    return StreamSource(uri)
