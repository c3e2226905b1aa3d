"""Frame to labels on the device, with the CPU twins in the place of the kernels: the same arguments, the same arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeseg.engines.nvidia import backend
from edgeseg.engines.nvidia import frames as device_frames
from edgeseg.engines.nvidia.arrays import DeviceArray
from edgeseg.engines.nvidia.frames import FramePipeline, not_covered, open_pipeline
from edgeseg.engines.nvidia.runner import NvidiaSession, open_engine
from edgeseg.engines.segmenter import Segmenter
from edgeseg.errors import BackendError
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Manifest, OutputSpec
from edgeseg.native import reference
from edgeseg.ops import launch
from tests.engines import fake_tensorrt
from tests.engines.fake_cuda import FakeCuda
from tests.tiny_model import frames, tiny_folder, tiny_graph


class Twins:
    """The launchers' Python face over the CPU twins; captured like everything else on a stream."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.calls = cuda, []

    def run(self, name: str, args: launch.Structure, stream: int) -> None:
        assert stream in self.cuda.streams
        self.calls.append(name)
        self.cuda.do(lambda: launch.cpu_library().run(name, args, 1))


@pytest.fixture(scope="module", autouse=True)
def _twins() -> None:
    try:
        library = launch.cpu_library()._library
    except OSError as error:
        pytest.skip(f"the CPU twins are not built: {error}")
    if not hasattr(library, "edgeseg_preprocess_cpu") or not hasattr(library, "edgeseg_upsample_argmax_cpu"):
        pytest.skip("the CPU twins of preprocess and upsample_argmax are not built")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "tiny")


def session_of(classes: int = 5) -> NvidiaSession:
    plan = json.dumps({"model": tiny_graph(classes).SerializeToString().hex(), "profiles": []}).encode()
    return NvidiaSession(open_engine(fake_tensorrt, plan), "tensorrt", "fp32", FakeCuda())


def pipeline_of(session: NvidiaSession, manifest: Manifest) -> FramePipeline:
    return FramePipeline(session, manifest, Twins(session.cuda))


def plain(session: NvidiaSession, manifest: Manifest, frame: np.ndarray) -> np.ndarray:
    segmenter = Segmenter(session.worker(), manifest)
    segmenter._on_device = None
    return segmenter(frame)


def test_labels_are_those_of_the_cpu_path(folder: ModelFolder) -> None:
    session = session_of()
    pipeline = pipeline_of(session, folder.manifest)
    for size in [(60, 80), (33, 47), (60, 80)]:
        for frame in frames(4, *size):
            labels = pipeline(frame)
            assert labels.shape == size
            assert np.mean(labels == plain(session, folder.manifest, frame)) > 0.999
            assert len(session.cuda.graphs) <= 1, "a graph outlived the memory it writes to"
    assert session.cuda.captures == 3, "one graph per frame size, made again after another size took its memory"
    pipeline.close()
    session.close()


def test_everything_is_freed(folder: ModelFolder) -> None:
    session = session_of()
    pipeline = pipeline_of(session, folder.manifest)
    pipeline(frames(1)[0])
    pipeline(frames(1, 40, 40)[0])
    pipeline.close()
    session.close()
    assert session.cuda.live == 0


def test_one_launch_per_frame_after_the_second(folder: ModelFolder) -> None:
    session = session_of()
    pipeline = pipeline_of(session, folder.manifest)
    for frame in frames(5):
        pipeline(frame)
    assert pipeline.kernels.calls == ["preprocess", "upsample_argmax"] * 2, "the third and later only launch the graph"
    assert session.cuda.launches == 4


def test_out_is_written_and_earlier_labels_stay(folder: ModelFolder) -> None:
    pipeline = pipeline_of(session_of(), folder.manifest)
    first, second = frames(2)
    kept = pipeline(first)
    copy = kept.copy()
    out = np.full((60, 80), 255, np.uint8)
    assert pipeline(second, out) is out
    assert out.max() < 5
    assert np.array_equal(kept, copy)


