"""Mailboxes, pools and statistics: the small parts that bound latency and memory."""

from __future__ import annotations

import threading
import time

import numpy as np
from edgeseg_live.frames import ArrayPool, BufferPool, Frame, Result
from edgeseg_live.slot import Slot
from edgeseg_live.stats import Meter, Series
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.sampled_from(["put", "take"]), max_size=60))
def test_slot_gives_the_newest_and_counts_what_it_replaced(steps: list[str]) -> None:
    lost: list[int] = []
    slot: Slot[int] = Slot(on_drop=lost.append)
    waiting: list[int] = []
    taken = 0
    for number, step in enumerate(steps):
        if step == "put":
            assert slot.put(number)
            waiting.append(number)
        elif waiting:
            assert slot.take() == waiting[-1]
            taken += 1
            waiting.clear()
    puts = steps.count("put")
    slot.close(discard=True)
    assert slot.dropped + taken + bool(waiting) == puts
    assert len(lost) == puts - taken


def test_slot_that_keeps_all_makes_the_producer_wait() -> None:
    slot: Slot[int] = Slot(keep_all=True)

    def produce() -> None:
        for number in range(50):
            slot.put(number)
        slot.close()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    time.sleep(0.05)
    assert producer.is_alive(), "the second put must wait for the first to be taken"
    found = []
    while (item := slot.take()) is not None:
        found.append(item)
    assert found == list(range(50))
    assert slot.dropped == 0


def test_closing_wakes_a_waiting_producer_and_consumer() -> None:
    full: Slot[int] = Slot(keep_all=True)
    full.put(1)
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(full.put(2)), daemon=True)]
    empty: Slot[int] = Slot()
    threads.append(threading.Thread(target=lambda: answers.append(empty.take()), daemon=True))
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(5)
    assert sorted(map(str, answers)) == ["False", "None"]
    assert full.take() == 1, "what was placed before the end is still read"
    assert full.take() is None


def test_pool_lends_the_same_memory_again_and_forgets_another_size() -> None:
    pool = ArrayPool(np.uint8)
    first = pool.get((4, 6))
    pool.put(first)
    assert pool.get((4, 6)) is first
    pool.put(first)
    pool.get((8, 6))
    pool.put(first)
    assert len(pool) == 0, "arrays of the size before the change are let go"


def test_buffer_pool_of_unknown_shape_keeps_nothing() -> None:
    pool = BufferPool(lambda: None)
    assert pool.get() is None
    pool.put(None)
    assert pool.get() is None


def test_result_returns_its_buffers_after_the_last_holder() -> None:
    pools = ArrayPool(np.uint8), ArrayPool(np.uint8)
    labels, overlay = pools[0].get((2, 2)), pools[1].get((2, 2, 3))
    result = Result(Frame(0, overlay, 0, 0), labels, overlay, pools)
    result.retain()
    result.release()
    assert len(pools[0]) == len(pools[1]) == 0
    result.release()
    assert len(pools[0]) == len(pools[1]) == 1


def test_series_forgets_the_oldest() -> None:
    series = Series(kept=100)
    for value in range(1000):
        series.add_ns(value * 1_000_000)
    summary = series.summary()
    assert series.count == 1000
    assert summary["max"] == 999
    assert 940 < summary["p50"] < 960
    assert Series().summary()["p99"] == 0


def test_meter_tells_the_rate_and_notices_silence() -> None:
    meter = Meter()
    now = time.monotonic_ns()
    for index in range(101):
        meter.tick(now - (100 - index) * 10_000_000)
    assert abs(meter.fps - 100) < 1e-6
    assert 80 < meter.recent_fps() < 101
    silent = Meter()
    for index in range(10):
        silent.tick(now - 10_000_000_000 + index)
    assert silent.recent_fps() == 0
    assert Meter().fps == 0
