"""Files for NVIDIA's `polygraphy run`, and our engines as its runners, proven with Polygraphy itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("polygraphy", reason="polygraphy is not installed (pip install 'edgeseg[polygraphy]')")

from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc
from polygraphy.exception import PolygraphyException
from polygraphy.json import load_json

from edgeseg.cli.app import run
from edgeseg.engines import load_engine
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from edgeseg.measure.compare import network_feeds
from edgeseg.measure.polygraphy import EdgesegRunner, SessionFromFolder, check_directory
from edgeseg.preprocess import Preprocessor
from tests.tiny_model import calibrated, frames, tiny_folder

CLOSE = SimpleCompareFunc(atol=1e-4, rtol=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path / "tiny"))


def polygraphy_run(folder: ModelFolder, out: Path, outputs: str = "outputs.json") -> subprocess.CompletedProcess[str]:
    """`polygraphy run` of the folder's own graph in ONNX Runtime against what we wrote."""
    program = "import sys; from polygraphy.tools import main; sys.exit(main())"
    options = ["--onnxrt", "--load-inputs", str(out / "inputs.json"), "--load-outputs", str(out / outputs)]
    command = [sys.executable, "-c", program, "run", str(folder.graph), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def tamper(path: Path, change: float) -> None:
    """Shift one value of the last iteration's logits."""
    results = RunResults.load(str(path))
    outputs = results[0][1][-1]
    logits = outputs["logits"].copy()
    logits[0, 2, 3, 4] += change
    outputs["logits"] = logits
    results.save(str(path))


# --- files ------------------------------------------------------------------------------------------------------------


def test_polygraphy_runs_the_graph_on_the_files_and_passes(
    folder: ModelFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "golden"
    arguments = ["compare", str(folder.path), "--backends", "ort,openvino", "--precisions", "fp32,int8", "--threads", "1"]
    assert run([*arguments, "--frames", "3", "--polygraphy", str(out), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert len(report["pairs"]) == 6, "compare compares as ever"
    assert report["polygraphy"]["inputs"] == str(out / "inputs.json")
    assert report["polygraphy"]["ort/fp32"] == str(out / "outputs.json")
    assert {path.name for path in out.iterdir()} == {
        *("inputs.json", "outputs.json", "outputs-ort-int8.json", "outputs-openvino-fp32.json", "outputs-openvino-int8.json")
    }
    done = polygraphy_run(folder, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed: 3/3 iterations" in done.stdout
    assert polygraphy_run(folder, out, "outputs-ort-int8.json").returncode != 0, "int8 is not float32"


def test_polygraphy_fails_on_tampered_outputs(folder: ModelFolder, tmp_path: Path) -> None:
    out = tmp_path / "golden"
    assert run(["compare", str(folder.path), "--backends", "ort", "--frames", "2", "--polygraphy", str(out)]) == 0
    tamper(out / "outputs.json", 0.0)
    assert polygraphy_run(folder, out).returncode == 0, "written again unchanged it passes"
    tamper(out / "outputs.json", 0.05)
    done = polygraphy_run(folder, out)
    assert done.returncode != 0
    assert "Passed: 1/2 iterations" in done.stdout, "the other frame still agrees"


def test_inputs_are_the_preprocessed_frames(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", batch=2)
    feeds = list(network_feeds(folder, frames(2)))
    expected = Preprocessor(folder.manifest.input)(frames(2)[1])
    assert [feed["image"].shape for feed in feeds] == [(2, 3, 32, 48)] * 2
    assert np.array_equal(feeds[1]["image"], np.concatenate([expected, expected]))
    out = tmp_path / "golden"
    assert run(["compare", str(folder.path), "--backends", "ort", "--frames", "2", "--polygraphy", str(out)]) == 0
    written = load_json(str(out / "inputs.json"))
    assert [list(feed) for feed in written] == [["image"]] * 2
    assert written[0]["image"].shape == (2, 3, 32, 48)
    assert polygraphy_run(folder, out).returncode == 0


def test_the_command_to_run_is_told(folder: ModelFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "with space"
    assert run(["compare", str(folder.path), "--backends", "ort", "--frames", "1", "--polygraphy", str(out)]) == 0
    told = capfd.readouterr().err
    assert f"--load-inputs '{out / 'inputs.json'}' --load-outputs '{out / 'outputs.json'}'" in told


def test_what_is_there_is_replaced_with_force_only(
    folder: ModelFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "golden"
    arguments = ["compare", str(folder.path), "--frames", "1", "--threads", "1", "--polygraphy", str(out)]
    assert run([*arguments, "--backends", "ort,openvino"]) == 0
    before = (out / "inputs.json").read_bytes()
    assert run([*arguments, "--backends", "ort"]) == 1
    assert "give --force" in capfd.readouterr().err
    assert (out / "inputs.json").read_bytes() == before
    assert run([*arguments, "--backends", "ort", "--force"]) == 0
    assert {path.name for path in out.iterdir()} == {"inputs.json", "outputs.json"}, "no outputs of an earlier set remain"

    def fails(*_: object) -> RunResults:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeseg.measure.polygraphy._run_results", fails)
    before = (out / "outputs.json").read_bytes()
    assert run([*arguments, "--backends", "ort", "--force"]) == 1
    assert (out / "outputs.json").read_bytes() == before, "a write that fails leaves the old set"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".golden")] == []


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_replaced(folder: ModelFolder, tmp_path: Path, force: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BackendError, match=r"holds notes\.txt"):
        check_directory(tmp_path, force)
    with pytest.raises(BackendError, match="is a file"):
        check_directory(tmp_path / "notes.txt", force)
    (tmp_path / "empty").mkdir()
    check_directory(tmp_path / "empty", force)


def test_without_polygraphy_one_line_says_how_to_get_it(
    folder: ModelFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "edgeseg.measure.polygraphy", raising=False)
    monkeypatch.setitem(sys.modules, "polygraphy.backend.base", None)
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    assert run(["compare", str(folder.path), "--backends", "ort", "--polygraphy", str(tmp_path / "golden")]) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: polygraphy is not installed; fix: pip install 'edgeseg[polygraphy]'")
    assert not (tmp_path / "golden").exists()
    assert not (folder.path / "engines").exists(), "told before any engine is built"


# --- runners ----------------------------------------------------------------------------------------------------------


def test_backends_compare_as_runners(folder: ModelFolder) -> None:
    runners = [EdgesegRunner(SessionFromFolder(folder, name, "fp32", 1), name) for name in ("ort", "openvino")]
    results = Comparator.run(runners, data_loader=list(network_feeds(folder, frames(2))))
    assert [name for name, _ in results.items()] == ["ort", "openvino"]
    assert bool(Comparator.compare_accuracy(results, compare_func=CLOSE))
    assert all(item.runtime > 0 for iterations in results.values() for item in iterations)
    coarse = EdgesegRunner(SessionFromFolder(folder, "ort", "int8", 1))
    wrong = Comparator.run([coarse], data_loader=list(network_feeds(folder, frames(2))))
    mixed = RunResults([results[0], wrong[0]])
    assert not Comparator.compare_accuracy(mixed, compare_func=CLOSE), "int8 is not float32"


def test_runner_against_polygraphys_own(folder: ModelFolder) -> None:
    theirs = OnnxrtRunner(lambda: onnxruntime.InferenceSession(str(folder.graph), providers=["CPUExecutionProvider"]))
    ours = EdgesegRunner(SessionFromFolder(folder.path, "ort", "fp32", 1))
    results = Comparator.run([theirs, ours])  # with Polygraphy's random inputs, made from our metadata's shapes
    assert bool(Comparator.compare_accuracy(results))


def test_metadata_and_life_of_a_runner(folder: ModelFolder) -> None:
    session = load_engine(folder, "ort", "fp32", 1)
    runner = EdgesegRunner(session)
    assert runner.name.startswith("edgeseg-ort-fp32")
    tensor = next(network_feeds(folder, frames(1)))
    with runner:
        metadata = runner.get_input_metadata(use_numpy_dtypes=False)
        assert list(metadata) == ["image"]
        assert tuple(metadata["image"].shape) == (1, 3, 32, 48)
        assert metadata["image"].dtype.numpy() == np.float32
        first = runner.infer(tensor)["logits"]
        kept = first.copy()
        runner.infer({"image": -tensor["image"]})
        assert np.array_equal(first, kept), "outputs belong to the caller"
        with pytest.raises(PolygraphyException):
            runner.infer({"image": tensor["image"][:, :, 1:]})
    assert np.array_equal(session.run(tensor)["logits"], kept), "a session that was handed over stays open"
    opened = EdgesegRunner(SessionFromFolder(folder, "ort", "fp32", 1))
    with opened:
        own = opened._session
    with pytest.raises(BackendError, match="closed"):
        own.run(tensor)


def test_tensors_of_pytorch_are_taken(folder: ModelFolder) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    feed = next(network_feeds(folder, frames(1)))
    with EdgesegRunner(SessionFromFolder(folder, "ort", "fp32", 1)) as runner:
        expected = runner.infer(feed)["logits"]
        found = runner.infer({"image": torch.from_numpy(feed["image"])})["logits"]
    assert np.array_equal(expected, found)
