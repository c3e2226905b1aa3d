"""ONNX Runtime on an NVIDIA GPU: float32 and FP16 by its CUDA provider, FP16 and INT8 by its TensorRT provider where TensorRT is.

Nothing runs on the CPU unnoticed: what a provider lacks is asked for first, and a node that it leaves to the CPU is refused.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from edgeseg.engines import ort
from edgeseg.engines.keys import device
from edgeseg.engines.lowering import to_half, to_plugins, to_standard
from edgeseg.engines.nvidia.cuda import Cuda
from edgeseg.engines.nvidia.device import gpu, why_no_gpu
from edgeseg.engines.options import differ_in_options_alone
from edgeseg.engines.ort_cuda_libraries import CUDA, TENSORRT, missing_library, tensorrt_version, wrong_package
from edgeseg.engines.ort_cuda_session import CudaSession
from edgeseg.engines.passes.scatter import scatter_unpools
from edgeseg.engines.session import BuildJob
from edgeseg.errors import BackendError
from edgeseg.files import write_json
from edgeseg.ops import functions
from edgeseg.plugins import PREFIX, plugin_library

NAME = "ort-cuda"
PRECISIONS = ("fp32", "fp16", "int8")
OPTIONS = ("workspace_mb", "builder_level", "hardware_compatible", "cuda_graph")
THREADED = False
ENGINE, RECIPE = "engine.onnx", "recipe.json"
PLUGIN_DOMAIN = "trt.plugins"
"""Where ONNX Runtime's TensorRT provider declares the plugins that it finds in TensorRT's registry."""


def available() -> str | None:
    if reason := wrong_package() or why_no_gpu() or missing_library(CUDA):
        return f"{reason}; `--backend ort` runs on the CPU"
    return None


def version() -> str:
    """Version of ONNX Runtime, and of the TensorRT that its provider would run."""
    found = tensorrt_version()
    return onnxruntime.__version__ + ("" if found == "none" else f", TensorRT {found}")


def supports(precision: str) -> str | None:
    if precision == "int8" and (reason := missing_library(TENSORRT)):
        # The CUDA provider has no INT8 convolution: a Q/DQ graph would run in float.
        return f"only ONNX Runtime's TensorRT provider computes in it ({reason})"
    return None


def device_fields() -> dict[str, str]:
    """What an engine depends on besides the graph: GPU, driver, and our plugin library by its content."""
    found = gpu()
    if found is None:
        return {**device(), "gpu": "none"}
    return {"gpu": found.name, "sm": found.sm, "driver": found.driver, "plugins": _plugins()[1]}


def serves(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """An engine built with options serves where none are asked for."""
    return differ_in_options_alone(found, wanted)


# --- building and loading ------------------------------------------------------------------------------------------------


def build(job: BuildJob) -> None:
    """Write the graph and how to run it; where TensorRT runs it, its engine and measured tactics lie beside it.

    Raises:
        BackendError: the graph or an option is refused, or a node would run on the CPU.
    """
    recipe = make_recipe(job)
    onnx.save(lowered(job.graph(), job.precision, recipe), str(job.directory / ENGINE))
    with closing(_open(job.directory, job.precision, job.threads, recipe, building=True)) as session:
        # What a provider finds missing, or cannot capture, it tells only when it runs.
        session.run({spec.name: np.zeros_like(spec.empty()) for spec in session.inputs})
        recipe["providers"] = session.providers
    if session.providers:
        job.progress(f"runs by {', '.join(f'{name} ({count} nodes)' for name, count in session.providers.items())}")
    write_json(job.directory / RECIPE, recipe)


def make_recipe(job: BuildJob) -> dict[str, Any]:
    """How the engine is to be run, as it is kept beside it.

    Raises:
        BackendError: an option of the TensorRT provider where another runs.
    """
    # Float32 goes to the CUDA provider: the TensorRT provider has no switch against TF32, which keeps 10 bits of 23.
    tensorrt = job.precision != "fp32" and missing_library(TENSORRT) is None
    given = {name: value for name, value in job.options.given().items() if name != "cuda_graph"}
    if given and not tensorrt:
        flag = "--" + next(iter(given)).replace("_", "-")
        why = "float32 runs by ONNX Runtime's CUDA provider" if job.precision == "fp32" else missing_library(TENSORRT)
        raise BackendError(f"{NAME} {job.precision}: {flag} is of the TensorRT provider ({why})", fix=f"leave {flag} out")
    plugins = str(_plugins()[0] or "") if tensorrt else ""
    return {"tensorrt": tensorrt, "plugins": plugins, "cuda_graph": job.options.cuda_graph, "options": given}


def lowered(model: onnx.ModelProto, precision: str, recipe: dict[str, Any]) -> onnx.ModelProto:
    """The graph as the providers read it."""
    if recipe["plugins"]:
        graph = to_plugins(model)
    else:
        graph = to_standard(model)
        scatter_unpools(graph)  # ONNX Runtime has MaxUnpool for the CPU alone
    graph = to_half(graph) if precision == "fp16" else graph
    return as_registered_plugins(graph)


def as_registered_plugins(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with our operators in the domain, and under the names, that ONNX Runtime declares TensorRT's plugins by."""
    if not any(map(functions.is_ours, functions.walk(model.graph))):
        return model
    named = functions.infer(model)  # what a plugin gives ONNX Runtime cannot infer: it is written down
    for node in filter(functions.is_ours, functions.walk(named.graph)):
        node.domain, node.op_type = PLUGIN_DOMAIN, PREFIX + node.op_type.removeprefix(PREFIX)
    kept = [entry for entry in named.opset_import if entry.domain != functions.DOMAIN]
    del named.opset_import[:]
    named.opset_import.extend([*kept, helper.make_opsetid(PLUGIN_DOMAIN, 1)])
    return named


