"""``auto``: what is measured, what holds, what is remembered."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgeseg.engines import build_engine, select
from edgeseg.engines.select import Candidate, choose, measure, recorded_choices
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Measurement
from tests.tiny_model import calibrated, frames, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path / "tiny"))


def fake(latencies: dict[tuple[str, str], tuple[float, bool]]):  # type: ignore[no-untyped-def]
    def measured(folder: ModelFolder, pairs: list, *_: object) -> list[Candidate]:
        return [Candidate(*pair, latencies[pair][0], 0.9, latencies[pair][1]) for pair in pairs if pair in latencies]

    return measured


def test_measures_every_installed_backend(folder: ModelFolder) -> None:
    pairs = [("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32")]
    found = measure(folder, pairs, 1, frames=lambda: frames(2))
    assert [(item.backend, item.precision) for item in found] == pairs
    assert all(item.latency_ms > 0 for item in found)
    assert found[0].argmax_agreement == 1.0
    assert found[2].argmax_agreement > 0.999
    assert [item.holds for item in found] == [item.argmax_agreement >= select.AGREEMENT[item.precision] for item in found]


def test_choice_is_recorded_and_reused(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {("ort", "fp32"): (3.0, True), ("openvino", "fp32"): (2.0, True)}
    monkeypatch.setattr(select, "measure", fake(speeds))
    assert choose(folder, "auto", "fp32", 1) == ("openvino", "fp32")
    assert recorded_choices(folder)[0]["candidates"][0]["latency_ms"] == 3.0
    monkeypatch.setattr(select, "measure", fake({("ort", "fp32"): (1.0, True)}))
    assert choose(folder, "auto", "fp32", 1) == ("openvino", "fp32"), "recorded"
    assert choose(folder, "auto", "fp32", 2) == ("ort", "fp32"), "other threads are measured anew"
    calibrated(folder, seed=5)
    assert choose(folder, "auto", "fp32", 1) == ("openvino", "fp32"), "ranges do not matter to fp32"


def test_accuracy_outweighs_speed(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {("ort", "int8"): (5.0, True), ("openvino", "int8"): (1.0, False)}
    monkeypatch.setattr(select, "measure", fake(speeds))
    assert choose(folder, "auto", "int8", 1) == ("ort", "int8")


def test_nothing_holds_is_an_error(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "measure", fake({("ort", "int8"): (5.0, False), ("openvino", "int8"): (1.0, False)}))
    with pytest.raises(BackendError, match=r"no engine keeps the accuracy: .*calibrate"):
        choose(folder, "auto", "int8", 1)
    assert recorded_choices(folder) == []


def test_auto_precision_needs_no_ranges(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "float")
    engine = build_engine(folder, "auto", "auto", 1)
    assert engine.precision != "int8"
    assert {item["precision"] for item in recorded_choices(folder)[0]["candidates"]} >= {"fp32"}


def test_auto_int8_without_ranges_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="edgeseg calibrate"):
        build_engine(tiny_folder(tmp_path / "float"), "auto", "int8", 1)


def test_no_backend_has_the_precision(folder: ModelFolder) -> None:
    with pytest.raises(BackendError, match="nothing here runs bf16 on backend ort"):
        choose(folder, "ort", "bf16", 1)
    with pytest.raises(BackendError, match="nothing here runs int4"):
        choose(folder, "auto", "int4", 1)


@pytest.mark.parametrize("text", ["", "[]", '{"choices": [1]}', '{"choices": [{"stamp": 1}]}'])
def test_damaged_record_is_measured_again(folder: ModelFolder, text: str) -> None:
    folder.engines.mkdir()
    (folder.engines / "auto.json").write_text(text)
    assert recorded_choices(folder) == []


def evaluated(backend: str, precision: str, mean_iou: float, machine: str | None = None) -> Measurement:
    return Measurement(
        what="eval",
        backend=backend,
        precision=precision,
        machine=machine or f"a CPU, 2 cores, {platform.machine()}",
        date="2026-01-01",
        data="scenes test",
        values={"mean_iou": mean_iou},
    )


def test_measured_accuracy_outweighs_agreement(folder: ModelFolder) -> None:
    assert select.measured_drop(folder, "ort", "int8") is None
    for figure in (evaluated("ort", "fp32", 0.70), evaluated("ort", "int8", 0.695), evaluated("openvino", "int8", 0.60)):
        folder.add_measurement(figure)
    assert select.measured_drop(folder, "ort", "int8") == pytest.approx(0.005)
    assert select._holds(folder, "ort", "int8", agreement=0.5, bound=0.97), "half a point was lost, whatever the frames say"
    assert not select._holds(folder, "openvino", "int8", agreement=1.0, bound=0.97), "ten points were lost"


def test_figures_of_another_architecture_say_nothing(folder: ModelFolder) -> None:
    for figure in (evaluated("ort", "fp32", 0.70, "a board, riscv"), evaluated("ort", "int8", 0.2, "a board, riscv")):
        folder.add_measurement(figure)
    assert select.measured_drop(folder, "ort", "int8") is None


def test_without_frames_of_its_own_a_model_is_judged_on_streets_by_a_looser_bound(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_agreement", lambda *_: 0.95)
    assert [item.holds for item in measure(folder, [("ort", "int8")], 1)] == [True]
    assert [item.holds for item in measure(folder, [("ort", "int8")], 1, frames=lambda: frames(2))] == [False]
    assert select.street_frames(folder, 1)[0].shape == (*folder.manifest.input.shape[2:], 3)
