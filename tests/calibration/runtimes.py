"""What a runtime really runs: read from ONNX Runtime's optimised graph and OpenVINO's executed model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import ModelProto


def ort_output(model: ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def ort_kernels(model: ModelProto, directory: Path, signed: bool = False) -> Counter[str]:
    """Operators of the graph that ONNX Runtime executes. ``signed``: fuse int8 activations too, as it does on ARM."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(directory / "optimised.onnx")
    # Above this level the layout is made the machine's own and the file may not be read back.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.qdqisint8allowed", "1" if signed else "0")
    onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def openvino_model(model: ModelProto, threads: int = 1) -> openvino.CompiledModel:

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)


def openvino_layers(model: ModelProto) -> Counter[tuple[str, str]]:
    """(kind of layer, precision it runs in) of the model that OpenVINO executes."""
    found: Counter[tuple[str, str]] = Counter()
    for operator in openvino_model(model).get_runtime_model().get_ordered_ops():
        notes = operator.get_rt_info()
        found[notes["layerType"].astype(str), notes["runtimePrecision"].astype(str)] += 1
    return found
