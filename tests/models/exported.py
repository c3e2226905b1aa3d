"""What tests of networks share: a network's graph in ONNX Runtime and OpenVINO against PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgeseg.export.torch_onnx import to_onnx

TOLERANCE = 1e-4


def check_export(network: nn.Module, names: tuple[str, ...], traced: tuple[int, ...], shapes: Iterable[tuple[int, ...]]) -> None:
    """The graph traced at ``traced`` gives what the network gives at each of ``shapes``; dynamic if any differs from it."""
    shapes = list(shapes)
    model = to_onnx(network.eval(), traced, "image", names, dynamic=shapes != [traced]).SerializeToString()
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    for seed, shape in enumerate(shapes):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            result = network(x)
        expected = result if isinstance(result, tuple) else (result,)
        runs = {"ort": session.run(list(names), {"image": x.numpy()}), "openvino": list(compiled([x.numpy()]).values())}
        for runtime, found in runs.items():
            for name, tensor, array in zip(names, expected, found, strict=True):
                wanted = tensor.numpy()
                assert array.shape == wanted.shape, (runtime, name, shape)
                assert np.abs(array - wanted).max() <= TOLERANCE * np.abs(wanted).max(), (runtime, name, shape)
