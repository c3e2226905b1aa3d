"""Build a graph with TensorRT-RTX, in a process of its own: a graph may abort it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

_BUILD = """
import json, sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit(str([str(parser.get_error(i)) for i in range(parser.num_errors)]))
config = builder.create_builder_config()
targets = sys.argv[2:]
config.num_compute_capabilities = len(targets)
for i, target in enumerate(targets):
    config.set_compute_capability(getattr(trt.ComputeCapability, target), i)
engine = builder.build_serialized_network(network, config)
outputs = [network.get_output(i).dtype.name.lower() for i in range(network.num_outputs)]
print(json.dumps({"size": 0 if engine is None else engine.nbytes, "outputs": outputs}))
"""


@dataclass(frozen=True)
class Built:
    """An engine's bytes, 0 where there is none, and TensorRT's names of its outputs' types."""

    size: int
    outputs: list[str]


def build(model: onnx.ModelProto, folder: Path, targets: tuple[str, ...] = ("SM86", "SM89", "SM120")) -> Built:
    """Build ``model`` for the targets; skips the test where TensorRT-RTX is not installed."""
    pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    command = [sys.executable, "-c", _BUILD, str(path), *targets]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    return Built(**json.loads(child.stdout.splitlines()[-1]))
