"""The TensorRT plugins: built against the headers that are there, driven by the harness, found by a real registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.errors import BackendError
from edgeseg.plugins import NAMESPACE, OPERATORS, PREFIX, VERSION
from edgeseg.plugins.registry import register
from tests.trt_plugins.toolchain import SOURCES, nvcc, run, tensorrt_roots, toolkit_include, warnings

ROOTS = tensorrt_roots() or [None]
EXPORTS = {"getCreators", "setLoggerFinder"}  # and the launchers, which the device side of Segmenter calls
FRAME_LAUNCHERS = {f"edgeseg_{name}_cuda" for name in ("preprocess", "upsample_argmax", "overlay")}
SYSTEM = re.compile(r"lib(stdc\+\+|m|gcc_s|c|dl|rt|pthread)\.so|ld-linux")

pytestmark = pytest.mark.skipif(ROOTS == [None], reason="no TENSORRT_ROOT: directories with TensorRT's headers, ':' between them")
needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="no nvcc: install the CUDA toolkit, or name it in CUDACXX")
needs_lean = pytest.mark.skipif(find_spec("tensorrt_lean") is None, reason="no tensorrt_lean: pip install tensorrt-lean-cu13")
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="no tensorrt_rtx: pip install 'edgeseg[rtx]'")


def named(root: Path | None) -> str:
    return root.name if root else "none"


def build(folder: Path, root: Path, *targets: str, **options: object) -> str:
    """What CMake and the compilers say; the results lie in ``folder``."""
    switches = [f"-D{name}={value}" for name, value in options.items()]
    headers = ["-UTENSORRT_INCLUDE", f"-DTENSORRT_ROOT={root}"]
    headers += [] if "EDGESEG_CUDA" in options else [f"-DCUDA_INCLUDE={toolkit_include()}"]
    said = run("cmake", "-S", SOURCES, "-B", folder, *headers, *switches)
    return said + run("cmake", "--build", folder, "-j2", *(part for target in targets for part in ("--target", target)))


def exports(library: Path) -> set[str]:
    """Names of the symbols that a library offers."""
    lines = run("readelf", "--dyn-syms", "-W", library).splitlines()
    return {line.split()[-1] for line in lines if re.search(r"\b(GLOBAL|WEAK|UNIQUE)\b", line) and " UND " not in line}


def without_launchers(library: Path) -> set[str]:
    return {name for name in exports(library) if not re.fullmatch(r"edgeseg_\w+_cuda|edgeseg_max_unpool_indices_workspace", name)}


def needed(library: Path) -> list[str]:
    return re.findall(r"Shared library: \[(.+?)\]", run("readelf", "-d", library))


# --- over the CPU twins ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build folder for all headers: the CPU twins are compiled once."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module", params=ROOTS, ids=named)
def host(request: pytest.FixtureRequest, folder: Path) -> tuple[Path, str]:
    """The build folder with the plugins over the CPU twins and the harness, and what the compilers said."""
    if toolkit_include() is None:
        pytest.skip("no cuda_runtime_api.h, which TensorRT's headers include: install the CUDA toolkit")
    said = build(folder, request.param, "edgeseg_trt_host", "edgeseg_plugin_harness", EDGESEG_HARNESS="ON")
    assert "plugin/entry.cpp" in said
    return folder, said


def test_the_plugins_compile_without_a_warning(host: tuple[Path, str]) -> None:
    assert warnings(host[1]) == []
    assert without_launchers(host[0] / "libedgeseg_trt_host.so") == EXPORTS
    assert [name for name in needed(host[0] / "libedgeseg_trt_host.so") if not SYSTEM.match(name)] == []


def test_the_harness_drives_every_method(host: tuple[Path, str]) -> None:
    said = run(host[0] / "edgeseg_plugin_harness", host[0] / "libedgeseg_trt_host.so")
    assert "FAIL" not in said
    count = re.search(r"^(\d+) checks passed, 0 failed$", said, re.MULTILINE)
    assert count is not None
    assert int(count[1]) > 2000
    for name in OPERATORS:
        assert f"ok    {name}, " in said


def test_the_harness_tells_what_it_cannot_drive(host: tuple[Path, str]) -> None:
    for library in ("libm.so.6", "/nowhere.so"):
        done = subprocess.run([host[0] / "edgeseg_plugin_harness", library], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr


@needs_lean
def test_a_registry_finds_every_creator(host: tuple[Path, str]) -> None:
    found = register(host[0] / "libedgeseg_trt_host.so")
    assert {creator["name"] for creator in found.creators} == {f"{PREFIX}{name}" for name in OPERATORS}
    assert {creator["version"] for creator in found.creators} == {VERSION}


@needs_lean
def test_a_creator_refuses_with_a_sentence(host: tuple[Path, str]) -> None:
    code = (
        "import sys, numpy as np, tensorrt_lean as trt\nregistry = trt.get_plugin_registry()\nregistry.load_library(sys.argv[1])\n"
        f"creator = registry.get_creator('{PREFIX}MaxUnpool', '{VERSION}', '{NAMESPACE}')\n"
        "def make(*kernel):\n"
        "    field = trt.PluginField('kernel_shape', np.array(kernel, np.int32), trt.PluginFieldType.INT32)\n"
        "    return creator.create_plugin('head', trt.PluginFieldCollection([field]), trt.TensorRTPhase.BUILD)\n"
        "assert make(2, 2) is not None\nassert make(2) is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(host[0] / "libedgeseg_trt_host.so")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{PREFIX}MaxUnpool in layer head: field kernel_shape has too few values\n"


NODES: dict[str, tuple[list[str], list[str], dict[str, object]]] = {
    "RoIAlign": (
        ["rois", "images", "x"],
        ["y"],
        {"output_height": 7, "output_width": 7, "sampling_ratio": 2, "mode": "max", "aligned": 1, "spatial_scales": [0.25]},
    ),
    "MaxPoolArgmax": (["x"], ["y", "codes"], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}),
    "MaxUnpool": (["x", "places"], ["y"], {"kernel_shape": [2, 2], "strides": [2, 2], "output_size": [64, 64]}),
    "MaxPoolIndices": (["x"], ["y", "indices"], {"kernel_shape": [3, 3], "strides": [2, 2], "storage_order": 1}),
    "MaxUnpoolIndices": (["x", "indices"], ["y"], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}),
    "UpsampleArgmax": (["x"], ["y", "p"], {"size": [64, 64], "align_corners": 0, "logit_scale": 0.5, "probability": 1}),
}


@pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="no tensorrt_rtx, whose ONNX parser is at hand: pip install 'edgeseg[rtx]'"
)
@pytest.mark.parametrize("name", NODES)
def test_an_onnx_parser_makes_the_plugin_of_a_node(host: tuple[Path, str], name: str, tmp_path: Path) -> None:
    """TensorRT-RTX's parser is TensorRT's, up to the plugin's creation; adding it to a network aborts the process."""
    inputs, outputs, attributes = NODES[name]
    node = helper.make_node(
        f"{PREFIX}{name}",
        inputs,
        outputs,
        "node",
        domain="edgeseg",
        plugin_version=VERSION,
        plugin_namespace=NAMESPACE,
        **attributes,
    )
    shapes = {"rois": ["k", 4], "images": ["k"]}
    types = {"images": TensorProto.INT64, "indices": TensorProto.INT64, "places": TensorProto.INT8}
    values = [helper.make_tensor_value_info(i, types.get(i, TensorProto.FLOAT), shapes.get(i, [1, 8, 32, 32])) for i in inputs]
    graph = helper.make_graph([node], "one", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("edgeseg", 1)], ir_version=9)
    onnx.save(model, tmp_path / "one.onnx")
    code = (
        "import sys, tensorrt_rtx as trt\n"
        "logger = trt.Logger(trt.Logger.VERBOSE)\ntrt.get_plugin_registry().load_library(sys.argv[1])\n"
        "builder = trt.Builder(logger)\nnetwork = builder.create_network()\n"
        "trt.OnnxParser(network, logger).parse_from_file(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(host[0] / "libedgeseg_trt_host.so"), str(tmp_path / "one.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert f"Successfully created plugin: {PREFIX}{name}" in said, said[-2000:]


# --- with the kernels --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A build folder of the real library with the first headers, for one GPU."""
    folder = tmp_path_factory.mktemp("real")
    root = ROOTS[0]
    assert root is not None
    options = {"EDGESEG_CUDA": "ON", "EDGESEG_HARNESS": "ON", "CMAKE_CUDA_ARCHITECTURES": "87-real"}
    return folder, build(folder, root, "edgeseg_trt", "edgeseg_kernels", "edgeseg_plugin_harness", **options)


@needs_nvcc
@pytest.mark.slow
def test_the_library_stands_alone(real: tuple[Path, str]) -> None:
    folder, said = real
    assert warnings(said) == []
    library = folder / "libedgeseg_trt.so"
    assert without_launchers(library) == EXPORTS
    assert exports(library) > FRAME_LAUNCHERS
    assert [name for name in needed(library) if not SYSTEM.match(name)] == []  # no libnvinfer, no libcudart
    launchers = exports(folder / "libedgeseg_kernels.so")
    assert {f"edgeseg_{name}_cuda" for name in ("roi_align", "max_unpool")} | FRAME_LAUNCHERS < launchers
    assert [name for name in launchers if not name.startswith("edgeseg_")] == []


@needs_nvcc
@pytest.mark.slow
def test_the_harness_drives_the_library_but_for_its_kernels(real: tuple[Path, str]) -> None:
    said = run(real[0] / "edgeseg_plugin_harness", real[0] / "libedgeseg_trt.so", "--no-enqueue")
    assert re.search(r"^\d+ checks passed, 0 failed$", said, re.MULTILINE)


@needs_nvcc
@needs_lean
@pytest.mark.slow
def test_the_command_checks_the_library(real: tuple[Path, str]) -> None:
    command = [sys.executable, "-m", "edgeseg", "plugins", "check", "--library", str(real[0] / "libedgeseg_trt.so"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["sha256"]) == 64
    assert [creator["name"] for creator in answer["registry"]["creators"]] == [f"{PREFIX}{name}" for name in OPERATORS]
    with pytest.raises(BackendError, match="has no getCreators"):
        register(real[0] / "libedgeseg_kernels.so")
