"""Weights from files: safetensors, PyTorch checkpoints without pickled code, and the initialisers of an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.folder import GRAPH, WEIGHTS, ModelFolder, open_folder, shipped_models
from edgeseg.models.pickled import load_pickled
from edgeseg.onnx_guard import load_onnx

State = dict[str, Tensor]


def read_state(path: Path, trust: bool = False) -> State:
    """The tensors of a .safetensors, .pth or .pt file by name.

    Args:
        trust: run whatever code a pickle asks for. Only for files you made yourself.

    Raises:
        EdgesegError: missing, truncated, not tensors, a pickle that needs code, or a NaN or infinite weight.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else load_pickled(path, trust)
    except FileNotFoundError as error:
        raise EdgesegError(f"{path}: no such file", "a .safetensors or .pth file") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise EdgesegError(f"{path}: unreadable ({str(error).splitlines()[0][:100]})", "a whole .safetensors file") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    items = loaded.items() if isinstance(loaded, dict) else ()
    state = {str(name).removeprefix("module."): tensor for name, tensor in items if isinstance(tensor, Tensor)}
    if not state:
        raise EdgesegError(f"{path}: no tensors in it", "a state dict")
    for name, tensor in state.items():
        _check_tensor(name, tensor, path)
    return state


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise EdgesegError(f"{path}: weight {name!r} is sparse, quantised or without data", "plain dense tensors")
    # A pickle may show one number as a tensor of any size, which costs memory only when it is used.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise EdgesegError(f"{path}: weight {name!r} of shape {tuple(tensor.shape)} has less data than that", "whole tensors")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise EdgesegError(f"{path}: weight {name!r} has NaN or infinite values", "finite weights", "use an earlier checkpoint")


def load_weights(network: nn.Module, source: str | Path, trust: bool = False) -> None:
    """Load a whole network's or, where the names fit it, only its backbone's weights (torchvision's names).

    The backbone's classification head (its ``HEAD``) is left out; everything else must be there and nothing may be over.
    A network with a method ``convert_state(state) -> state`` is asked first.

    Args:
        source: a .safetensors, .pth or .pt file, a model folder, or the name of a shipped model.

    Raises:
        EdgesegError: names or shapes do not fit; the differences are listed.
    """
    path = Path(source)
    # A network may take the weights of another kind, such as a classifier's or those of a coarser one.
    convert: Callable[[State], State] = getattr(network, "convert_state", lambda state: state)
    if path.is_dir() or str(source) in shipped_models():
        _load_trained(network, convert(load_state(open_folder(source))), path)
        return
    state = convert(read_state(path, trust))
    target, own = network, network.state_dict()
    if not any(name in own for name in state) and isinstance(backbone := getattr(network, "backbone", None), nn.Module):
        target = getattr(backbone, "body", backbone)  # a detector's is a pyramid around it
        own, head = target.state_dict(), getattr(target, "HEAD", ())
        state = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    _check_fit(own, state, path)
    target.load_state_dict(state)


def _check_fit(own: State, state: State, path: Path) -> None:
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    lists = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    told = "; ".join(
        f"{len(items)} {what} ({', '.join(items[:4])}{', ...' if len(items) > 4 else ''})" for what, items in lists.items() if items
    )
    if told:
        raise EdgesegError(
            f"{path}: {told}", "the weights of this architecture with these options", "check ARCH and its --option values"
        )


def load_state(folder: ModelFolder) -> State:
    """The network's weights as float32: of model.safetensors, or else of model.onnx, whose initialisers keep their names."""
    if WEIGHTS in folder.manifest.files:
        return read_state(folder.require(WEIGHTS, "train again"))
    graph = load_onnx(folder.require(GRAPH, "export again")).graph
    return {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()).float() for item in graph.initializer}


def load_network(folder: ModelFolder) -> nn.Module:
    """The folder's network with its weights, in evaluation mode.

    Raises:
        EdgesegError: an adopted ONNX model, which has no PyTorch network, or weights that do not fit.
    """
    from edgeseg import models

    manifest = folder.manifest
    if manifest.architecture is None:
        raise EdgesegError(
            f"{folder.path}: adopted from ONNX, no PyTorch network", "a model trained here", "use the backends ort or openvino"
        )
    network = models.create(manifest.architecture.name, num_classes=len(manifest.classes), **manifest.architecture.options)
    _load_trained(network, load_state(folder), folder.path)
    return network.eval()


def _load_trained(network: nn.Module, state: State, path: Path) -> None:
    """Load what a model folder holds: counters and deep-supervision heads do not travel with an exported graph."""
    own = network.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in own}
    absent = {name: value for name, value in own.items() if name not in state and _training_only(name)}
    _check_fit(own, {**state, **absent}, path)
    network.load_state_dict({**state, **absent})


def _training_only(name: str) -> bool:
    return name.endswith("num_batches_tracked") or name.split(".")[0] == "auxiliary"
