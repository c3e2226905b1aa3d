"""ONNX Runtime on a GPU, on machines that have none: everything but the GPU itself, which is played by host memory."""

from __future__ import annotations

import ctypes
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeseg.cli.app import run
from edgeseg.engines import BuildJob, load_engine, ort, ort_cuda, ort_cuda_libraries
from edgeseg.engines.build import prepared_graph
from edgeseg.engines.options import BuildOptions
from edgeseg.engines.ort_cuda import (
    CUDA,
    TENSORRT,
    assigned,
    create_session,
    lowered,
    make_recipe,
    provider_options,
    refuse_fallback,
)
from edgeseg.engines.ort_cuda_libraries import needed
from edgeseg.engines.ort_cuda_session import CudaSession
from edgeseg.engines.session import check_precision, get_backend, installed
from edgeseg.errors import BackendError
from tests.tiny_model import HEIGHT, WIDTH, calibrated, tiny_folder, tiny_graph

RNG = np.random.default_rng(0)
PLAIN = {"tensorrt": False, "plugins": "", "cuda_graph": False, "options": {}}
HERE = ort_cuda.available()


class HostCuda:
    """Memory and copies of the ``Cuda`` that the session is handed, in host memory; counts what it is asked for."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.copies: list[int] = []
        self.waited: list[int] = []
        self.synchronized = 0
        self.streams = {7}

    def stream(self) -> int:
        return 7

    def free_stream(self, stream: int) -> None:
        self.streams.remove(stream)

    def malloc(self, size: int) -> int:
        block = (ctypes.c_ubyte * size)()
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.blocks[address]

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        assert stream == 7
        self.copies.append(size)
        ctypes.memmove(target, source, size)

    def synchronize(self, stream: int) -> None:
        self.synchronized += 1

    def wait_for(self, stream: int, other: int) -> None:
        self.waited.append(other)


class OnDevice:
    """Another library's array as ``__cuda_array_interface__`` shows it."""

    def __init__(self, array: np.ndarray, stream: int | None = None, strides: tuple[int, ...] | None = None) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": strides,
            "stream": stream,
            "version": 3,
        }


class ByDlpack:
    """A tensor that says through DLPack that it lies on a GPU."""

    def __init__(self, tensor: Any) -> None:
        self.tensor, self.asked = tensor, 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: int) -> Any:
        self.asked = stream
        return self.tensor.__dlpack__()


def image() -> np.ndarray:
    return RNG.normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)


def on_cpu(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), ort.session_options(1), providers=["CPUExecutionProvider"])


@pytest.fixture
def cuda() -> HostCuda:
    return HostCuda()


@pytest.fixture
def session(cuda: HostCuda) -> Iterator[CudaSession]:
    with CudaSession(on_cpu(tiny_graph()), "fp32", cuda, cuda.stream(), device="cpu") as opened:  # type: ignore[arg-type]
        yield opened  # type: ignore[misc]


# --- what must be there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packages", "providers", "gpu", "library", "told"),
    [
        ({"onnxruntime"}, [], "", None, "has no CUDA provider: `pip uninstall -y onnxruntime`, then `pip install 'edgeseg[gpu]'`"),
        ({"onnxruntime", "onnxruntime-gpu"}, [CUDA], "", None, "are both installed"),
        ({"onnxruntime-gpu"}, [CUDA], "no NVIDIA driver on this machine", None, "no NVIDIA driver on this machine"),
        (
            {"onnxruntime-gpu"},
            [CUDA],
            "",
            "libcublasLt.so.13: not found; pip install X",
            "libcublasLt.so.13: not found; pip install X",
        ),
        ({"onnxruntime-gpu"}, [CUDA], "", None, None),
        (set(), [CUDA], "", None, None),  # built from source, under whatever name
    ],
)
def test_what_is_missing_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, packages: set[str], providers: list[str], gpu: str, library: str | None, told: str | None
) -> None:
    monkeypatch.setattr(ort_cuda_libraries, "_installed", lambda name: name in packages)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
    monkeypatch.setattr(ort_cuda, "why_no_gpu", lambda: gpu)
    monkeypatch.setattr(ort_cuda, "missing_library", lambda _: library)
    if told is None:
        assert get_backend("ort-cuda").NAME == "ort-cuda"
        assert "ort-cuda" in installed()
        return
    with pytest.raises(BackendError, match="backend 'ort-cuda' cannot be used") as error:
        get_backend("ort-cuda")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "ort-cuda" not in installed(), "auto never tries it"