def load(directory: Path, precision: str, threads: int) -> CudaSession:
    """Open what ``build`` wrote on the first GPU."""
    return _open(directory, precision, threads, json.loads((directory / RECIPE).read_bytes()))


def _open(directory: Path, precision: str, threads: int, recipe: dict[str, Any], *, building: bool = False) -> CudaSession:
    if recipe["plugins"]:
        # The library may have moved, and must be one that may be loaded still; its content is in the engine's key.
        library = _plugins()[0]
        if library is None:
            raise BackendError(f"{recipe['plugins']}: cannot be loaded any more", "our plugin library", "edgeseg build --force")
        recipe = {**recipe, "plugins": str(library)}
    cuda = Cuda()
    stream = cuda.stream()
    try:
        providers = provider_options(directory, precision, recipe, stream, building)
        session = create_session(directory / ENGINE, providers, threads, optimise=not recipe["tensorrt"])
        return CudaSession(session, precision, cuda, stream, providers=assigned(session), cuda_graph=recipe["cuda_graph"])
    except BaseException:
        cuda.free_stream(stream)
        raise


def provider_options(
    directory: Path, precision: str, recipe: dict[str, Any], stream: int, building: bool = False
) -> dict[str, dict[str, str]]:
    """Execution providers in the order in which they are asked, with their settings."""
    common = {"device_id": "0", "user_compute_stream": str(stream)}
    tensorrt, graph = recipe["tensorrt"], recipe["cuda_graph"]
    cuda = {**common, "use_tf32": str(int(precision != "fp32")), "enable_cuda_graph": str(int(graph and not tensorrt))}
    if not tensorrt:
        return {CUDA: cuda}
    return {TENSORRT: {**common, **_tensorrt_options(directory, precision, recipe, building)}, CUDA: cuda}


