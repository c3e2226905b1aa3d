"""Frame -> label map, and its stages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from edgeseg.engines import Segmenter, load_engine, load_segmenter
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from tests.tiny_model import HEIGHT, WIDTH, frames, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny")


def by_hand(folder: ModelFolder, frame: np.ndarray) -> np.ndarray:
    """Resize, normalise, run, upsample every class, argmax: each step in full, by other libraries."""
    spec = folder.manifest.input
    resized = cv2.resize(frame.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    tensor = ((resized * spec.scale - np.array(spec.mean)) / np.array(spec.std)).transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(onnx.load(str(folder.graph)).SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": np.ascontiguousarray(tensor)})[0][0]
    planes = [cv2.resize(plane, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_LINEAR) for plane in logits]
    return np.argmax(planes, axis=0)


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (HEIGHT, WIDTH), (33, 101), (17, 23)])
def test_labels_equal_the_plain_computation(folder: ModelFolder, backend: str, height: int, width: int) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    with load_segmenter(folder, backend, "fp32", 1) as segmenter:
        for frame in frames(2, height, width):
            labels = segmenter(frame)
            assert (labels.shape, labels.dtype) == ((height, width), np.uint8)
            assert np.mean(labels == by_hand(folder, frame)) > 0.995  # resampling rounds differently at class borders


def test_stages_give_what_the_call_gives_and_own_their_memory(folder: ModelFolder) -> None:
    with load_segmenter(folder, "ort", "fp32", 1) as segmenter:
        pictures = frames(4)
        expected = [segmenter(frame) for frame in pictures]
        tensors = [segmenter.preprocess(frame) for frame in pictures]
        outputs = [segmenter.infer(tensor) for tensor in tensors]
        labels = [segmenter.decode(output, (60, 80)) for output in outputs]
        assert all(np.array_equal(a, b) for a, b in zip(expected, labels, strict=True))
        buffer, out = segmenter.allocate_output(), np.empty((60, 80), np.uint8)
        assert segmenter.infer(tensors[1], buffer) is buffer
        assert segmenter.decode(buffer, (60, 80), out) is out
        assert np.array_equal(out, expected[1])


def test_stages_of_different_frames_may_overlap(folder: ModelFolder) -> None:
    pictures = frames(12)
    with load_segmenter(folder, "ort", "fp32", 1) as segmenter, ThreadPoolExecutor(1) as before, ThreadPoolExecutor(1) as after:
        expected = [segmenter(frame) for frame in pictures]
        tensors = [before.submit(segmenter.preprocess, frame) for frame in pictures]
        labels = [after.submit(segmenter.decode, segmenter.infer(tensor.result()), (60, 80)) for tensor in tensors]
        assert all(np.array_equal(a, b.result()) for a, b in zip(expected, labels, strict=True))


def test_fixed_batch_uses_one_slot(tmp_path: Path) -> None:
    single = tiny_folder(tmp_path / "one")
    batched = tiny_folder(tmp_path / "three", batch=3)
    with load_segmenter(single, "ort", "fp32", 1) as one, load_segmenter(batched, "ort", "fp32", 1) as three:
        for frame in frames(2):
            assert np.array_equal(one(frame), three(frame))


def test_manifest_that_names_another_output_is_refused(folder: ModelFolder) -> None:
    session = load_engine(folder, "ort", "fp32", 1)
    manifest = folder.manifest
    wrong = manifest.model_copy(update={"output": manifest.output.model_copy(update={"name": "scores"})})
    with pytest.raises(BackendError, match=r"\$\.output\.name is 'scores'"):
        Segmenter(session, wrong)