def test_build_prints_one_line_where_it_cannot_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if HERE is None:
        pytest.skip("ort-cuda runs on this machine")
    folder = tiny_folder(tmp_path / "tiny")
    assert run(["build", str(folder.path), "--backend", "ort-cuda", "--precision", "fp32"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: backend 'ort-cuda' cannot be used: ")
    assert error.count("\n") == 1
    assert not (folder.path / "engines").exists()


def test_int8_needs_the_tensorrt_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "missing_library", lambda name: "libnvinfer.so.10: not found" if name == TENSORRT else None)
    assert ort_cuda.supports("fp32") is ort_cuda.supports("fp16") is None
    with pytest.raises(BackendError, match=r"ort-cuda int8: only ONNX Runtime's TensorRT provider .*libnvinfer\.so\.10"):
        check_precision(ort_cuda, "int8")  # type: ignore[arg-type]
    assert ort_cuda.version() == onnxruntime.__version__


def test_needed_libraries_are_read_from_the_file(tmp_path: Path) -> None:
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("onnxruntime_pybind11_state*.so"))
    if sys.maxsize < 2**32 or sys.byteorder != "little" or sys.platform != "linux":
        pytest.skip("only ELF files of 64 bits, little-endian, are read")
    found = needed(library)
    assert {"libc.so.6", "libm.so.6"} <= set(found)
    assert not any(name.startswith("libonnxruntime") for name in found)
    (tmp_path / "text.so").write_text("not a library at all, but long enough to hold a header of sixty-four bytes")
    assert needed(tmp_path / "text.so") == []


def test_a_library_that_is_not_found_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    provider = tmp_path / "libonnxruntime_providers_cuda.so"
    provider.write_bytes(b"x")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(ort_cuda_libraries, "_file", lambda name: provider if name == CUDA else tmp_path / "none.so")
    monkeypatch.setattr(ort_cuda_libraries, "needed", lambda _: ["libc.so.6", "libabsent.so.99"])
    ort_cuda_libraries.missing_library.cache_clear()
    try:
        assert "libabsent.so.99: cannot open" in str(ort_cuda_libraries.missing_library(CUDA))
        assert "no TensorrtExecutionProvider" in str(ort_cuda_libraries.missing_library(TENSORRT))
    finally:
        ort_cuda_libraries.missing_library.cache_clear()


# --- what runs where ---------------------------------------------------------------------------------------------------


def fake_session(providers: list[str], nodes: dict[str, list[str]]) -> Any:
    def part(name: str, kinds: list[str]) -> Any:
        found = [SimpleNamespace(name=f"n_{kind}", op_type=kind) for kind in kinds]
        return SimpleNamespace(ep_name=name, get_nodes=lambda: found)

    parts = [part(*item) for item in nodes.items()]
    return SimpleNamespace(get_providers=lambda: providers, get_provider_graph_assignment_info=lambda: parts)


def test_nothing_falls_back_to_the_cpu_unnoticed() -> None:
    whole = fake_session([CUDA, "CPUExecutionProvider"], {CUDA: ["Conv", "Relu"]})
    refuse_fallback(whole, CUDA)
    assert assigned(whole) == {CUDA: 2}
    with pytest.raises(BackendError, match=rf"fell back from {CUDA} to CPUExecutionProvider"):
        refuse_fallback(fake_session(["CPUExecutionProvider"], {}), CUDA)
    with pytest.raises(BackendError, match=rf"fell back from {TENSORRT}"):
        refuse_fallback(fake_session([CUDA, "CPUExecutionProvider"], {}), TENSORRT)
    mixed = fake_session([CUDA, "CPUExecutionProvider"], {CUDA: ["Conv"], "CPUExecutionProvider": ["MaxUnpool", "Shape"]})
    with pytest.raises(BackendError, match=r"2 nodes would run on the CPU, the first 'n_MaxUnpool' \(MaxUnpool\)"):
        refuse_fallback(mixed, CUDA)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_real_session_without_the_provider_is_refused(tmp_path: Path) -> None:
    onnx.save(tiny_graph(), str(tmp_path / "engine.onnx"))
    with pytest.raises(BackendError, match=r"5 nodes would run on the CPU, the first 'stem' \(Conv\)"):
        create_session(tmp_path / "engine.onnx", {"CPUExecutionProvider": {}}, 1, optimise=True)
    if HERE is not None:
        with pytest.raises(BackendError, match="ONNX Runtime"):
            create_session(tmp_path / "engine.onnx", {"NoSuchExecutionProvider": {}}, 1, optimise=True)


