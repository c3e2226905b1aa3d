"""Sources: URIs, files, folders, cameras that are not there, network streams, the synthetic street."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from edgeseg_live.frames import Frame
from edgeseg_live.sources import CorruptFrameError, Picture, source_factory
from edgeseg_live.sources import resolve as resolve_source
from edgeseg_live.supervise import Supervisor, SupervisorConfig
from edgeseg_live.uri import parse_uri, redact
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import SourceError

MAX = SupervisorConfig(lossless=False, realtime=False)


def write_clip(path: Path, count: int = 30, size: tuple[int, int] = (128, 72), codec: str = "mpeg4", gop: int = 12) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.gop_size = *size, gop
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 60, (size[1], size[0], 3), np.uint8)
            noise[:, : size[0] * (index + 1) // count] += 150
            for packet in stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def read_all(text: str) -> tuple[list[Picture], int]:
    source = source_factory(text)()
    source.open()
    pictures, damaged = [], 0
    while True:
        try:
            found = source.read()
        except CorruptFrameError:
            damaged += 1
            continue
        if found is None:
            source.close()
            return pictures, damaged
        pictures.append(found)


def test_a_file_gives_all_frames_with_growing_times(tmp_path: Path) -> None:
    pictures, damaged = read_all(str(write_clip(tmp_path / "a clip.mp4")))
    assert len(pictures) == 30
    assert damaged == 0
    assert [round(item.media_ns / 1e6) for item in pictures] == [index * 40 for index in range(30)]
    reader = cv2.VideoCapture(str(tmp_path / "a clip.mp4"))
    for item in pictures:
        assert item.image.shape == (72, 128, 3)
        assert item.image.dtype == np.uint8
        # Two decoders' colour conversions round differently.
        assert np.abs(item.image.astype(int) - reader.read()[1].astype(int)).mean() < 2


def test_odd_widths_have_strided_rows_and_whole_pixels(tmp_path: Path) -> None:
    pictures, _ = read_all(str(write_clip(tmp_path / "odd.mp4", 3, (98, 66))))
    assert pictures[0].image.shape == (66, 98, 3)
    assert pictures[0].image.base is not None


def test_a_loop_goes_on_with_growing_times(tmp_path: Path) -> None:
    write_clip(tmp_path / "c.mp4", 5)
    source = source_factory(f"file:{tmp_path / 'c.mp4'}?loop=1")()
    source.open()
    times = [source.read().media_ns for _ in range(17)]
    source.close()
    assert [round(time / 1e6) for time in times] == [index * 40 for index in range(17)]


def test_damaged_packets_cost_frames_and_not_the_rest(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.avi", 60, codec="mjpeg", gop=1)
    data = bytearray(path.read_bytes())
    starts = [index for index in range(len(data)) if data[index : index + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 60
    for start in starts[10:15]:
        data[start : start + 800] = bytes(800)  # nearly all of it: what is left is no picture
    path.write_bytes(data)
    pictures, damaged = read_all(str(path))
    assert damaged == 5
    assert len(pictures) >= 54


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.avi", 40, codec="mjpeg", gop=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pictures, _ = read_all(str(path))
    assert 10 < len(pictures) < 40


def test_random_bytes_behind_a_video_header_end_in_an_error_or_an_end(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 20)
    data = bytearray(path.read_bytes())
    data[200:] = np.random.default_rng(0).integers(0, 256, len(data) - 200, np.uint8).tobytes()
    path.write_bytes(data)
    frames: list[Frame] = []
    supervisor = Supervisor(source_factory(str(path)), lambda frame: frames.append(frame) is None, MAX)
    supervisor.start()
    supervisor.join(20)
    assert supervisor.status()["state"] in ("failed", "ended")
    assert supervisor.error is not None or frames


def test_audio_only_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        for packet in stream.encode(sound):
            container.mux(packet)
    source = source_factory(str(path))()
    with pytest.raises(SourceError, match="no video stream"):
        source.open()


def test_one_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.full((40, 60, 3), 77, np.uint8))
    pictures, _ = read_all(str(tmp_path / "one.png"))
    assert len(pictures) == 1
    assert pictures[0].image.shape == (40, 60, 3)


def test_a_folder_skips_damaged_pictures(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), np.full((32, 32, 3), 50 * index, np.uint8))
    (tmp_path / "0.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:-40])
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "5.png").write_bytes(b"\x89PNG nothing")
    pictures, damaged = read_all(f"{tmp_path}/")
    assert damaged == 3
    assert len(pictures) == 2
    assert pictures[1].media_ns == 300_000_000


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures"):
        source_factory(str(tmp_path))


def test_a_camera_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(SourceError, match=r"/dev/video87: no such device.*this machine has"):
        source_factory("/dev/video87")


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(SourceError, match="not a device"):
        source_factory(f"v4l2:{tmp_path / 'video0'}")


def test_the_street_depends_on_seed_and_time_alone() -> None:
    def read(count: int) -> list[Picture]:
        source = source_factory("synth:?size=160x96&fps=15&seed=3")()
        source.open()
        return [source.read() for _ in range(count)]

    first, second = read(3), read(3)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert first[0].image.shape == (96, 160, 3)
    assert not np.array_equal(first[0].image, first[2].image)
    assert round(first[2].media_ns / 1e6) == 133


def test_a_looped_street_repeats_what_it_drew() -> None:
    source = source_factory("synth:?size=64x48&loop=3")()
    source.open()
    pictures = [source.read() for _ in range(7)]
    assert pictures[6].image is pictures[3].image is pictures[0].image
    assert [round(item.media_ns / 1e8) for item in pictures] == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("name", "frames", "shape"), [("car-detection.mp4", 377, (432, 768, 3)), ("mmtracking_demo.mp4", 8, (1080, 1920, 3))]
)
def test_real_clips_decode_to_their_last_frame(shared_data: Path, name: str, frames: int, shape: tuple[int, int, int]) -> None:
    source = source_factory(str(shared_data / "videos" / name))()
    source.open()
    shapes = [item.image.shape for item in iter(source.read, None)]
    assert shapes == [shape] * frames


# --- network -------------------------------------------------------------------------------------------------------


class _Camera(BaseHTTPRequestHandler):
    """An MJPEG camera that gives 20 pictures and hangs up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        for index in range(20):
            image = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
            jpeg = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            self.wfile.write(head + jpeg + b"\r\n")

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}/video"
    server.shutdown()
    server.server_close()


