"""Recordings: playable, timed as the source was, whole or absent, and still playable when the disk fills up."""

from __future__ import annotations

import errno
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from edgeseg_live.frames import ArrayPool, Frame, Result
from edgeseg_live.pipeline import Pipeline
from edgeseg_live.sinks import SinkOptions, make_sink, mp4
from edgeseg_live.supervise import SupervisorConfig

from edgeseg.errors import SourceError
from tests.apps.fakes import FakeSegmenter, Keeper, clip

LOSSLESS = SupervisorConfig(lossless=True, realtime=False)


def result(image: np.ndarray, media_ms: float) -> Result:
    labels = np.zeros(image.shape[:2], np.uint8)
    return Result(Frame(0, image, 0, int(media_ms * 1e6)), labels, image, (ArrayPool(np.uint8), ArrayPool(np.uint8)))


def record(path: Path, images: list[np.ndarray], times_ms: list[float], options: str = "") -> None:
    sink = make_sink(f"mp4:{path}{options}")
    sink.open(None)  # type: ignore[arg-type]
    for image, time_ms in zip(images, times_ms, strict=True):
        sink.write(result(image, time_ms))
    sink.close()


def read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="bgr24") for frame in frames], [float(frame.time) * 1000 for frame in frames]


def test_colours_and_times_survive(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "out.mp4"
    images = [np.full((64, 96, 3), colour, np.uint8) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)]]
    record(path, images, [1000, 1040, 1200, 1210])
    found, times = read(path)
    assert np.allclose(times, [0, 40, 200, 210], atol=0.1), "pauses and drops keep their length"
    for image, got in zip(images, found, strict=True):
        assert np.abs(got.astype(int) - image.astype(int)).max() < 12
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name in ("h264", "mpeg4")


def test_times_that_stand_still_are_pushed_apart(tmp_path: Path) -> None:
    record(tmp_path / "o.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, [5, 5, 5])
    _, times = read(tmp_path / "o.mp4")
    assert times == sorted(set(times))


def test_odd_sizes_are_padded_and_other_sizes_fitted(tmp_path: Path) -> None:
    grey = np.full((63, 95, 3), 100, np.uint8)
    tall = np.full((120, 40, 3), 200, np.uint8)
    record(tmp_path / "o.mp4", [grey, tall], [0, 40])
    (first, second), _ = read(tmp_path / "o.mp4")
    assert first.shape == second.shape == (64, 96, 3)
    assert np.abs(first.astype(int) - 100).max() < 12
    assert second[32, 48].min() > 180
    assert second[32, 4].max() < 30


@pytest.mark.parametrize(
    ("size", "target"), [((720, 1280), (1280, 720)), ((719, 1279), (1280, 720)), ((1080, 1920), (1280, 720)), ((9, 7), (4, 2))]
)
def test_fit_gives_the_size_asked_for(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert mp4.fit(np.zeros((*size, 3), np.uint8), *target).shape == (target[1], target[0], 3)


def test_without_h264_it_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4.av, "codecs_available", {"mpeg4"})
    record(tmp_path / "o.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 5, [0, 40, 80, 120, 160])
    found, times = read(tmp_path / "o.mp4")
    assert len(found) == 5
    assert np.allclose(times, [0, 40, 80, 120, 160], atol=0.1)


def test_no_frame_no_file(tmp_path: Path) -> None:
    record(tmp_path / "o.mp4", [], [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_has_the_final_name(tmp_path: Path) -> None:
    sink = make_sink(str(tmp_path / "o.mp4"))
    sink.open(None)  # type: ignore[arg-type]
    sink.write(result(np.zeros((32, 32, 3), np.uint8), 0))
    assert not (tmp_path / "o.mp4").exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.parametrize("options", ["?preset=warp", "?crf=99", "?crf=x", "?quality=1"])
def test_wrong_options(options: str) -> None:
    with pytest.raises(SourceError):
        make_sink(f"mp4:o.mp4{options}")


def test_read_only_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    sink = make_sink(str(tmp_path / "file" / "o.mp4"))
    with pytest.raises(Exception, match="can be written"):
        sink.open(None)  # type: ignore[arg-type]


class _SmallDisk:
    """A raw stream that has ``room`` bytes until the reserve is given back."""

    def __init__(self, stream: object, room: int, reserve: Path) -> None:
        self._stream, self._room, self._reserve = stream, room, reserve

    def write(self, data: memoryview) -> int:
        if self._stream.tell() + len(data) > self._room and self._reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._stream.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def test_disk_full_ends_the_recording_which_plays_while_inference_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = mp4._Output.__init__

    def small(self: mp4._Output, path: Path) -> None:
        init(self, path)
        self._stream = _SmallDisk(self._stream, 60_000, self._reserve)

    monkeypatch.setattr(mp4._Output, "__init__", small)
    keeper = Keeper()
    sink = make_sink(f"mp4:{tmp_path / 'o.mp4'}?crf=0")
    noisy = FakeSegmenter()
    pipeline = Pipeline(noisy, clip(600), [sink, keeper], LOSSLESS)
    pipeline.start()
    assert pipeline.wait(60)
    report = pipeline.snapshot()
    assert len(keeper.numbers) == report["frames"] == 600
    assert "disk full" in report["sinks"][0]["error"]
    assert report["sinks"][0]["errors"] == 1
    found, _ = read(tmp_path / "o.mp4")
    assert 0 < len(found) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"], "neither a temporary file nor the reserve is left"


def test_a_disk_that_breaks_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = mp4._Output.__init__

    class Broken(_SmallDisk):
        def write(self, data: memoryview) -> int:
            if self._stream.tell() + len(data) > self._room:
                raise OSError(errno.EROFS, "Read-only file system")
            return self._stream.write(data)

    def broken(self: mp4._Output, path: Path) -> None:
        init(self, path)
        self._stream = Broken(self._stream, 20_000, self._reserve)

    monkeypatch.setattr(mp4._Output, "__init__", broken)
    keeper = Keeper()
    pipeline = Pipeline(FakeSegmenter(), clip(300), [make_sink(f"mp4:{tmp_path / 'o.mp4'}?crf=0"), keeper], LOSSLESS)
    pipeline.start()
    assert pipeline.wait(60)
    assert len(keeper.numbers) == 300
    assert pipeline.snapshot()["sinks"][0]["error"]
    assert list(tmp_path.iterdir()) == []


def test_force_replaces(tmp_path: Path) -> None:
    (tmp_path / "o.mp4").write_bytes(b"old")
    with pytest.raises(SourceError, match="exists"):
        make_sink(str(tmp_path / "o.mp4")).open(None)  # type: ignore[arg-type]
    make_sink(str(tmp_path / "o.mp4"), SinkOptions(force=True)).open(None)  # type: ignore[arg-type]
    assert (tmp_path / "o.mp4").read_bytes() == b"old", "only a finished recording replaces it"


def test_recording_opens_in_opencv(tmp_path: Path) -> None:
    pipeline = Pipeline(FakeSegmenter(), clip(50), [make_sink(str(tmp_path / "o.mp4"))], LOSSLESS)
    pipeline.start()
    assert pipeline.wait(30)
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 50
    assert abs(capture.get(cv2.CAP_PROP_FPS) - 25) < 0.1
