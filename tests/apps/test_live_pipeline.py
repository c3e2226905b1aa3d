"""The pipeline: order, drops, bounded latency, back-pressure, limits, failures and an orderly end."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgeseg_live.pipeline import Pipeline
from edgeseg_live.sinks import make_sink
from edgeseg_live.supervise import SupervisorConfig

from edgeseg.errors import SourceError
from tests.apps.fakes import FakeSegmenter, Keeper, ScriptedSource, clip, picture, scripted

LOSSLESS = SupervisorConfig(lossless=True, realtime=False)
FAST_RETRY = SupervisorConfig(backoff_first_s=0.01, backoff_most_s=0.02, freeze_s=0)


def run(pipeline: Pipeline, timeout_s: float = 20) -> dict:
    pipeline.start()
    assert pipeline.wait(timeout_s), "the pipeline did not end"
    return pipeline.snapshot()


def endless(period_s: float, size: tuple[int, int] = (72, 128)) -> ScriptedSource:
    """A camera: a picture every ``period_s``, for ever."""

    def steps():
        for index in itertools.count():
            yield period_s
            yield picture(index, size)

    return ScriptedSource(steps(), live=True)


def test_every_frame_of_a_recording_arrives_in_order_and_once() -> None:
    fast, slow = Keeper(), Keeper(delay_s=0.002)
    report = run(Pipeline(FakeSegmenter(infer_s=0.001), clip(60), [fast, slow], LOSSLESS))
    assert fast.numbers == slow.numbers == list(range(60))
    assert report["frames"] == 60
    assert report["dropped"] == 0
    assert report["source"]["state"] == "ended"
    assert fast.closed == slow.closed == 1


def test_labels_belong_to_their_frame_and_are_not_overwritten_while_lent() -> None:
    keeper = Keeper()
    segmenter = FakeSegmenter()
    run(Pipeline(segmenter, clip(20), [keeper], LOSSLESS))
    expected = segmenter.decode(segmenter.infer(segmenter.preprocess(picture(7).image)), (72, 128))
    assert np.array_equal(keeper.labels[7], expected[:2, :2])


def test_frames_ends_after_exactly_that_many() -> None:
    keeper = Keeper()
    report = run(Pipeline(FakeSegmenter(), clip(500), [keeper], LOSSLESS, frames=17))
    assert keeper.numbers == list(range(17))
    assert report["frames"] == 17
    assert report["dropped"] == 0


class Gated(FakeSegmenter):
    """Inference waits for its gate, after the warm-up."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def infer(self, tensor: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if self.inferences:
            self.gate.wait(30)
        return super().infer(tensor, out)


def test_latency_is_bounded_by_the_stages_however_much_arrives_meanwhile() -> None:
    segmenter, keeper, hold, done = Gated(), Keeper(lossless=False), threading.Event(), threading.Event()

    def steps():
        for index in range(200):
            yield picture(index)
            yield 0.001
        done.set()
        yield hold

    source = scripted(lambda: ScriptedSource(steps(), live=True))
    pipeline = Pipeline(segmenter, source, [keeper], SupervisorConfig(freeze_s=0, stall_s=60, max_fps=1e6))
    pipeline.start()
    assert done.wait(30)
    segmenter.gate.set()
    wait_until(lambda: 199 in keeper.numbers)
    hold.set()
    pipeline.stop()
    assert pipeline.wait(20)
    report = pipeline.snapshot()
    assert report["frames"] <= 5, "at most one frame in each stage and mailbox is older than the newest"
    assert report["dropped"] >= 195
    assert keeper.indices == sorted(set(keeper.indices))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_screen_holds_up_neither_the_pipeline_nor_a_fast_one() -> None:
    slow, fast = Keeper(lossless=False, delay_s=0.1), Keeper(lossless=False)
    report = run(Pipeline(FakeSegmenter(), scripted(lambda: endless(0.005)), [slow, fast], FAST_RETRY, frames=60))
    assert report["frames"] == 60
    assert len(slow.numbers) < len(fast.numbers)
    assert report["sinks"][0]["dropped"] == 60 - len(slow.numbers) > 0


def test_a_screen_beside_a_recording_drops_while_the_recording_keeps_all() -> None:
    recording, screen = Keeper(), Keeper(lossless=False, delay_s=0.05)
    run(Pipeline(FakeSegmenter(), clip(40), [recording, screen], LOSSLESS))
    assert recording.numbers == list(range(40))
    assert len(screen.numbers) < 40


