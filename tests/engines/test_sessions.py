"""Every backend through the one Session shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeseg.engines import Session, load_engine
from edgeseg.engines.session import check_precision, default_threads, get_backend, installed
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from tests.tiny_model import HEIGHT, WIDTH, WRONG_FEEDS, calibrated, tiny_folder

RNG = np.random.default_rng(0)
KINDS = [("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.15}  # of the largest logit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return calibrated(tiny_folder(tmp_path_factory.mktemp("sessions") / "tiny"))


def image(batch: int = 1) -> np.ndarray:
    return RNG.normal(0, 1, (batch, 3, HEIGHT, WIDTH)).astype(np.float32)


def open_session(folder: ModelFolder, backend: str, precision: str) -> Session:
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    if reason := get_backend(backend).supports(precision):
        pytest.skip(reason)
    return load_engine(folder, backend, precision, threads=1)


def bare_reference(folder: ModelFolder, tensor: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(onnx.load(str(folder.graph)).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": tensor})[0]


@pytest.mark.parametrize(("backend", "precision"), KINDS)
def test_run_names_shapes_and_values(folder: ModelFolder, backend: str, precision: str) -> None:
    session = open_session(folder, backend, precision)
    tensor = image()
    outputs = session.run({"image": tensor})
    expected = bare_reference(folder, tensor)
    assert (session.backend, session.precision) == (backend, precision)
    assert (session.input_names, session.output_names) == (["image"], ["logits"])
    assert session.outputs[0].shape == outputs["logits"].shape == (1, 5, 8, 12)
    assert np.abs(outputs["logits"] - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()


@pytest.mark.parametrize(("backend", "precision"), KINDS)
def test_outputs_are_owned_and_run_into_writes_in_place(folder: ModelFolder, backend: str, precision: str) -> None:
    session = open_session(folder, backend, precision)
    first, second = image(), image()
    kept = session.run({"image": first})["logits"]
    copy = kept.copy()
    out = np.full((1, 5, 8, 12), np.nan, np.float32)
    session.run_into({"image": second}, {"logits": out})
    assert np.isfinite(out).all()
    assert np.array_equal(kept, copy)
    later = out.copy()
    session.run({"image": first})
    assert np.array_equal(out, later), "an owned run must not write into memory handed over before"
    assert np.array_equal(session.run({"image": second})["logits"], out)


def test_openvino_fp32_agrees_with_ort(folder: ModelFolder) -> None:
    tensor = image()
    ort = open_session(folder, "ort", "fp32").run({"image": tensor})["logits"]
    openvino = open_session(folder, "openvino", "fp32").run({"image": tensor})["logits"]
    assert np.allclose(ort, openvino, atol=1e-4)


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize(("feeds", "told"), WRONG_FEEDS)
def test_wrong_feeds_are_refused(folder: ModelFolder, backend: str, feeds: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(BackendError, match=told):
        open_session(folder, backend, "fp32").run(feeds)


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_closed_session_says_so(folder: ModelFolder, backend: str) -> None:
    session = open_session(folder, backend, "fp32")
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": image()})


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize(("batch", "dynamic"), [(2, False), (1, True), (3, True)])
def test_batches_and_dynamic_graphs(tmp_path: Path, backend: str, batch: int, dynamic: bool) -> None:
    folder = tiny_folder(tmp_path / "tiny", batch=batch, dynamic=dynamic)
    tensor = image(batch)
    session = open_session(folder, backend, "fp32")
    assert session.outputs[0].shape == (batch, 5, 8, 12)
    assert np.allclose(session.run({"image": tensor})["logits"], bare_reference(folder, tensor), atol=1e-4)


def test_unknown_backend_and_precision() -> None:
    with pytest.raises(BackendError, match="one of auto, ort"):
        get_backend("tensorflow")
    with pytest.raises(BackendError, match="one of fp32, int8"):
        check_precision(get_backend("ort"), "bf16")
    with pytest.raises(BackendError, match="precision 'int4'"):
        check_precision(get_backend("ort"), "int4")


def test_absent_backend_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("edgeseg.engines.session", fromlist=["BACKENDS"]).BACKENDS, "openvino", "edgeseg.engines.absent")
    with pytest.raises(BackendError, match=r"pip install 'edgeseg\[openvino\]'"):
        get_backend("openvino")
    assert "openvino" not in installed()
    assert default_threads() >= 1
