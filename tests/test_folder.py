"""The model folder: verified files, guarded updates, working copies of shipped models."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import edgeseg.folder
from edgeseg.errors import EdgesegError, ManifestError
from edgeseg.folder import MANIFEST, ModelFolder, open_folder, shipped_models
from edgeseg.manifest import Measurement
from tests.manifests import folder


def measurement(what: str, value: float, machine: str = "m") -> Measurement:
    return Measurement(what=what, backend="ort", precision="fp32", machine=machine, date="2026-11-20", values={"x": value})


def test_require_verifies_the_file(tmp_path: Path) -> None:
    model = folder(tmp_path)
    path = model.require("model.onnx", "export again")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ManifestError, match=r"\$\.files\.model\.onnx.*sha256"):
        model.require("model.onnx", "export again")
    path.write_bytes(bytes(data[:-1]))
    with pytest.raises(ManifestError, match=f"has {len(data) - 1} bytes"):
        model.require("model.onnx", "export again")
    path.unlink()
    with pytest.raises(ManifestError, match=r"no model\.onnx.*fix: export again"):
        model.require("model.onnx", "export again")


def test_register_describes_files_and_keeps_the_rest(tmp_path: Path) -> None:
    model = folder(tmp_path)
    (tmp_path / "ranges.json").write_text("{}")
    manifest = model.register("ranges.json", ignore_label=254)
    assert set(manifest.files) == {"model.onnx", "ranges.json"}
    assert model.manifest == manifest
    assert manifest.ignore_label == 254
    assert model.require("ranges.json", "calibrate").read_text() == "{}"


def test_figures_of_another_graph_or_other_ranges_are_dropped(tmp_path: Path) -> None:
    model = folder(tmp_path)
    for precision in ("fp32", "int8"):
        model.add_measurement(measurement("eval", 1).model_copy(update={"precision": precision}))
    model.register("model.onnx")  # the same file again changes nothing
    assert [item.precision for item in model.manifest.measurements] == ["fp32", "int8"]
    (tmp_path / "ranges.json").write_text("{}")
    model.register("ranges.json")
    assert [item.precision for item in model.manifest.measurements] == ["fp32"]
    model.graph.write_bytes(model.graph.read_bytes() + b" ")
    assert model.register("model.onnx").measurements == []


@pytest.mark.parametrize("changes", [{"ignore_label": 999}, {"classes": []}, {"nonsense": 1}, {"input": None}])
def test_an_invalid_update_is_refused_and_not_written(tmp_path: Path, changes: dict) -> None:
    model = folder(tmp_path)
    before = (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(ManifestError, match=rf"\$\.{next(iter(changes))}"):
        model.update(**changes)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_measurements_of_the_same_kind_replace_each_other(tmp_path: Path) -> None:
    model = folder(tmp_path)
    for item in (measurement("eval", 1), measurement("bench", 2), measurement("eval", 3), measurement("eval", 4, "other")):
        model.add_measurement(item)
    found = {(item.what, item.machine): item.values["x"] for item in model.manifest.measurements}
    assert found == {("bench", "m"): 2, ("eval", "m"): 3, ("eval", "other"): 4}


def test_updates_at_the_same_time_all_arrive(tmp_path: Path) -> None:
    model = folder(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: model.add_measurement(measurement(f"m{index}", index)), range(12)))
    assert {item.what for item in model.manifest.measurements} == {f"m{index}" for index in range(12)}


def test_open_by_path_or_name(tmp_path: Path) -> None:
    assert open_folder(folder(tmp_path / "a").path) == ModelFolder(tmp_path / "a")
    with pytest.raises(EdgesegError, match="no model folder"):
        open_folder(tmp_path / "none")
    (tmp_path / "a" / MANIFEST).write_text("{}")
    with pytest.raises(ManifestError):
        open_folder(tmp_path / "a")


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package zoo with one model, ``net``, and an empty home."""
    root = tmp_path / "zoo"
    folder(root / "net")
    monkeypatch.setattr(edgeseg.folder, "zoo_directory", lambda: root)
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path / "home"))
    return root


def test_a_shipped_model_is_opened_as_a_working_copy(zoo: Path, tmp_path: Path) -> None:
    assert shipped_models() == ["net"]
    model = open_folder("net")
    assert model.path == tmp_path / "home" / "models" / "net"
    (model.path / "ranges.json").write_text("{}")
    model.register("ranges.json")
    assert (open_folder("net").path / "ranges.json").is_file()
    assert not (zoo / "net" / "ranges.json").exists()


def test_a_new_version_of_the_package_replaces_the_working_copy(zoo: Path) -> None:
    open_folder("net")
    ModelFolder(zoo / "net").update(ignore_label=200)
    assert open_folder("net").manifest.ignore_label == 200


def test_a_home_that_cannot_be_written_is_told(zoo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path / "file"))
    with pytest.raises(EdgesegError, match="EDGESEG_HOME"):
        open_folder("net")


def test_without_a_zoo_nothing_is_shipped(zoo: Path) -> None:
    shutil.rmtree(zoo)
    assert shipped_models() == []