def test_float32_is_float32_and_stays_with_the_cuda_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "missing_library", lambda _: None)
    recipe = make_recipe(job(tmp_path, "fp32", BuildOptions(cuda_graph=True)))
    assert provider_options(tmp_path, "fp32", recipe, 7) == {
        CUDA: {"device_id": "0", "user_compute_stream": "7", "use_tf32": "0", "enable_cuda_graph": "1"}
    }
    with pytest.raises(BackendError, match=r"--builder-level is of the TensorRT provider \(float32 runs by"):
        make_recipe(job(tmp_path, "fp32", BuildOptions(builder_level=3)))


@pytest.mark.parametrize(("precision", "int8"), [("fp16", "False"), ("int8", "True")])
def test_tensorrt_keeps_its_caches_beside_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, int8: str
) -> None:
    monkeypatch.setattr(ort_cuda, "missing_library", lambda _: None)
    monkeypatch.setattr(ort_cuda, "_plugins", lambda: (Path("/opt/libedgeseg_trt.so"), "abc"))
    recipe = make_recipe(job(tmp_path, precision, BuildOptions(workspace_mb=64, builder_level=5, hardware_compatible=True)))
    building, loading = (provider_options(tmp_path, precision, recipe, 7, stage) for stage in (True, False))
    assert list(loading) == [TENSORRT, CUDA], "what TensorRT does not take runs on the GPU all the same"
    options = loading[TENSORRT]
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", int8)
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path.absolute())
    assert options["trt_extra_plugin_lib_paths"] == "/opt/libedgeseg_trt.so"
    assert (options["trt_max_workspace_size"], options["trt_builder_optimization_level"]) == (str(64 << 20), "5")
    assert options["trt_engine_hw_compatible"] == "True"
    assert building[TENSORRT]["trt_timing_cache_enable"] == "True"
    assert options["trt_timing_cache_enable"] == "False", "the files of a finished engine may not change"
    json.dumps(recipe)


def test_options_of_tensorrt_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "missing_library", lambda name: "libnvinfer.so.10: not found" if name == TENSORRT else None)
    recipe = make_recipe(job(tmp_path, "fp16"))
    assert list(provider_options(tmp_path, "fp16", recipe, 7)) == [CUDA]
    with pytest.raises(BackendError, match=r"--workspace-mb .*libnvinfer\.so\.10"):
        make_recipe(job(tmp_path, "fp16", BuildOptions(workspace_mb=64)))


def job(directory: Path, precision: str, options: BuildOptions | None = None, folder: Any = None, **more: Any) -> BuildJob:
    graph = functools.partial(prepared_graph, folder, precision, "ort-cuda") if folder else tiny_graph
    return BuildJob(directory, folder, None, precision, 1, graph, options or BuildOptions(), **more)  # type: ignore[arg-type]


# --- the graph -----------------------------------------------------------------------------------------------------------


