"""``http://127.0.0.1:PORT?quality=80&width=1280&fps=30``: the page that shows the overlay in a browser."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgeseg.errors import SourceError
from edgeseg_live.frames import Image, Result
from edgeseg_live.sinks import Host, SinkOptions
from edgeseg_live.stats import NS_PER_S
from edgeseg_live.uri import Uri
from edgeseg_live.watch import RateCap
from edgeseg_live.web.guard import is_local
from edgeseg_live.web.hub import make_packet
from edgeseg_live.web.server import PageServer

_STATS_LIFE_NS = NS_PER_S // 4
_AREA_STEP = 4


class PageSink:
    """A frame is taken once its JPEG is with the server; until when a browser has shown it is ``display_ms``."""

    lossless = False

    def __init__(self, uri: Uri, options: SinkOptions) -> None:
        uri.only("quality", "width", "fps", "token")
        self.shown = uri.shown
        self._host, port = _address(uri)
        self._width = uri.integer("width", 1280, 64, 16384)
        self._jpeg = [cv2.IMWRITE_JPEG_QUALITY, uri.integer("quality", 80, 10, 100)]
        self._cap = RateCap(uri.number("fps", 30, 0, 1000) or None)
        token = uri.take("token", options.token)
        if not is_local(self._host) and not token:
            raise SourceError(
                f"--sink {self.shown}: {self._host or 'all addresses'} can be reached from other machines",
                "a token, or 127.0.0.1",
                "--token SECRET (or EDGESEG_TOKEN), or --sink http://127.0.0.1:8080",
            )
        self._port, self._token = port, token
        self._server: PageServer | None = None
        self._host_view: Host | None = None
        self._classes = 0
        self._cached: tuple[int, dict[str, Any]] = (0, {})

    def check(self) -> None:
        """Whether the port is free shows when it is opened."""

    def open(self, host: Host) -> None:
        self._host_view, self._classes = host, len(host.manifest.classes)
        classes = [{"name": item.name, "colour": list(item.colour)} for item in host.manifest.classes]
        self._server = PageServer(self._host, self._port, self._token, self._stats, classes)
        self.url = self._server.start()

    def _stats(self) -> dict[str, Any]:
        # Percentiles over thousands of values are not worked out anew for every viewer.
        made_ns, report = self._cached
        if self._host_view is not None and time.monotonic_ns() - made_ns > _STATS_LIFE_NS:
            report = {"model": self._host_view.manifest.name, **self._host_view.snapshot()}
            self._cached = time.monotonic_ns(), report
        return report

    def write(self, result: Result) -> None:
        now = time.monotonic_ns()
        if self._server is None or not self._server.hub.watched or self._cap.wait_ns(now) > 0:
            return
        self._cap.passed(now)
        ok, data = cv2.imencode(".jpg", self._fitted(result.overlay), self._jpeg)
        if ok:
            meta = {"area": class_areas(result.labels, self._classes)}
            self._server.hub.publish(make_packet(result.frame.index, result.frame.capture_ns, data.tobytes(), meta))

    def _fitted(self, image: Image) -> Any:
        height, width = image.shape[:2]
        if width <= self._width:
            return image
        return cv2.resize(image, (self._width, max(1, height * self._width // width)), interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def abort(self) -> None:
        self.close()

    def details(self) -> dict[str, Any]:
        if self._server is None:
            return {}
        hub = self._server.hub
        return {"url": self._server.url, "viewers": hub.counts(), "sent": hub.sent, "display_ms": hub.display.summary()}


def class_areas(labels: Image, classes: int) -> list[float]:
    """Share of the picture in each class, 0..1, seen on every fourth pixel of every fourth row."""
    counts = np.bincount(labels[::_AREA_STEP, ::_AREA_STEP].ravel(), minlength=256)
    return [round(float(count) / max(1, int(counts.sum())), 4) for count in counts[:classes]]


def _address(uri: Uri) -> tuple[str, int]:
    try:
        parts = urlsplit(uri.text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not uri.rest.startswith("//") or port is None or parts.path not in ("", "/"):
        raise SourceError(f"--sink {uri.shown}: no address", "http://127.0.0.1:PORT (port 0 takes any)", "correct the URI")
    return host, port


def open_sink(uri: Uri, options: SinkOptions) -> PageSink:
    return PageSink(uri, options)
