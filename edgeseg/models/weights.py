"""Weights from files: safetensors, PyTorch checkpoints without pickled code, and the initialisers of an exported graph."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.folder import GRAPH, WEIGHTS, ModelFolder

State = dict[str, Tensor]


def read_state(path: Path, trust: bool = False) -> State:
    """The tensors of a .safetensors, .pth or .pt file by name.

    Args:
        trust: run whatever code a pickle asks for. Only for files you made yourself.

    Raises:
        EdgesegError: missing, truncated, not tensors, a pickle that needs code, or a NaN or infinite weight.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=not trust)
    except FileNotFoundError as error:
        raise EdgesegError(f"{path}: no such file", "a .safetensors or .pth file") from error
    except pickle.UnpicklingError as error:
        raise EdgesegError(
            f"{path}: the pickle wants to run code",
            "plain tensors",
            "convert it to safetensors, or give --trust if you made it yourself",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise EdgesegError(
            f"{path}: unreadable ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})",
            "a whole .safetensors or .pth file",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    state = (
        {name.removeprefix("module."): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
        if isinstance(loaded, dict)
        else {}
    )
    if not state:
        raise EdgesegError(f"{path}: no tensors in it", "a state dict")
    _check_finite(state, path)
    return state


def _check_finite(state: State, path: Path) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise EdgesegError(f"{path}: weight {name!r} has NaN or infinite values", "finite weights", "use an earlier checkpoint")


def load_weights(network: nn.Module, path: Path, trust: bool = False) -> None:
    """Load a whole network's or, where the names fit it, only its backbone's weights (torchvision's names).

    A classification head that the network does not have is left out; everything the backbone needs must be there.

    Raises:
        EdgesegError: names or shapes do not fit; the differences are listed.
    """
    state = read_state(path, trust)
    target, own = network, network.state_dict()
    if not any(name in own for name in state) and isinstance(backbone := getattr(network, "backbone", None), nn.Module):
        target, own = backbone, backbone.state_dict()
        state = {name: tensor for name, tensor in state.items() if name in own}
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
        return load_file(folder.require(WEIGHTS, "train again"))
    graph = onnx.load(folder.require(GRAPH, "export again")).graph
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
    own, state = network.state_dict(), load_state(folder)
    state = {name: tensor for name, tensor in state.items() if name in own}
    # Counters and deep-supervision heads do not travel with an exported graph.
    absent = {name: value for name, value in own.items() if name not in state and _training_only(name)}
    _check_fit(own, {**state, **absent}, folder.path)
    network.load_state_dict({**state, **absent})
    return network.eval()


def _training_only(name: str) -> bool:
    return name.endswith("num_batches_tracked") or name.split(".")[0] == "auxiliary"