def pooled() -> onnx.ModelProto:
    """(1, 2, 8, 8) -> MaxPool with indices -> Relu -> MaxUnpool."""
    nodes = [
        helper.make_node("MaxPool", ["image"], ["small", "where"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["small"], ["kept"], "relu"),
        helper.make_node("MaxUnpool", ["kept", "where"], ["logits"], "unpool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 8, 8]) for name in ("image", "logits")]
    model = helper.make_model(helper.make_graph(nodes, "pooled", value[:1], value[1:]), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


def test_max_unpool_has_no_cuda_kernel_and_is_written_otherwise() -> None:
    tensor = RNG.normal(0, 1, (1, 2, 8, 8)).astype(np.float32)
    graph = lowered(pooled(), "fp32", PLAIN)
    assert "MaxUnpool" not in {node.op_type for node in graph.graph.node}
    expected = on_cpu(pooled()).run(None, {"image": tensor})[0]
    assert np.array_equal(on_cpu(graph).run(None, {"image": tensor})[0], expected)


def test_fp16_keeps_float32_at_the_edges() -> None:
    graph, tensor = lowered(tiny_graph(), "fp16", PLAIN), image()
    kinds = {value.type.tensor_type.elem_type for value in [*graph.graph.input, *graph.graph.output]}
    assert kinds == {TensorProto.FLOAT}
    assert all(item.data_type == TensorProto.FLOAT16 for item in graph.graph.initializer if len(item.dims) == 4)
    found, expected = (on_cpu(model).run(None, {"image": tensor})[0] for model in (graph, tiny_graph()))
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_plugins_are_named_as_the_tensorrt_provider_declares_them() -> None:
    graph = lowered(pooled(), "fp32", {**PLAIN, "tensorrt": True, "plugins": "/opt/libedgeseg_trt.so"})
    ours = [node for node in graph.graph.node if node.domain == "trt.plugins"]
    assert [node.op_type for node in ours] == ["EdgesegMaxPoolArgmax", "EdgesegMaxUnpool"]
    assert {"plugin_version", "plugin_namespace"} <= {item.name for item in ours[0].attribute}
    assert sorted((entry.domain, entry.version) for entry in graph.opset_import) == [("", 18), ("trt.plugins", 1)]
    assert not graph.functions
    assert {value.name for value in graph.graph.value_info} >= {"small", "where"}, "ONNX Runtime cannot infer them"


@pytest.mark.parametrize(
    ("version", "loads", "library", "used"),
    [
        ("10.16.2", True, True, True),
        ("11.4.0", True, True, False),
        ("10.16.2", False, True, False),
        ("10.16.2", True, False, False),
    ],
)
def test_plugins_are_handed_to_the_registry(
    monkeypatch: pytest.MonkeyPatch, version: str, loads: bool, library: bool, used: bool
) -> None:
    asked: list[str] = []

    def load_library(path: str) -> bool:
        asked.append(path)
        return loads

    def found() -> Any:
        if not library:
            raise BackendError("no TensorRT plugin library there")
        return SimpleNamespace(path=Path("/opt/libedgeseg_trt.so"), sha256="abc")

    fake = SimpleNamespace(__version__=version, get_plugin_registry=lambda: SimpleNamespace(load_library=load_library))
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(ort_cuda, "plugin_library", found)
    monkeypatch.setattr(ort_cuda, "tensorrt_version", lambda: "10.16.2")
    ort_cuda._plugins.cache_clear()
    try:
        assert ort_cuda._plugins() == ((Path("/opt/libedgeseg_trt.so"), "abc") if used else (None, "none"))
        ort_cuda._plugins()
    finally:
        ort_cuda._plugins.cache_clear()
    assert len(asked) == int(library and version.startswith("10")), "once a process, and never into another version's registry"


# --- the session ---------------------------------------------------------------------------------------------------------


def test_host_arrays_pass_through_device_memory(session: CudaSession, cuda: HostCuda) -> None:
    first, second = image(), image()
    expected = [on_cpu(tiny_graph()).run(None, {"image": item})[0] for item in (first, second)]
    kept = session.run({"image": first})["logits"]
    assert np.array_equal(kept, expected[0])
    assert cuda.copies == [first.nbytes, kept.nbytes]
    out = np.full_like(kept, np.nan)
    session.run_into({"image": second}, {"logits": out})
    assert np.array_equal(out, expected[1])
    assert np.array_equal(kept, expected[0]), "outputs belong to the caller"
    assert cuda.synchronized == 2


def test_device_arrays_are_bound_where_they_are(session: CudaSession, cuda: HostCuda) -> None:
    tensor = image()
    expected = on_cpu(tiny_graph()).run(None, {"image": tensor})[0]
    assert np.array_equal(session.run({"image": OnDevice(tensor, stream=11)})["logits"], expected)
    assert cuda.copies == [expected.nbytes], "only the output was copied"
    assert cuda.waited == [11], "what its producer still does comes first"
    assert np.array_equal(session.run({"image": tensor * 2})["logits"], on_cpu(tiny_graph()).run(None, {"image": tensor * 2})[0])


def test_dlpack_is_bound_where_it_is(session: CudaSession, cuda: HostCuda) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = image()
    given = ByDlpack(torch.from_numpy(tensor))
    assert np.array_equal(session.run({"image": given})["logits"], on_cpu(tiny_graph()).run(None, {"image": tensor})[0])
    assert given.asked == 7, "its producer orders its stream before ours"
    assert len(cuda.copies) == 1
    assert np.array_equal(session.run({"image": torch.from_numpy(tensor)})["logits"], session.run({"image": tensor})["logits"])


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ({}, "exactly"),
        ({"frame": OnDevice(image())}, "exactly"),
        ({"image": OnDevice(image()[..., 1:].copy())}, "shape"),
        ({"image": OnDevice(image().astype(np.float64))}, "dtype"),
        ({"image": OnDevice(image(), strides=(4, 4, 4, 4))}, "C-contiguous"),
        ({"image": image().astype(np.float64)}, "dtype"),
    ],
)
def test_wrong_feeds_are_refused(session: CudaSession, feeds: dict[str, Any], told: str) -> None:
    with pytest.raises(BackendError, match=told):
        session.run(feeds)


def test_a_captured_graph_serves_our_own_memory_only(cuda: HostCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    with CudaSession(on_cpu(tiny_graph()), "fp32", cuda, 7, device="cpu", cuda_graph=True) as session:  # type: ignore[arg-type]
        calls: list[Any] = []
        real = session._session  # type: ignore[attr-defined]

        def runs(binding: Any, options: Any) -> None:
            calls.append(options)
            real.run_with_iobinding(binding)

        monkeypatch.setattr(session, "_session", SimpleNamespace(run_with_iobinding=runs))
        for feed in (image(), OnDevice(image()), image()):
            session.run({"image": feed})
    assert [options is None for options in calls] == [True, False, True]
    assert calls[1].get_run_config_entry("gpu_graph_id") == "-1", "a graph reads the addresses of its capture"


def test_everything_is_freed_and_a_closed_session_says_so(session: CudaSession, cuda: HostCuda) -> None:
    session.run({"image": image()})
    session.close()
    session.close()
    assert not cuda.blocks
    assert not cuda.streams
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": image()})


def test_a_failing_run_is_one_line(session: CudaSession, cuda: HostCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access\nbacktrace")

    monkeypatch.setattr(session, "_session", SimpleNamespace(run_with_iobinding=fails))
    with pytest.raises(BackendError, match="does not run: CUDA failure 700: an illegal memory access;"):
        session.run({"image": image()})
    assert cuda.synchronized == 1, "nothing may still read the caller's arrays"


# --- building and loading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_build_and_load(tmp_path: Path, cuda: HostCuda, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    folder, told = tiny_folder(tmp_path / "tiny"), []
    monkeypatch.setattr(ort_cuda, "Cuda", lambda: cuda)
    monkeypatch.setattr(ort_cuda, "missing_library", lambda name: "absent" if name == TENSORRT else None)
    monkeypatch.setattr(ort_cuda, "provider_options", lambda *_: {"CPUExecutionProvider": {}})
    monkeypatch.setattr(ort_cuda, "refuse_fallback", lambda *_: None)
    monkeypatch.setattr(ort_cuda, "CudaSession", functools.partial(CudaSession, device="cpu"))
    directory = tmp_path / "engine"
    directory.mkdir()
    ort_cuda.build(job(directory, precision, folder=folder, progress=told.append))
    assert {path.name for path in directory.iterdir()} == {"engine.onnx", "recipe.json"}
    recipe = json.loads((directory / "recipe.json").read_bytes())
    assert list(recipe["providers"]) == ["CPUExecutionProvider"], "the provider that really runs is written down"
    assert "runs by CPUExecutionProvider" in told[-1]
    cuda.streams.add(7)
    tensor = image()
    with ort_cuda.load(directory, precision, 1) as session:
        found = session.run({"image": tensor})["logits"]
    expected = load_engine(folder, "ort", "fp32", 1).run({"image": tensor})["logits"]
    assert np.abs(found - expected).max() <= (1e-5 if precision == "fp32" else 0.02) * np.abs(expected).max()
    assert not cuda.blocks
    assert not cuda.streams


def test_an_engine_with_options_serves_where_none_are_asked_for() -> None:
    plain, graph = {"precision": "fp32"}, {"precision": "fp32", "option.cuda_graph": True}
    assert ort_cuda.serves(graph, plain)
    assert not ort_cuda.serves(plain, graph)
    assert not ort_cuda.serves({**graph, "precision": "fp16"}, plain)


def test_a_refused_graph_leaves_no_stream(tmp_path: Path, cuda: HostCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "Cuda", lambda: cuda)
    monkeypatch.setattr(ort_cuda, "missing_library", lambda _: "absent")
    monkeypatch.setattr(ort_cuda, "provider_options", lambda *_: {"CPUExecutionProvider": {}})
    with pytest.raises(BackendError, match="would run on the CPU"):
        ort_cuda.build(job(tmp_path, "fp32"))
    assert not cuda.streams
    assert not (tmp_path / "recipe.json").exists()


# --- with a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HERE is not None, reason=f"no GPU for ONNX Runtime: {HERE}")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.02), ("int8", 0.15)])
def test_on_the_gpu(tmp_path: Path, precision: str, tolerance: float) -> None:
    if reason := ort_cuda.supports(precision):
        pytest.skip(reason)
    folder, tensor = calibrated(tiny_folder(tmp_path / "tiny")), image()
    expected = load_engine(folder, "ort", "fp32", 1).run({"image": tensor})["logits"]
    session = load_engine(folder, "ort-cuda", precision, 1)
    assert isinstance(session, CudaSession)
    assert "CPUExecutionProvider" not in session.providers
    found = session.run({"image": tensor})["logits"]
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch is built without CUDA: device arrays were not tried")
    assert np.array_equal(session.run({"image": torch.from_numpy(tensor).cuda()})["logits"], found)
