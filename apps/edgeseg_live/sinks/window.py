"""``window:`` shows the overlay in a desktop window; q or Escape closes it."""

from __future__ import annotations

import os
import re
from typing import Any

import cv2

from edgeseg.errors import SourceError
from edgeseg_live.frames import Result
from edgeseg_live.sinks import Host, SinkClosedError, SinkOptions
from edgeseg_live.uri import Uri

_TITLE = "edgeseg"
_QUIT_KEYS = (ord("q"), 27)


def gui_missing() -> SourceError | None:
    """Why no window can be shown here. imshow must not be tried: without a display it ends the process."""
    toolkit = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if toolkit is None or toolkit.group(1).upper() == "NONE":
        return SourceError(
            "--sink window: this OpenCV has no windows (the headless wheel)",
            "OpenCV with a GUI",
            "replace opencv-python-headless by opencv-python (pip uninstall, pip install), or use --sink http://127.0.0.1:8080",
        )
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return SourceError(
            "--sink window: no display",
            "DISPLAY or WAYLAND_DISPLAY in the environment",
            "run it in a desktop, or use --sink http://127.0.0.1:8080",
        )
    return None


class WindowSink:
    shown = "window:"
    lossless = False

    def __init__(self) -> None:
        self._open = False

    def check(self) -> None:
        if reason := gui_missing():
            raise reason

    def open(self, host: Host) -> None:
        self.check()

    def write(self, result: Result) -> None:
        # All calls come from the sink's thread: toolkits want one thread, not the main one.
        if not self._open:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(_TITLE, result.overlay.shape[1], result.overlay.shape[0])
            self._open = True
        cv2.imshow(_TITLE, result.overlay)
        closed = cv2.waitKey(1) & 0xFF in _QUIT_KEYS or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        if closed:
            raise SinkClosedError

    def close(self) -> None:
        if self._open:
            cv2.destroyAllWindows()
            self._open = False

    def abort(self) -> None:
        self.close()

    def details(self) -> dict[str, Any]:
        return {}


def open_sink(uri: Uri, options: SinkOptions) -> WindowSink:
    uri.only()
    return WindowSink()
