"""Latency: what is reported, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.engines import load_segmenter
from edgeseg.errors import EdgesegError
from edgeseg.measure.bench import bench, latency, timed
from edgeseg.measure.machine import machine_line
from tests.tiny_model import frames, tiny_folder


def test_percentiles() -> None:
    found = latency([float(value) for value in range(1, 102)])
    assert (found.p50, found.p95, found.p99, found.mean, found.min, found.max, found.runs) == (51, 96, 100, 51, 1, 101, 101)


def test_timed_counts_runs_and_warms_up() -> None:
    calls = []
    assert len(timed(lambda: calls.append(1), 1.0, 0.0, runs=7)) == 7
    assert len(calls) == 8
    assert len(timed(lambda: None, 0.001, 0.0)) >= 10


def test_bench_reports_and_keeps(tmp_path: Path) -> None:
    folder, shares = tiny_folder(tmp_path / "tiny"), []
    with load_segmenter(folder, "ort", "fp32", 1) as segmenter:
        result = bench(folder, segmenter, frames(2), threads=1, runs=12, warmup_s=0, progress=shares.append)
    document = result.to_json()
    assert {"engine_ms", "end_to_end_ms", "fps", "machine", "backend", "precision"} <= document.keys()
    for name in ("engine_ms", "end_to_end_ms"):
        assert 0 < document[name]["p50"] <= document[name]["p95"] <= document[name]["p99"]
        assert document[name]["runs"] == 12
    assert document["fps"] == pytest.approx(1e3 / document["end_to_end_ms"]["mean"])
    assert document["frame_size"] == (80, 60)
    assert shares[-1] == 2
    (kept,) = folder.manifest.measurements
    assert kept.what == "bench"
    assert kept.machine == machine_line()
    assert kept.values["engine_p50_ms"] == result.engine_ms.p50


@pytest.mark.parametrize("options", [{"duration_s": 0.0}, {"runs": 0}, {"warmup_s": -1.0}])
def test_senseless_settings_are_refused(tmp_path: Path, options: dict) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    with load_segmenter(folder, "ort", "fp32", 1) as segmenter:
        with pytest.raises(EdgesegError):
            bench(folder, segmenter, frames(1), threads=1, **options)
        with pytest.raises(EdgesegError, match="at least one frame"):
            bench(folder, segmenter, [], threads=1)


def test_machine_line_names_cores() -> None:
    assert " core" in machine_line()
