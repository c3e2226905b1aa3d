"""INT8 calibration for any ONNX model: find the ranges of its activations, write them as explicit Q/DQ for a target.

    float_graph = prepare(onnx.load("model.onnx"))
    ranges = collect(float_graph, batches, method="entropy")
    onnx.save(quantize(float_graph, ranges, profile="x86"), "model_int8.onnx")

Knows numpy, onnx and onnxruntime only.
"""

from __future__ import annotations

from calibration.collect import Observations, collect, observe
from calibration.errors import CalibrationError
from calibration.graph import graph_sha256
from calibration.prepare import prepare
from calibration.qdq import quantize
from calibration.ranges import Ranges

__all__ = ["CalibrationError", "Observations", "Ranges", "collect", "graph_sha256", "observe", "prepare", "quantize"]
