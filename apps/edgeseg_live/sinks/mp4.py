"""``FILE.mp4?preset=ultrafast&crf=23``: an H.264 recording that plays whatever ends it short of SIGKILL.

It is written under a temporary name and takes its own when it is complete. When the disk fills up, space that was put aside
at the start is given back so that the index can still be written: the recording ends early, but it plays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from edgeseg.errors import SourceError
from edgeseg.files import atomic_path, check_place, check_writable
from edgeseg_live.frames import Image, Result
from edgeseg_live.sinks import Host, SinkOptions
from edgeseg_live.uri import Uri

# MPEG-4 part 2 takes no more than 65535; this divides by the usual rates.
_TICKS_PER_S = 60_000
_RESERVE_BYTES = 4 << 20
_MPEG_RANGE = 1
_BT601 = 6
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")


class DiskFullError(OSError):
    """Writing stopped, and the space put aside made it possible to finish the file."""


class _Output:
    """What the muxer writes to: a file that lives on the reserve once the disk is full."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=0)
        self._reserve = path.with_name(path.name + ".reserve")
        self.name, self.full = str(path), False
        self._put_aside()

    def _put_aside(self) -> None:
        size = min(_RESERVE_BYTES, shutil.disk_usage(self._reserve.parent).free // 8)
        with contextlib.suppress(OSError), self._reserve.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(size, 1))

    def write(self, data: Any) -> int:
        view, done = memoryview(data), 0
        while done < len(view):
            try:
                done += self._stream.write(view[done:]) or 0
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self.full:
                    raise
                self.full = True
                self._reserve.unlink(missing_ok=True)
        return done

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        self._reserve.unlink(missing_ok=True)


class Mp4Sink:
    """Frames keep the time stamps of their source, so drops and pauses do not change the speed."""

    lossless = True

    def __init__(self, uri: Uri, options: SinkOptions) -> None:
        uri.only("preset", "crf")
        self.shown, self._force = uri.shown, options.force
        self._target = Path(uri.rest)
        self._preset = uri.take("preset", "ultrafast")
        self._crf = uri.integer("crf", 23, 0, 51)
        if self._preset not in _PRESETS:
            raise SourceError(f"{self.shown}: preset={self._preset!r}", f"one of {', '.join(_PRESETS)}", "correct ?preset=")
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._output: _Output | None = None
        self._first_ns, self._last_pts = 0, -1
        self._broken = False

    def check(self) -> None:
        if not self._target.name or self._target.is_dir():
            raise SourceError(f"--sink {self.shown}: not a file name", "FILE.mp4", "name a file")
        if self._target.exists() and not self._force:
            raise SourceError(f"--sink {self.shown}: the file exists", "a new file", "another name, or --force")
        check_place(self._target.parent)

    def open(self, host: Host) -> None:
        self.check()
        check_writable(self._target.parent)

    def write(self, result: Result) -> None:
        if self._output is not None and self._output.full:
            raise DiskFullError(errno.ENOSPC, "disk full; the recording ends here, and plays", str(self._target))
        if self._container is None:
            self._begin(result)
        pts = (result.frame.media_ns - self._first_ns) * _TICKS_PER_S // 1_000_000_000
        frame = self._to_yuv(result.overlay)
        frame.pts = self._last_pts = max(pts, self._last_pts + 1)
        frame.time_base = Fraction(1, _TICKS_PER_S)
        try:
            self._mux(frame)
        except Exception:
            self._broken = True
            raise

    def _begin(self, result: Result) -> None:
        temporary = self._stack.enter_context(atomic_path(self._target))
        self._output = _Output(temporary)
        self._container = av.open(self._output, "w", format="mp4")
        height, width = result.frame.size
        self._stream = _add_stream(self._container, width + width % 2, height + height % 2, self._preset, self._crf)
        self._first_ns = result.frame.media_ns

    def _to_yuv(self, image: Image) -> Any:
        # cv2 converts six times faster than swscale here; both are BT.601, limited range.
        fitted = fit(image, self._stream.width, self._stream.height)
        planes: Any = cv2.cvtColor(fitted, cv2.COLOR_BGR2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = _BT601, _MPEG_RANGE
        return frame

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Write the index and give the file its name; a recording with no frame leaves no file.

        Raises:
            OSError: the disk failed; the temporary file is removed.
        """
        if self._container is None:
            return
        with self._stack:
            try:
                if self._broken:
                    raise SourceError(f"{self._target}: the recording could not be finished", fix="free some space")
                self._mux(None)
                self._container.close()
            finally:
                self._release()

    def _release(self) -> None:
        container, self._container = self._container, None
        with contextlib.suppress(Exception):
            container.close()
        if self._output is not None:
            self._output.close()

    def abort(self) -> None:
        """No file is made before the first frame."""

    def details(self) -> dict[str, Any]:
        return {"path": str(self._target), "codec": self._stream.codec_context.name if self._stream is not None else ""}


def _add_stream(container: Any, width: int, height: int, preset: str, crf: int) -> Any:
    if "libx264" in av.codecs_available:
        stream = container.add_stream(
            "libx264", rate=Fraction(30), options={"preset": preset, "crf": str(crf), "tune": "zerolatency"}
        )
    else:
        stream = container.add_stream("mpeg4", rate=Fraction(30))
        stream.bit_rate = width * height * 6
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
    stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _MPEG_RANGE
    # One thread: the other cores are the network's.
    stream.codec_context.thread_count = 1
    return stream


def fit(image: Image, width: int, height: int) -> Image:
    """``image`` at (height, width, 3): the same pixels, padded by an edge row or column, or scaled between black bars."""
    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return image
    if 0 <= width - columns <= 1 and 0 <= height - rows <= 1:
        return np.asarray(cv2.copyMakeBorder(image, 0, height - rows, 0, width - columns, cv2.BORDER_REPLICATE), np.uint8)
    scale = min(width / columns, height / rows)
    inner = max(1, round(columns * scale)), max(1, round(rows * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return canvas


def open_sink(uri: Uri, options: SinkOptions) -> Mp4Sink:
    return Mp4Sink(uri, options)
