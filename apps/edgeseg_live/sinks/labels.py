"""``labels:DIR`` or ``DIR/``: one 8-bit PNG of class numbers a frame, named after the frame's number in the source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2

from edgeseg.errors import SourceError
from edgeseg.files import check_place, check_writable
from edgeseg_live.frames import Result
from edgeseg_live.sinks import Host, SinkOptions
from edgeseg_live.uri import Uri

# Fast compression: label maps are large flat areas, and the other stages need the core.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class LabelSink:
    lossless = True

    def __init__(self, uri: Uri, options: SinkOptions) -> None:
        uri.only()
        self.shown, self._force = uri.shown, options.force
        self._directory = Path(uri.rest)
        if not uri.rest:
            raise SourceError(f"--sink {uri.shown}: no folder", "labels:DIR", "name a folder")

    def check(self) -> None:
        if self._directory.is_dir() and not self._force and any(self._directory.glob("*.png")):
            raise SourceError(
                f"--sink {self.shown}: the folder has pictures already", "an empty or new folder", "another folder, or --force"
            )
        check_place(self._directory)

    def open(self, host: Host) -> None:
        self.check()
        check_writable(self._directory)

    def write(self, result: Result) -> None:
        ok, data = cv2.imencode(".png", result.labels, _PNG)
        if not ok:
            raise SourceError(f"{self.shown}: the label map cannot be encoded", "a PNG")
        target = self._directory / f"{result.frame.index:06d}.png"
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            temporary.write_bytes(data.tobytes())
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Every file is whole already."""

    def abort(self) -> None:
        """Nothing was written."""

    def details(self) -> dict[str, Any]:
        return {"directory": str(self._directory)}


def open_sink(uri: Uri, options: SinkOptions) -> LabelSink:
    return LabelSink(uri, options)