def test_a_network_camera_that_hangs_up_is_called_again(camera: str) -> None:
    frames: list[Frame] = []
    done = threading.Event()

    def deliver(frame: Frame) -> bool:
        frames.append(frame)
        if len(frames) >= 50:
            done.set()
        return True

    supervisor = Supervisor(source_factory(camera), deliver, SupervisorConfig(backoff_first_s=0.01, backoff_most_s=0.02))
    supervisor.start()
    assert done.wait(30), supervisor.status()
    status = supervisor.status()
    supervisor.stop()
    supervisor.join(10)
    assert status["reconnects"] >= 2
    assert (status["width"], status["height"]) == (64, 48)
    assert "secret" not in str(status)


def test_an_unreachable_camera_says_so_without_its_password() -> None:
    source = source_factory("rtsp://admin:hunter2@127.0.0.1:1/stream")()
    with pytest.raises(SourceError) as caught:
        source.open()
    assert "hunter2" not in str(caught.value)
    assert "refused" in str(caught.value).lower()


# --- URIs ----------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=40).filter(lambda text: "\x00" not in text))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    uri = parse_uri(text)
    assert uri.text == text
    if not uri.scheme:
        assert uri.rest == text


@pytest.mark.parametrize(
    ("text", "scheme", "rest", "options"),
    [
        ("clip.mp4", "", "clip.mp4", {}),
        ("what?.mp4", "", "what?.mp4", {}),
        ("file:a b.mp4?loop=1", "file", "a b.mp4", {"loop": "1"}),
        ("file:///tmp/x.mp4", "file", "/tmp/x.mp4", {}),
        ("synth:", "synth", "", {}),
        ("synth:?size=64x48", "synth", "", {"size": "64x48"}),
        ("rtsp://h/p?x=1", "rtsp", "//h/p?x=1", {"x": "1"}),
        ("/dev/video0", "", "/dev/video0", {}),
    ],
)
def test_parts_of_a_uri(text: str, scheme: str, rest: str, options: dict[str, str]) -> None:
    uri = parse_uri(text)
    assert (uri.scheme, uri.rest, uri.options) == (scheme, rest, options)


def test_a_bare_device_is_a_camera(tmp_path: Path) -> None:
    assert resolve_source("/dev/video3").scheme == "v4l2"
    assert resolve_source(str(tmp_path)).scheme == "folder"
    assert resolve_source(str(tmp_path / "x.mp4")).scheme == "file"


def test_secrets_are_not_shown() -> None:
    text = redact("rtsp://admin:pa55@cam/1?token=abc&x=1 and http://u@h")
    assert "pa55" not in text
    assert "abc" not in text
    assert "x=1" in text