def _tensorrt_options(directory: Path, precision: str, recipe: dict[str, Any], building: bool) -> dict[str, str]:
    asked, place = recipe["options"], str(directory.absolute())
    # This provider reads no other spelling of a truth value than Python's.
    options = {
        "trt_fp16_enable": "True",  # what an int8 graph leaves in float may as well be FP16: it is read back from 8 bits anyway
        "trt_int8_enable": str(precision == "int8"),
        "trt_cuda_graph_enable": str(bool(recipe["cuda_graph"])),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": place,
        "trt_engine_cache_prefix": "engine",
        # Only while building: the files of a finished engine are vouched for by their SHA-256 and may not change.
        "trt_timing_cache_enable": str(building),
        "trt_timing_cache_path": place,
        "trt_engine_hw_compatible": str(bool(asked.get("hardware_compatible", False))),
    }
    if "workspace_mb" in asked:
        options["trt_max_workspace_size"] = str(asked["workspace_mb"] << 20)
    if "builder_level" in asked:
        options["trt_builder_optimization_level"] = str(asked["builder_level"])
    if recipe["plugins"]:
        options["trt_extra_plugin_lib_paths"] = recipe["plugins"]
    return options


# --- what runs where -------------------------------------------------------------------------------------------------------


def create_session(
    path: Path, providers: dict[str, dict[str, str]], threads: int, *, optimise: bool
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session all of whose nodes run by the first providers, never by the CPU's.

    Raises:
        BackendError: a provider did not come up, or leaves nodes to the CPU; names the first.
    """
    options = ort.session_options(threads, optimise)
    says = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
    # Where ONNX Runtime says which node runs where we refuse by name; an older one only refuses.
    options.add_session_config_entry("session.record_ep_graph_assignment_info" if says else "session.disable_cpu_ep_fallback", "1")
    try:
        with redirect_stdout(io.StringIO()):  # where older ones announce that they fall back
            session = onnxruntime.InferenceSession(str(path), options, providers=list(providers.items()), enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BackendError(
            f"ONNX Runtime refuses the graph on the GPU: {ort.first_line(error)}", fix="--backend ort runs it"
        ) from error
    refuse_fallback(session, next(iter(providers)))
    return session


def refuse_fallback(session: Any, wanted: str) -> None:
    """Raise unless provider ``wanted`` came up and no node was left to the CPU.

    Raises:
        BackendError: says which provider or node.
    """
    have = session.get_providers()
    if wanted not in have:
        what = f"ONNX Runtime fell back from {wanted} to {', '.join(have)}"
        raise BackendError(what, fix="`edgeseg doctor` shows what is missing; --backend ort runs on the CPU")
    if strays := [node for provider, node in _assignments(session) if provider == "CPUExecutionProvider"]:
        first = f"{strays[0].name!r} ({strays[0].op_type})"
        raise BackendError(
            f"{len(strays)} nodes would run on the CPU, the first {first}", "all on the GPU", "--backend tensorrt, or --backend ort"
        )


def assigned(session: Any) -> dict[str, int]:
    """Execution provider -> number of nodes that it runs; empty where this ONNX Runtime does not say."""
    return dict(Counter(provider for provider, _ in _assignments(session)))


def _assignments(session: Any) -> Iterator[tuple[str, Any]]:
    for part in session.get_provider_graph_assignment_info() if hasattr(session, "get_provider_graph_assignment_info") else []:
        for node in part.get_nodes():
            yield part.ep_name, node


@cache
def _plugins() -> tuple[Path | None, str]:
    """Our plugin library and its SHA-256 once it is in TensorRT's registry; (None, "none") where it cannot be.

    The provider's own option only loads a library, which registers plugins of the old kind alone; ours must be handed to the
    registry, which needs TensorRT's Python bindings.
    """
    try:
        tensorrt, library = import_module("tensorrt"), plugin_library()
    except (ImportError, OSError, RuntimeError, BackendError):  # the bindings raise each of them where libnvinfer is not whole
        return None, "none"
    registry = tensorrt.get_plugin_registry() if str(tensorrt.__version__).startswith(tensorrt_version()) else None
    if registry is None or not registry.load_library(str(library.path)):
        return None, "none"
    return Path(library.path), str(library.sha256)