def test_time_stamps_are_monotonic_and_immune_to_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a year and more ahead
    monkeypatch.setattr(time, "time_ns", lambda: 4 * 10**18)
    keeper = Keeper()
    before = time.monotonic_ns()
    report = run(Pipeline(FakeSegmenter(), clip(10), [keeper], LOSSLESS))
    assert all(before <= at <= time.monotonic_ns() for at in keeper.captured_ns)
    assert keeper.captured_ns == sorted(keeper.captured_ns)
    assert 0 < report["latency_ms"]["max"] < 20_000


def test_a_failing_sink_is_left_out_and_the_others_go_on() -> None:
    broken, whole = Keeper(fail_at=5), Keeper()
    report = run(Pipeline(FakeSegmenter(), clip(30), [broken, whole], LOSSLESS))
    assert len(whole.numbers) == 30
    assert len(broken.numbers) == 4
    assert broken.closed == 1
    assert report["sinks"][0]["errors"] == 1
    assert "No space left" in report["sinks"][0]["error"]


def test_inference_goes_on_when_the_only_sink_fails() -> None:
    report = run(Pipeline(FakeSegmenter(), clip(30), [Keeper(fail_at=1)], LOSSLESS))
    assert report["frames"] == 30


def test_a_stage_that_fails_ends_the_pipeline_and_closes_the_sinks() -> None:
    segmenter, keeper = FakeSegmenter(), Keeper()
    segmenter.fail_at = 6  # the first is the warm-up
    pipeline = Pipeline(segmenter, clip(1000), [keeper], LOSSLESS)
    pipeline.start()
    with pytest.raises(RuntimeError, match="the engine broke"):
        pipeline.wait(20)
    assert keeper.closed == 1
    assert keeper.numbers == list(range(len(keeper.numbers)))


def test_stop_finishes_the_frames_under_way() -> None:
    keeper = Keeper()
    pipeline = Pipeline(FakeSegmenter(infer_s=0.01), scripted(lambda: endless(0.005)), [keeper], FAST_RETRY)
    pipeline.start()
    wait_until(lambda: len(keeper.numbers) > 3)
    pipeline.stop()
    assert pipeline.wait(10)
    assert keeper.closed == 1
    report = pipeline.snapshot()
    assert report["source"]["state"] == "stopped"
    assert len(keeper.numbers) == report["frames"] > 0
    assert not [thread for thread in threading.enumerate() if thread.name in ("capture", "supervisor", "inference")]


def test_a_sink_that_cannot_open_closes_those_opened_before() -> None:
    class Shut(Keeper):
        def open(self, host: object) -> None:
            raise SourceError("port taken")

    first = Keeper()
    with pytest.raises(SourceError, match="port taken"):
        Pipeline(FakeSegmenter(), clip(3), [first, Shut()], LOSSLESS).start()
    assert first.aborted == 1


def test_size_changes_mid_stream_are_followed_and_leak_nothing() -> None:
    sizes = [(72, 128), (48, 64), (72, 128)]
    steps = [picture(index, sizes[index // 10]) for index in range(30)]
    keeper = Keeper()
    pipeline = Pipeline(FakeSegmenter(), scripted(lambda: ScriptedSource(steps, live=False), live=False), [keeper], LOSSLESS)
    report = run(pipeline)
    assert keeper.sizes == [sizes[index // 10] for index in range(30)]
    assert report["source"]["size_changes"] == 2
    assert all(len(pool) <= 8 for pool in pipeline._renderer.pools)


def test_report_has_what_the_command_line_promises() -> None:
    report = run(Pipeline(FakeSegmenter(), clip(10), [Keeper()], LOSSLESS))
    assert set(report["latency_ms"]) >= {"p50", "p95", "p99"}
    assert set(report["stages_ms"]) == {"capture", "preprocess", "inference", "postprocess", "output"}
    assert report["fps"] > 0
    assert report["stages_ms"]["inference"]["p50"] > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_label_maps_stop_on_a_full_disk_and_inference_goes_on(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.startswith(".000003"):
            write(self, data[:10])
            raise OSError(code, os.strerror(code), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    keeper = Keeper()
    pipeline = Pipeline(FakeSegmenter(), clip(20), [make_sink(f"labels:{tmp_path}"), keeper], LOSSLESS)
    pipeline.start()
    assert pipeline.wait(30)
    assert len(keeper.numbers) == 20
    assert os.strerror(code) in pipeline.snapshot()["sinks"][0]["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{index:06d}.png" for index in range(3)]
