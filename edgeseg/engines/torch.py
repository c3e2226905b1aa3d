"""PyTorch on the CPU: the reference, run from the network's own definition and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from edgeseg.engines.session import BuildJob, SessionBase, TensorSpec
from edgeseg.errors import BackendError
from edgeseg.files import write_json

NAME = "torch"
PRECISIONS = ("fp32", "bf16")
STATE, RECIPE = "state.pt", "recipe.json"


def available() -> str | None:
    return None


def version() -> str:
    return torch.__version__


def supports(precision: str) -> str | None:
    return None


def build(job: BuildJob) -> None:
    """Make the network of the manifest's architecture with its weights, and write both down.

    Raises:
        EdgesegError: the model was adopted from ONNX, so there is no PyTorch definition of it, or weights do not fit.
    """
    from edgeseg.models.weights import load_network

    torch.save(load_network(job.folder).state_dict(), job.directory / STATE)
    manifest = job.manifest
    assert manifest.architecture is not None  # load_network refuses otherwise
    write_json(
        job.directory / RECIPE,
        {
            "name": manifest.architecture.name,
            "num_classes": len(manifest.classes),
            "options": manifest.architecture.options,
            "input": [manifest.input.name, list(manifest.input.shape)],
            "outputs": list(manifest.output_names),
        },
    )


def load(directory: Path, precision: str, threads: int) -> TorchSession:
    """Make the network again from what ``build`` wrote."""
    from edgeseg import models

    recipe = json.loads((directory / RECIPE).read_bytes())
    network = models.create(recipe["name"], num_classes=recipe["num_classes"], **recipe["options"])
    network.load_state_dict(torch.load(directory / STATE, weights_only=True), strict=True)
    name, shape = recipe["input"]
    return TorchSession(network, precision, threads, TensorSpec(name, tuple(shape)), recipe["outputs"])


class TorchSession(SessionBase):
    """A PyTorch module as a session; ``threads`` is a setting of the whole process and is set at every run."""

    backend = NAME

    def __init__(self, network: torch.nn.Module, precision: str, threads: int, spec: TensorSpec, outputs: list[str]) -> None:
        self._network: torch.nn.Module | None = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._threads, self._bf16 = threads, precision == "bf16"
        self.precision = precision
        self._names = outputs
        found = self._forward(np.zeros(spec.shape or (), np.float32))
        kinds = {name: str(item.dtype).removeprefix("torch.") for name, item in found.items()}
        super().__init__(precision, [spec], [TensorSpec(name, tuple(item.shape), kinds[name]) for name, item in found.items()])

    def _forward(self, array: np.ndarray) -> dict[str, torch.Tensor]:
        if self._network is None:
            raise BackendError("the session is closed", fix="load the engine again")
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            result = self._network(torch.from_numpy(array).contiguous(memory_format=torch.channels_last))
        tensors = list(result.values()) if isinstance(result, Mapping) else result
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        # A network may give more than its manifest names.
        return {name: item.float() if item.is_floating_point() else item for name, item in zip(self._names, tensors, strict=False)}

    def _execute(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        result = self._forward(feeds[self.inputs[0].name])
        for name, array in outputs.items():
            torch.from_numpy(array).copy_(result[name])

    def close(self) -> None:
        self._network = None