def test_frames_on_the_device_are_read_where_they_are(folder: ModelFolder) -> None:
    session = session_of()
    pipeline = pipeline_of(session, folder.manifest)
    uploaded, frame = frames(2)
    expected = pipeline(frame)
    pipeline(uploaded)
    address = session.cuda.malloc(frame.nbytes)
    fake_tensorrt.at(address, frame.shape, "uint8")[...] = frame
    copies = session.cuda.copies
    for count in range(1, 4):
        assert np.array_equal(pipeline(DeviceArray(address, frame.shape, "uint8", None)), expected)
        assert session.cuda.copies == copies + count, "only the labels are copied"
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    blended = pipeline.overlay(palette, 128, np.empty_like(frame))
    assert np.array_equal(blended, (frame.astype(int) + palette[expected].astype(int) + 1) >> 1), "over that very frame"
    other = frames(2)[1]
    for _ in range(3):
        assert np.array_equal(pipeline(other), plain(session, folder.manifest, other))


def test_single_channel_by_threshold(folder: ModelFolder) -> None:
    manifest = folder.manifest.model_copy(
        update={"classes": folder.manifest.classes[:2], "output": OutputSpec(kind="logits", threshold=0.7)}
    )
    session = session_of(1)
    pipeline = pipeline_of(session, manifest)
    frame = frames(1)[0]
    labels = pipeline(frame)
    assert np.mean(labels == plain(session, manifest, frame)) > 0.995
    assert 0 < labels.mean() < 1


def test_overlay_blends_the_palette(folder: ModelFolder) -> None:
    if not hasattr(launch.cpu_library()._library, "edgeseg_overlay_cpu"):
        pytest.skip("the CPU twin of overlay is not built")
    pipeline = pipeline_of(session_of(), folder.manifest)
    frame = frames(1)[0]
    labels = pipeline(frame)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    out = pipeline.overlay(palette, 128, np.empty_like(frame))
    expected = (frame.astype(int) * 128 + palette[labels].astype(int) * 128 + 128) >> 8
    assert np.array_equal(out, expected)
    assert np.array_equal(pipeline(frame), labels)
    with pytest.raises(BackendError, match="last frame's size"):
        pipeline.overlay(palette, 128, np.empty((2, 2, 3), np.uint8))


def test_preprocessing_is_the_manifests(folder: ModelFolder) -> None:
    session = session_of()
    pipeline = pipeline_of(session, folder.manifest)
    frame, spec = frames(1)[0], folder.manifest.input
    pipeline(frame)
    tensor = fake_tensorrt.at(session._tensors["image"].address, spec.shape, "float32")
    swapped = spec.colour_order == "rgb"
    wanted = reference.preprocess(
        frame, 3, (spec.height, spec.width), scale=spec.scale, mean=spec.mean, std=spec.std, swap_rb=swapped
    )
    # Resizing rounds to 8 bits nowhere, but weights may be in fixed point.
    assert np.abs(tensor - wanted).max() < 0.02


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_bad_frames_are_refused(folder: ModelFolder, frame: np.ndarray) -> None:
    with pytest.raises(BackendError, match="frame: "):
        pipeline_of(session_of(), folder.manifest)(frame)


def test_models_that_are_not_covered_stay_on_the_cpu(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    session, manifest = session_of(), folder.manifest
    assert not_covered(session, manifest) == ""
    labels = manifest.model_copy(update={"output": OutputSpec(kind="labels")})
    assert "labels" in not_covered(session, labels)
    assert open_pipeline(session, labels) is None
    monkeypatch.setenv("EDGESEG_PLUGINS", "/nowhere")
    assert open_pipeline(session, manifest) is None
    assert device_frames.open_pipeline(session, manifest) is None


def test_engines_that_are_opened_and_their_workers_take_frames(
    tmp_path: Path, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = json.dumps({"model": tiny_graph(5).SerializeToString().hex(), "profiles": []})
    (tmp_path / backend.ENGINE).write_text(plan)
    (tmp_path / backend.IO).write_text('{"dtypes": {}, "plugins": false}')
    monkeypatch.setattr(device_frames, "open_pipeline", pipeline_of)
    opened = backend.load(fake_tensorrt, "tensorrt", tmp_path, "fp32", FakeCuda())
    frame = frames(1)[0]
    for session in (opened, opened.worker()):
        segmenter = Segmenter(session, folder.manifest)
        assert isinstance(segmenter._on_device, FramePipeline)
        assert np.mean(segmenter(frame) == plain(session, folder.manifest, frame)) > 0.999
