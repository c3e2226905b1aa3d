"""A video file, by PyAV.

PyAV rather than cv2: a damaged packet is told apart from the end of the file, time stamps are exact, rotation is known, and
decoding and colour conversion hold no GIL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError, InvalidDataError

from edgeseg.errors import SourceError
from edgeseg_live.frames import Image
from edgeseg_live.sources import CorruptFrameError, Picture
from edgeseg_live.uri import Uri

# One thread keeps the other cores for inference; above Full HD one is too slow.
_ONE_THREAD_PIXELS = 1920 * 1088
_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class BgrConverter:
    """Decoded frames of any pixel format to (H, W, 3) uint8 BGR without a second copy; rows may be strided."""

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> Image:
        bgr = self._reformatter.reformat(frame, format="bgr24")
        plane: Any = bgr.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: bgr.height, : bgr.width * 3]
        image = rows.reshape(bgr.height, bgr.width, 3)
        turn = _ROTATIONS.get(int(getattr(frame, "rotation", 0)) % 360)
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)


def decode_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of ``stream``; in place of a packet that cannot be decoded, the exception that says why."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError as error:
            yield error


def next_image(frames: Iterator[Any], convert: BgrConverter) -> tuple[Image, Any] | None:
    """The next decoded image and its frame; None at the end.

    Raises:
        CorruptFrameError: the packet or the frame is damaged.
    """
    frame = next(frames, None)
    if frame is None:
        return None
    if isinstance(frame, Exception):
        raise CorruptFrameError(str(frame))
    if frame.is_corrupt:
        raise CorruptFrameError("the decoder flagged the frame")
    return convert(frame), frame


class FileSource:
    """``file:PATH`` or a bare path; ``?loop=1`` plays it for ever."""

    live = False

    def __init__(self, uri: Uri) -> None:
        self._uri = uri.only("loop")
        self._loop = bool(uri.integer("loop", 0, 0, 1))
        self._path = Path(uri.rest)
        if not self._path.is_file():
            raise SourceError(
                f"--source {uri.shown}: no such file", "a video, a picture or a folder of pictures", "correct the path"
            )
        self._container: Any = None
        self._offset_ns = self._last_ns = 0
        self._period_ns = 40_000_000
        self._convert = BgrConverter()

    def open(self) -> None:
        try:
            self._container = av.open(str(self._path))
            if not self._container.streams.video:
                raise SourceError(f"{self._path}: no video stream", "a video or picture that FFmpeg reads", "choose another file")
        except FFmpegError as error:
            raise SourceError(
                f"{self._path}: {error.strerror}", "a video or picture that FFmpeg reads", "choose another file"
            ) from error
        stream = self._container.streams.video[0]
        small = stream.codec_context.width * stream.codec_context.height <= _ONE_THREAD_PIXELS
        stream.thread_type = "NONE" if small else "AUTO"
        if stream.average_rate:
            self._period_ns = int(1_000_000_000 / stream.average_rate)
        self._frames = decode_packets(self._container, stream)

    def read(self) -> Picture | None:
        found = next_image(self._frames, self._convert)
        if found is None:
            return self._read_again() if self._loop and self._last_ns > self._offset_ns else None
        image, frame = found
        at_ns = self._last_ns + self._period_ns if frame.time is None else self._offset_ns + int(frame.time * 1_000_000_000)
        self._last_ns = max(at_ns, self._last_ns)
        return Picture(image, self._last_ns)

    def _read_again(self) -> Picture | None:
        self.close()
        self._offset_ns = self._last_ns + self._period_ns
        self._last_ns = self._offset_ns
        self.open()
        return self.read()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def open_source(uri: Uri) -> FileSource:
    return FileSource(uri)
