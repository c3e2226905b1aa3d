"""A recording stand-in for the ``tensorrt`` module: what TensorRT-RTX lacks or needs a GPU for, as far as our code asks for it.

An engine is the ONNX model itself and runs in ONNX Runtime, reading and writing the memory that it is bound to. The model's
doc_string is a command to the builder: "abort", "exit", "hang", "slow" or "refuse". ``DLA_CORES`` and ``CANNOT_DLA`` say what the
machine has. While a ``FakeCuda`` captures, work is kept instead of done.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

__version__ = "10.3.0-fake"
DLA_CORES, CANNOT_DLA = 2, ("Resize",)
CONFIGS: list[Config] = []
CAPTURED: list[list[Callable[[], None]]] = []
_TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
    "uint8": "INT8",
}

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "TF32", "GPU_FALLBACK", "REFIT", "VERSION_COMPATIBLE"])
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
OnnxParserFlag = enum.Enum("OnnxParserFlag", ["NATIVE_INSTANCENORM", "ADJUST_FOR_DLA"])


class ILogger:
    ERROR, VERBOSE = "Severity.ERROR", "Severity.VERBOSE"


class IProgressMonitor:
    pass


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    return True


class Registry:
    loaded: list[str] = []  # noqa: RUF012

    def load_library(self, path: str) -> object | None:
        if "broken" in path:
            return None
        self.loaded.append(path)
        return object()


class Layer:
    def __init__(self, node: onnx.NodeProto) -> None:
        self.name, self.type = node.name or node.output[0], f"LayerType.{node.op_type.upper()}"
        self.operator = node.op_type


class Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


class Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model = flags, onnx.ModelProto()

    @property
    def _inputs(self) -> list[onnx.ValueInfoProto]:
        stored = {tensor.name for tensor in self.model.graph.initializer}
        return [value for value in self.model.graph.input if value.name not in stored]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> Tensor:
        return Tensor(self._inputs[index])

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    def get_layer(self, index: int) -> Layer:
        return Layer(self.model.graph.node[index])


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data or b"tactics"


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = (low, best, high)


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[Profile] = []
        self.cache: TimingCache | None = None
        self.num_compute_capabilities = 0
        CONFIGS.append(self)

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802
        return layer.operator not in CANNOT_DLA

    def create_timing_cache(self, data: bytes) -> TimingCache:
        return TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return DLA_CORES

    def get_plugin_registry(self) -> Registry:
        return Registry()

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
        command = network.model.doc_string
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 3)
        if command == "abort":
            print("plugin is not supported", flush=True)
            os.abort()
        if command == "exit":
            os._exit(7)
        if command == "refuse":
            self.logger.log(ILogger.ERROR, "no tactic within the workspace")
            return None
        while command == "hang":
            time.sleep(0.01)
        for step in range(300 if command == "slow" else 3):
            time.sleep(0.05 if command == "slow" else 0)
            if not monitor.step_complete("Building", step):
                return None
        monitor.phase_finish("Building")
        profiles = [profile.shapes for profile in config.profiles]
        return json.dumps({"model": network.model.SerializeToString().hex(), "profiles": profiles}).encode()


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network, self.logger, self.num_errors, self.flags = network, logger, 0, []

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)

    def parse(self, data: bytes) -> bool:
        self.network.model = onnx.load_from_string(data)
        return True


class Inspector:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model

    def get_engine_information(self, form: Any) -> str:
        tensor = {"Name": "t", "Dimensions": [1, 8], "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
        layers = [
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [tensor],
                "Outputs": [tensor],
                "TacticName": "sm80_xmma",
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in self.model.graph.node
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


class Engine:
    def __init__(self, plan: bytes) -> None:
        said = json.loads(plan)
        self.model = onnx.load_from_string(bytes.fromhex(said["model"]))
        self.profiles = said["profiles"]
        network = Network(0)
        network.model = self.model
        self.inputs = {value.name: value for value in network._inputs}
        self.outputs = {value.name: value for value in self.model.graph.output}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = max(len(self.profiles), 1)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def numpy_type(self, name: str) -> str:
        value = self.inputs.get(name) or self.outputs[name]
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[_TYPES[self.numpy_type(name)]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return Tensor(self.inputs.get(name) or self.outputs[name]).shape

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.profiles[index][name]]

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self.model)

    def create_execution_context(self) -> Context:
        return Context(self)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger, self.engine_host_code_allowed = logger, False

    def get_plugin_registry(self) -> Registry:
        return Registry()

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if plan.startswith(b"{"):
            return Engine(plan)
        self.logger.log(ILogger.ERROR, "serialization: magic tag does not match")
        return None


class Context:
    """Runs the model on the host, at once or, while a capture is on, when its graph is launched."""

    created: list[Context] = []  # noqa: RUF012

    def __init__(self, engine: Engine) -> None:
        import onnxruntime

        self.engine, self.addresses, self.runs, self.refuses, self.profile = engine, {}, 0, False, 0
        self.shapes = {name: engine.get_tensor_shape(name) for name in engine.inputs}
        self.session = onnxruntime.InferenceSession(engine.model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.created.append(self)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        feeds = {key: np.zeros(shape, self.engine.numpy_type(key)) for key, shape in self.shapes.items()}
        return self.session.run([name], feeds)[0].shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0, "TensorRT takes addresses of 256-byte alignment"
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.refuses:
            return False
        bound = dict(self.addresses)
        if CAPTURED:
            CAPTURED[-1].append(lambda: self._run(bound))
        else:
            self._run(bound)
        return True

    def _run(self, bound: dict[str, int]) -> None:
        self.runs += 1
        feeds = {name: at(bound[name], shape, self.engine.numpy_type(name)).copy() for name, shape in self.shapes.items()}
        for name, value in zip(self.engine.outputs, self.session.run(None, feeds), strict=True):
            at(bound[name], value.shape, value.dtype.name)[...] = value


def at(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype).reshape(shape)
