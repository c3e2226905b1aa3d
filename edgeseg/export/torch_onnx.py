"""PyTorch to ONNX: the folder's network as a float graph, checked against PyTorch before it is kept.

Our operators are written as functions whose bodies are standard operators, or as standard operators at once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript.optimizer import fold_constants_ir
from torch import Tensor, nn

from calibration.graph import forget_types
from edgeseg.errors import EdgesegError
from edgeseg.export.parity import Case, check_parity
from edgeseg.export.translations import OPERATORS, translations
from edgeseg.files import check_writable
from edgeseg.folder import GRAPH, ModelFolder
from edgeseg.manifest import OUTPUTS, Manifest, OutputKind
from edgeseg.models import check_size, kind_of
from edgeseg.models.weights import load_network
from edgeseg.onnx_guard import save_onnx
from edgeseg.ops import functions

OPSET = 18


def export_folder(
    folder: ModelFolder, dynamic: bool = False, batch: int = 1, half_weights: bool = False, operators: str = "edgeseg"
) -> Manifest:
    """Write model.onnx beside the weights and record its parity with PyTorch.

    Args:
        dynamic: let batch, height and width vary.
        batch: the fixed batch size otherwise.
        half_weights: store weights of two or more dimensions as FP16 (half the file); the network is rounded first, so
            that the parity is that of what is stored.
        operators: "edgeseg" or "standard", see ``to_onnx``.

    Raises:
        EdgesegError: no weights, an unknown ``operators``, or the graph departs from PyTorch.
    """
    check_writable(folder.path)
    network = load_network(folder)
    spec = folder.manifest.input.model_copy(update={"dynamic": dynamic, "batch": batch})
    if half_weights:
        _round_to_half(network)
    check_size(network, spec.height, spec.width)
    several = folder.manifest.output_names if kind_of(network) in OUTPUTS else ()
    names = several or (folder.manifest.output.name,)
    model = to_onnx(network, spec.shape, spec.name, names, dynamic, operators)
    if half_weights:
        model = store_half(model)
    cases = [_case(network, spec.name, shape, seed, several) for seed, shape in enumerate(_shapes(spec.shape, dynamic))]
    parity = check_parity(model, cases, OPSET)
    save_onnx(model, folder.graph)
    output = folder.manifest.output.model_copy(update={"kind": _kind(network, cases[0])})
    return folder.register(GRAPH, input=spec, output=output, parity=parity)


def _kind(network: nn.Module, case: Case) -> OutputKind:
    if isinstance(case.expected, dict):
        return kind_of(network)
    return "labels" if np.issubdtype(case.expected.dtype, np.integer) else "logits"


def to_onnx(
    network: nn.Module,
    shape: tuple[int, ...],
    input_name: str,
    output_names: str | Sequence[str],
    dynamic: bool,
    operators: str = "edgeseg",
) -> onnx.ModelProto:
    """The network in evaluation mode as ONNX at ``OPSET``; parameters keep their state-dict names, batch norm is not folded.

    Args:
        output_names: names of what the network returns, in order.
        operators: "edgeseg" writes our operators as functions of that domain, which ONNX Runtime runs by their bodies and
            TensorRT by our plugins; "standard" writes what any tool reads.
    """
    if operators not in OPERATORS:
        raise EdgesegError(f"operators {operators!r}", f"one of {', '.join(OPERATORS)}", "choose one of these")
    example = torch.zeros(2 if dynamic else shape[0], *shape[1:])
    # torch.export specialises a batch of one, so dynamic graphs are traced with two.
    sizes: Any = ({0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},) if dynamic else None
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)  # says four times that torchvision is absent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=translations(operators),
                dynamic_shapes=sizes,
                input_names=[input_name],
                output_names=[output_names] if isinstance(output_names, str) else list(output_names),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise EdgesegError(
                f"export failed: {reason}", "a network that torch.export can trace", "see the architecture's docs"
            ) from error
    assert program is not None
    return _tidy(program.model, operators)


def _tidy(model: Any, operators: str) -> onnx.ModelProto:
    # The exporter's own optimiser also folds batch norm and loses the parameters' names; only constants are folded here.
    proto = _fold(model)
    # The exporter notes PyTorch's types: int64 for indices that are codes here.
    forget_types(proto.graph, {name for node in proto.graph.node if functions.is_ours(node) for name in node.output})
    proto = functions.attach(proto, "standard")
    if operators == "standard" and proto.functions:
        proto = _fold(ir.from_proto(functions.inline(proto)))
    onnx.checker.check_model(proto)
    return proto


def _fold(model: Any) -> onnx.ModelProto:
    fold_constants_ir(model)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        step(model)
    return ir.to_proto(model)


def _round_to_half(network: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                if not parameter.half().isfinite().all():
                    raise EdgesegError(f"weight {name!r} exceeds FP16's 65504", "smaller weights", "export without --half-weights")
                parameter.copy_(parameter.half().float())


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose float32 initialisers of two or more dimensions are FP16 with a Cast to float behind each."""
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    graph, casts, renamed = stored.graph, [], {}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name))
            renamed[name] = f"{name}.float"
            casts.append(helper.make_node("Cast", [name], [renamed[name]], f"{name}.cast", to=TensorProto.FLOAT))
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return stored


def _shapes(shape: tuple[int, ...], dynamic: bool) -> list[tuple[int, ...]]:
    """The shapes at which parity is checked; a dynamic graph also at one it was not traced with, odd and of another aspect."""
    n, c, height, width = shape
    return [shape, (n + 1, c, height // 2 + 33, width // 2 + 47)] if dynamic else [shape]


@torch.inference_mode()
def _case(network: nn.Module, name: str, shape: tuple[int, ...], seed: int, outputs: Sequence[str] = ()) -> Case:
    """An input and what the network makes of it: its only output or, where ``outputs`` names them, all by name."""
    generator = torch.Generator().manual_seed(seed)
    x: Tensor = torch.randn(shape, generator=generator)
    result = network(x)
    if outputs:
        return Case({name: x.numpy()}, dict(zip(outputs, (item.numpy() for item in result), strict=True)))
    return Case({name: x.numpy()}, result.numpy())
