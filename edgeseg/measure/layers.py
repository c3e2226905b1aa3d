"""Error layer by layer, with every intermediate tensor exposed: float against Q/DQ, or one backend against another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from edgeseg.engines.build import prepared_graph
from edgeseg.engines.session import BACKENDS, get_backend
from edgeseg.errors import BackendError
from edgeseg.measure.compare import network_feeds, tensor_difference

if TYPE_CHECKING:
    from edgeseg.folder import ModelFolder


@dataclass(frozen=True)
class LayerError:
    """One tensor of the second graph against the same tensor of the first.

    sqnr_db is 10 log10(sum a^2 / sum (a - b)^2): 20 dB is an error of a tenth; None when the two are equal.
    """

    tensor: str
    op_type: str
    max_abs: float
    max_rel: float
    sqnr_db: float | None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def expose(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that gives every float tensor made by a node as an output, except those inside Q/DQ pairs."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value for value in inferred.graph.value_info}
    present = {value.name for value in inferred.graph.output}
    for node in inferred.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        for name in node.output:
            value = kinds.get(name)
            if name and name not in present and value is not None and value.type.tensor_type.elem_type == TensorProto.FLOAT:
                inferred.graph.output.append(value)
                present.add(name)
    return inferred


def layer_errors(
    folder: ModelFolder, a: tuple[str, str], b: tuple[str, str], frames: Sequence[np.ndarray], threads: int = 1
) -> list[LayerError]:
    """Per-tensor error of engine kind ``b`` (backend, precision) against ``a``, in the order of the graph.

    The graphs are the ones that ``build`` compiles; exposing tensors keeps a backend from fusing across them, so the
    figures tell where error arises, not what a fused engine rounds. Only fp32 and int8 have graphs of their own.

    Raises:
        BackendError: a backend or precision that cannot expose its layers.
    """
    graphs = [expose(prepared_graph(folder, precision, backend)) for backend, precision in (a, b)]
    producers = {name: node.op_type for node in graphs[0].graph.node for name in node.output}
    common = {value.name for value in graphs[0].graph.output} & {value.name for value in graphs[1].graph.output}
    names = [name for name in producers if name in common]
    sessions = [_session(kind, graph, threads) for kind, graph in zip((a, b), graphs, strict=True)]
    sums = {name: _Sum() for name in names}
    for feed in network_feeds(folder, frames, threads):
        left, right = (session.run(feed) for session in sessions)
        for name in names:
            sums[name].add(left[name], right[name])
    for session in sessions:
        session.close()
    return [sums[name].error(name, producers[name]) for name in names]


def _session(kind: tuple[str, str], graph: onnx.ModelProto, threads: int) -> Any:
    backend, precision = kind
    get_backend(backend)
    module = import_module(BACKENDS[backend])
    if not hasattr(module, "open_graph") or precision not in ("fp32", "int8"):
        raise BackendError(
            f"--layers with {backend} {precision}", "backends ort and openvino in fp32 or int8", "--backends ort,openvino"
        )
    return module.open_graph(graph, threads)


class _Sum:
    """Running error of one tensor over frames."""

    def __init__(self) -> None:
        self.signal = self.noise = self.max_abs = self.max_rel = 0.0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        max_abs, max_rel = tensor_difference(a, b)
        self.max_abs, self.max_rel = max(self.max_abs, max_abs), max(self.max_rel, max_rel)
        self.signal += float(np.square(a, dtype=np.float64).sum())
        self.noise += float(np.square(a.astype(np.float64) - b).sum())

    def error(self, name: str, op_type: str) -> LayerError:
        if self.noise == 0:
            return LayerError(name, op_type, self.max_abs, self.max_rel, None)
        decibels = 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf
        return LayerError(name, op_type, self.max_abs, self.max_rel, round(decibels, 2))
