"""The session on NVIDIA GPUs over memory of the host: what is bound, copied, captured and freed. The engine is ONNX Runtime's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeseg.engines.nvidia.arrays import DeviceArray
from edgeseg.engines.nvidia.cuda import StickyCudaError, cuda_error
from edgeseg.engines.nvidia.graphs import GraphCache
from edgeseg.engines.nvidia.runner import NvidiaSession, open_engine
from edgeseg.errors import BackendError
from tests.engines import fake_tensorrt
from tests.engines.fake_cuda import FakeCuda
from tests.tiny_model import HEIGHT, WIDTH, WRONG_FEEDS, tiny_graph

RNG = np.random.default_rng(0)
OUT = (1, 5, HEIGHT // 4, WIDTH // 4)


def open_session(model: onnx.ModelProto, profiles: list[dict[str, Any]] | None = None, **dtypes: str) -> NvidiaSession:
    fake_tensorrt.Context.created.clear()
    plan = json.dumps({"model": model.SerializeToString().hex(), "profiles": profiles or []}).encode()
    return NvidiaSession(open_engine(fake_tensorrt, plan, dtypes=dtypes), "tensorrt", "fp32", FakeCuda())


@pytest.fixture
def session() -> Iterator[NvidiaSession]:
    opened = open_session(tiny_graph())
    yield opened
    opened.close()
    assert opened.cuda.live == 0, "something was not freed"


def image(batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return RNG.normal(0, 1, (batch, 3, height, width)).astype(np.float32)


def expected(tensor: np.ndarray, model: onnx.ModelProto | None = None) -> np.ndarray:
    model = model or tiny_graph()
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"image": tensor})[
        0
    ]


class OnDevice:
    """An array of another library that lies on the device, by ``__cuda_array_interface__``."""

    def __init__(self, cuda: FakeCuda, array: np.ndarray, offset: int = 0, stream: int | None = None) -> None:
        self.address = cuda.malloc(array.nbytes + offset) + offset
        self.view = fake_tensorrt.at(self.address, array.shape, array.dtype.name)
        self.view[...] = array
        self.stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        said = {"shape": self.view.shape, "typestr": self.view.dtype.str, "data": (self.address, False), "version": 3}
        return {**said, "stream": self.stream}


def test_host_arrays_give_the_engines_answer(session: NvidiaSession) -> None:
    assert (session.input_names, session.output_names) == (["image"], ["logits"])
    for _ in range(4):
        tensor = image()
        outputs = session.run({"image": tensor})
        assert np.allclose(outputs["logits"], expected(tensor), atol=1e-5)
        assert outputs["logits"].flags.owndata


def test_first_run_is_plain_second_is_captured_later_ones_are_launches(session: NvidiaSession) -> None:
    counts = []
    for _ in range(4):
        session.run({"image": image()})
        counts.append((session.cuda.captures, session.cuda.launches))
    assert counts == [(0, 0), (1, 1), (1, 2), (1, 3)]


def test_outputs_are_written_in_place_and_others_left_alone(session: NvidiaSession) -> None:
    first, second = image(), image()
    out = np.full(OUT, np.nan, np.float32)
    session.run_into({"image": first}, {"logits": out})
    kept = out.copy()
    session.run({"image": second})
    session.run_into({"image": second}, {})
    assert np.array_equal(out, kept)
    assert np.allclose(out, expected(first), atol=1e-5)


def test_device_arrays_are_bound_where_they_are(session: NvidiaSession) -> None:
    tensor = image()
    source, target = OnDevice(session.cuda, tensor), OnDevice(session.cuda, np.zeros(OUT, np.float32))
    for _ in range(3):
        session.run_into({"image": source}, {"logits": target})
        context = fake_tensorrt.Context.created[-1]
        assert context.addresses == {"image": source.address, "logits": target.address}
    assert session.cuda.copies == 0
    assert np.allclose(target.view, expected(tensor), atol=1e-5)
    # Other addresses are another graph, not the old one with stale addresses.
    other = OnDevice(session.cuda, image())
    session.run_into({"image": other}, {"logits": target})
    session.run_into({"image": other}, {"logits": target})
    assert np.allclose(target.view, expected(other.view), atol=1e-5)
    for array in (source, target, other):
        session.cuda.free(array.address)


def test_misaligned_device_arrays_pass_through_own_memory(session: NvidiaSession) -> None:
    tensor = image()
    source = OnDevice(session.cuda, tensor, offset=64)
    target = OnDevice(session.cuda, np.zeros(OUT, np.float32), offset=4)
    session.run_into({"image": source}, {"logits": target})
    assert np.allclose(target.view, expected(tensor), atol=1e-5)
    session.cuda.free(source.address - 64)
    session.cuda.free(target.address - 4)


def test_streams_of_producers_are_waited_for(session: NvidiaSession) -> None:
    source = OnDevice(session.cuda, image(), stream=77)
    session.run_into({"image": source}, {})
    assert session.cuda.waits == [(session.stream, 77)]
    session.cuda.free(source.address)


def test_pinned_staging_can_be_filled_directly(session: NvidiaSession) -> None:
    staging = session.staging("image")
    staging[...] = image()
    assert np.allclose(session.run({"image": staging})["logits"], expected(staging), atol=1e-5)
    assert len(session.cuda.pinned_arrays) == 2


def test_workers_share_the_engine_and_nothing_else(session: NvidiaSession) -> None:
    other = session.worker()
    assert other.opened is session.opened
    assert other.stream != session.stream
    tensor = image()
    assert np.array_equal(other.run({"image": tensor})["logits"], session.run({"image": tensor})["logits"])
    assert len(fake_tensorrt.Context.created) == 2
    other.close()
    session.run({"image": tensor})


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        *WRONG_FEEDS,
        ({"image": DeviceArray(4096, (1, 3, 1, 1), "float32", None)}, "shape"),
        ({"image": DeviceArray(4096, (1, 3, HEIGHT, WIDTH), "float16", None)}, "dtype float16"),
    ],
)
def test_wrong_feeds_are_refused(session: NvidiaSession, feeds: dict[str, Any], told: str) -> None:
    with pytest.raises(BackendError, match=told):
        session.run(feeds)


def test_wrong_outputs_are_refused(session: NvidiaSession) -> None:
    with pytest.raises(BackendError, match="no tensor 'labels'"):
        session.run_into({"image": image()}, {"labels": np.zeros(OUT, np.float32)})
    with pytest.raises(BackendError, match="shape"):
        session.run_into({"image": image()}, {"logits": np.zeros((1, 5, 1, 1), np.float32)})


def test_closed_session_says_so() -> None:
    session = open_session(tiny_graph())
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": image()})


# --- shapes ------------------------------------------------------------------------------------------------------

SMALL, LARGE = ((1, 3, 16, 16), (1, 3, 32, 48), (1, 3, 32, 64)), ((2, 3, 32, 48), (4, 3, 32, 48), (8, 3, 64, 96))


def test_each_shape_has_its_context_and_profile() -> None:
    model = tiny_graph(dynamic=True)
    session = open_session(model, [{"image": SMALL}, {"image": LARGE}])
    assert session.inputs[0].shape is None
    for shape, profile in [((1, 32, 48), 0), ((4, 64, 96), 1), ((1, 16, 16), 0), ((1, 32, 48), 0), ((4, 64, 96), 1)] * 2:
        tensor = image(*shape)
        assert np.allclose(session.run({"image": tensor})["logits"], expected(tensor, model), atol=1e-5)
        context, _ = session._contexts[(tensor.shape,)]
        assert context.profile == profile
    assert len(session._contexts) == 3
    session.close()
    assert session.cuda.live == 0


def test_contexts_and_graphs_are_bounded() -> None:
    session = open_session(tiny_graph(dynamic=True), [{"image": SMALL}])
    for width in [*range(16, 65, 4)] * 2:
        tensor = image(1, 16, width)
        session.run({"image": tensor})
        session.run({"image": tensor})
        assert {key[0] for key in session.graphs._graphs} <= set(session._contexts), "a graph outlived its context"
    assert len(session._contexts) <= 4
    assert len(session.cuda.graphs) <= 8
    session.close()
    assert session.cuda.live == 0


def test_shape_outside_of_all_profiles_is_refused_with_the_ranges() -> None:
    session = open_session(tiny_graph(dynamic=True), [{"image": SMALL}, {"image": LARGE}])
    with pytest.raises(BackendError, match=r"\(9, 3, 32, 48\).*\(1, 3, 16, 16\) to \(1, 3, 32, 64\) or"):
        session.run({"image": image(9)})


# --- types -------------------------------------------------------------------------------------------------------


def labels_graph() -> onnx.ModelProto:
    """(1, 4, 8, 8) float32 -> labels (1, 8, 8) uint8, which the engine calls INT8."""
    nodes = [
        helper.make_node("ArgMax", ["image"], ["classes"], "argmax", axis=1, keepdims=0),
        helper.make_node("Cast", ["classes"], ["labels"], "cast", to=TensorProto.UINT8),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 8, 8])]
    outputs = [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 8, 8])]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def test_int8_outputs_are_uint8_where_the_graph_says_so() -> None:
    scores = RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    plain = open_session(labels_graph())
    assert plain.outputs[0].dtype == "int8"
    session = open_session(labels_graph(), labels="uint8")
    assert session.outputs[0].dtype == "uint8"
    labels = session.run({"image": scores})["labels"]
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores.argmax(1))


def test_declared_types_of_another_size_do_not_count() -> None:
    assert open_session(labels_graph(), labels="int64").outputs[0].dtype == "int8"


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [700, 716, 719])
def test_sticky_errors_say_that_the_process_must_restart_and_stay(code: int) -> None:
    session = open_session(tiny_graph())
    session.run({"image": image()})
    session.cuda.fails_with = code
    with pytest.raises(StickyCudaError, match=f"CUDA error {code}.*restart the process"):
        session.run({"image": image()})
    session.cuda.fails_with = 0
    with pytest.raises(StickyCudaError, match="restart the process"):
        session.run({"image": image()})
    session.close()


def test_other_cuda_errors_pass() -> None:
    session = open_session(tiny_graph())
    session.cuda.fails_with = 2
    with pytest.raises(BackendError, match=r"CUDA error 2 .*close other programs"):
        session.run({"image": image()})
    session.cuda.fails_with = 0
    session.run({"image": image()})
    assert not isinstance(cuda_error(2, "cudaErrorMemoryAllocation", "x"), StickyCudaError)


def test_engine_that_refuses_to_run_is_told() -> None:
    session = open_session(tiny_graph())
    fake_tensorrt.Context.created[-1].refuses = True
    with pytest.raises(BackendError, match="the engine does not run"):
        session.run({"image": image()})


def test_engine_that_cannot_be_captured_still_runs() -> None:
    cuda = FakeCuda()
    stream, done = cuda.stream(), []
    graphs = GraphCache(cuda, stream)

    def enqueue() -> None:
        if fake_tensorrt.CAPTURED:
            raise BackendError("operation not permitted when stream is capturing")
        done.append(1)

    for _ in range(3):
        graphs.run("key", enqueue)
    assert len(done) == 3
    assert cuda.captures == 1, "it is tried once"


def test_damaged_engine_is_told() -> None:
    with pytest.raises(BackendError, match=r"cannot open the engine: serialization.*--force"):
        open_engine(fake_tensorrt, b"not an engine")


def test_plugin_library_that_does_not_load_is_told() -> None:
    with pytest.raises(BackendError, match=r"broken.so: cannot be loaded"):
        open_engine(fake_tensorrt, b"{}", plugins=Path("broken.so"))
