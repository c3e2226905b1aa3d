"""Sources that hang, die, freeze, change, flood and deliver damaged frames."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest
from edgeseg_live.frames import Frame
from edgeseg_live.sources import SourceFactory
from edgeseg_live.supervise import Supervisor, SupervisorConfig
from edgeseg_live.watch import Backoff, FreezeDetector, Pacer, RateCap

from edgeseg.errors import SourceError
from tests.apps.fakes import CORRUPT, ScriptedSource, picture, scripted

QUICK = SupervisorConfig(open_s=0.4, stall_s=0.4, freeze_s=0.3, backoff_first_s=0.01, backoff_most_s=0.02, poll_s=0.01)


class Capture:
    """Runs a supervisor until ``count`` frames came, or it ended."""

    def __init__(self, factory: SourceFactory, config: SupervisorConfig = QUICK) -> None:
        self.frames: list[Frame] = []
        self.supervisor = Supervisor(factory, self._deliver, config)
        self.wanted = 0
        self._enough = threading.Event()

    def _deliver(self, frame: Frame) -> bool:
        self.frames.append(frame)
        if self.wanted and len(self.frames) >= self.wanted:
            self._enough.set()
        return True

    def until(self, count: int) -> Capture:
        self.wanted = count
        self.supervisor.start()
        assert self._enough.wait(15), f"only {len(self.frames)} frames; {self.supervisor.status()}"
        self.supervisor.stop()
        self.supervisor.join(5)
        return self

    def to_the_end(self) -> Capture:
        self.supervisor.start()
        self.supervisor.join(15)
        return self

    def count(self, name: str) -> int:
        return self.supervisor.counters[name]


def frames_of(*numbers: int) -> Callable[[], ScriptedSource]:
    return lambda: ScriptedSource([picture(number) for number in numbers], live=True)


def test_an_open_that_hangs_is_given_up_and_tried_again() -> None:
    hang = threading.Event()
    capture = Capture(scripted(lambda: ScriptedSource([], live=True, opening=[hang]), frames_of(1, 2, 3))).until(3)
    hang.set()
    assert capture.count("reconnects") >= 1
    assert len(capture.frames) >= 3


def test_threads_that_never_come_back_are_bounded() -> None:
    hang = threading.Event()
    capture = Capture(scripted(lambda: ScriptedSource([], live=True, opening=[hang])))
    capture.supervisor.start()
    deadline = time.monotonic() + 20
    while "still hang" not in capture.supervisor.status()["note"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    assert capture.count("connections") == 4
    capture.supervisor.stop()
    capture.supervisor.join(5)
    hang.set()


def test_a_dead_stream_is_opened_again_for_ever() -> None:
    factory = scripted(
        frames_of(1),
        lambda: ScriptedSource([picture(2), SourceError("unplugged")], live=True),
        lambda: ScriptedSource([None], live=True),
        frames_of(3),
    )
    capture = Capture(factory).until(5)
    assert capture.count("reconnects") >= 4
    assert [frame.index for frame in capture.frames] == list(range(len(capture.frames)))
    assert all(a.media_ns < b.media_ns for a, b in itertools.pairwise(capture.frames))


def test_the_state_tells_why_it_waits_and_hides_passwords() -> None:
    fault = SourceError("rtsp://admin:secret@camera/1: connection refused")
    config = SupervisorConfig(backoff_first_s=5, backoff_most_s=5)
    capture = Capture(scripted(lambda: ScriptedSource([fault], live=True)), config)
    capture.supervisor.start()
    deadline = time.monotonic() + 5
    while capture.supervisor.status()["state"] != "waiting" and time.monotonic() < deadline:
        time.sleep(0.01)
    status = capture.supervisor.status()
    capture.supervisor.stop()
    capture.supervisor.join(5)
    assert status["state"] == "waiting"
    assert "connection refused" in status["note"]
    assert "secret" not in str(status)


def test_a_stream_that_falls_silent_is_left_and_its_late_frames_refused() -> None:
    hang = threading.Event()
    silent = lambda: ScriptedSource([picture(1), hang, picture(66)], live=True)  # noqa: E731
    capture = Capture(scripted(silent, frames_of(2, 3))).until(3)
    hang.set()
    time.sleep(0.1)
    assert capture.count("stalled") == 1
    assert 66 not in [int(frame.image[0, 0, 0]) for frame in capture.frames]


def test_a_frozen_picture_is_noticed() -> None:
    frozen = lambda: ScriptedSource(itertools.chain.from_iterable((0.02, picture(9)) for _ in range(200)), live=True)  # noqa: E731
    capture = Capture(scripted(frozen, frames_of(1, 2, 3, 4)))
    capture.supervisor.start()
    deadline = time.monotonic() + 10
    while not capture.count("frozen") and time.monotonic() < deadline:
        time.sleep(0.01)
    capture.supervisor.stop()
    capture.supervisor.join(5)
    assert capture.count("frozen") == 1


def test_a_recording_of_a_still_scene_is_not_frozen() -> None:
    steps = [step for index in range(30) for step in (0.02, picture(1, media_ns=index * 1000))]
    capture = Capture(scripted(lambda: ScriptedSource(steps, live=False), live=False)).to_the_end()
    assert len(capture.frames) == 30
    assert capture.count("frozen") == 0


def test_damaged_frames_are_dropped_and_counted() -> None:
    steps = [picture(0), CORRUPT, CORRUPT, picture(1), CORRUPT, picture(2)]
    capture = Capture(scripted(lambda: ScriptedSource(steps, live=False), live=False)).to_the_end()
    assert len(capture.frames) == 3
    assert capture.count("corrupt") == 3
    assert capture.supervisor.error is None


def test_a_recording_without_one_whole_frame_is_an_error() -> None:
    capture = Capture(scripted(lambda: ScriptedSource([CORRUPT] * 3, live=False), live=False)).to_the_end()
    assert isinstance(capture.supervisor.error, SourceError)
    assert "no frame could be decoded" in str(capture.supervisor.error)


def test_a_recording_that_cannot_be_opened_is_an_error_and_not_retried() -> None:
    broken = lambda: ScriptedSource([], live=False, opening=[SourceError("no video stream")])  # noqa: E731
    capture = Capture(scripted(broken, live=False)).to_the_end()
    assert "no video stream" in str(capture.supervisor.error)
    assert capture.count("connections") == 1
    assert capture.supervisor.status()["state"] == "failed"


def test_size_changes_are_counted() -> None:
    steps = [picture(0), picture(1, (48, 64)), picture(2, (48, 64)), picture(3)]
    capture = Capture(scripted(lambda: ScriptedSource(steps, live=False), live=False)).to_the_end()
    assert capture.count("size_changes") == 2


def test_a_flood_is_capped() -> None:
    config = SupervisorConfig(max_fps=50, freeze_s=0)
    flood = lambda: ScriptedSource((step for index in itertools.count() for step in (0.001, picture(index))), live=True)  # noqa: E731
    capture = Capture(scripted(flood), config).until(30)
    took_s = (capture.frames[-1].capture_ns - capture.frames[0].capture_ns) / 1e9
    assert len(capture.frames) <= took_s * 50 + 3
    assert capture.count("capped") > 0


def test_a_live_source_is_capped_even_if_nobody_asks() -> None:
    flood = lambda: ScriptedSource((picture(index) for index in itertools.count()), live=True)  # noqa: E731
    capture = Capture(scripted(flood), SupervisorConfig(freeze_s=0)).until(60)
    assert capture.count("capped") > 60


def test_a_lossless_recording_is_slowed_down_by_the_cap() -> None:
    steps = [picture(index, media_ns=index) for index in range(10)]
    config = SupervisorConfig(lossless=True, realtime=False, max_fps=50)
    begun = time.monotonic()
    capture = Capture(scripted(lambda: ScriptedSource(steps, live=False), live=False), config).to_the_end()
    assert len(capture.frames) == 10
    assert time.monotonic() - begun > 0.12


def test_a_recording_plays_at_its_own_speed() -> None:
    steps = [picture(index, media_ns=index * 30_000_000) for index in range(10)]
    begun = time.monotonic()
    capture = Capture(scripted(lambda: ScriptedSource(steps, live=False), live=False)).to_the_end()
    assert time.monotonic() - begun > 0.25
    assert len(capture.frames) == 10


def test_a_source_that_gives_no_picture_is_told_so() -> None:
    bad = picture(0)._replace(image=picture(0).image[:, :, :2])
    capture = Capture(scripted(lambda: ScriptedSource([bad], live=False), live=False)).to_the_end()
    assert "(H, W, 3) uint8" in str(capture.supervisor.error)


def test_backoff_grows_to_its_limit_with_jitter_and_starts_anew() -> None:
    backoff = Backoff(seed=3)
    waits = [backoff.next_s() for _ in range(12)]
    assert 0.75 <= waits[0] <= 1.25
    assert all(wait <= 30 for wait in waits)
    assert min(waits[6:]) >= 22.5
    assert len(set(waits[:5])) == 5
    assert waits[:5] != [Backoff(seed=4).next_s() for _ in range(5)]
    backoff.reset()
    assert backoff.next_s() <= 1.25


def test_freeze_needs_every_pixel_to_be_the_same() -> None:
    detector = FreezeDetector(1.0)
    image = picture(1, (720, 1280)).image
    moved = image.copy()
    moved[700, 1001] ^= 1
    second = 1_000_000_000
    assert not detector.frozen(image, 0)
    assert not detector.frozen(image.copy(), second // 2)
    assert detector.frozen(image.copy(), second)
    assert not detector.frozen(moved, second + 1)
    assert not detector.frozen(moved[:360], second + 2)


@pytest.mark.parametrize(("source_fps", "cap", "expected"), [(60, 30, 30), (30, 30, 30), (25, 30, 25), (100, 30, 30)])
def test_cap_lets_an_even_rate_through(source_fps: int, cap: int, expected: int) -> None:
    limiter, passed = RateCap(cap), 0
    for index in range(source_fps * 10):
        now = index * 1_000_000_000 // source_fps + 5_000_000_000
        if limiter.wait_ns(now) <= 0:
            limiter.passed(now)
            passed += 1
    assert abs(passed / 10 - expected) <= 1.1


def test_pacer_does_not_race_after_a_long_stall() -> None:
    pacer = Pacer()
    assert pacer.wait_ns(0, 0) == 0
    assert pacer.wait_ns(40_000_000, 10_000_000) == 30_000_000
    assert pacer.wait_ns(80_000_000, 5_000_000_000) < 0
    assert pacer.wait_ns(120_000_000, 5_000_000_000) == 40_000_000


def test_the_limits_a_camera_is_held_to() -> None:
    config = SupervisorConfig()
    assert (config.open_s, config.stall_s, config.backoff_first_s, config.backoff_most_s) == (5, 5, 1, 30)
