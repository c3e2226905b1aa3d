"""The model folder in the making: claimed by one run at a time, and touched only when everything else has been checked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import nn

from edgeseg import __version__, models
from edgeseg.data import Dataset, open_dataset
from edgeseg.errors import EdgesegError
from edgeseg.files import atomic_path, check_writable, write_json
from edgeseg.folder import GRAPH, MANIFEST, RANGES, WEIGHTS, ModelFolder, describe_file
from edgeseg.manifest import CHANNELS, Architecture, InputSpec, Manifest, Modality, OutputSpec, Provenance, Task, load_manifest
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.config import TrainConfig

RUN = "training"


def checkpoint_path(directory: Path) -> Path:
    """Where the run in the model folder ``directory`` keeps its state."""
    return directory / RUN / "checkpoint.pt"


def open_run(config: TrainConfig, directory: Path, resume: bool, command: str) -> tuple[Manifest, dict[str, Any] | None]:
    """The manifest of the run and, on resume, the state to go on from; writes nothing.

    Raises:
        EdgesegError: the directory cannot be written or holds another run or model, there is nothing to resume, or the
            settings are others.
    """
    _check_place(directory)
    if resume:
        state = load_checkpoint(checkpoint_path(directory))
        check_same(config, state["config"])
        return load_manifest(directory / MANIFEST), state
    if checkpoint_path(directory).exists():
        raise EdgesegError(f"{directory}: already holds a training run", "a new directory", "give --resume, or another -o")
    # A start that was killed before its first checkpoint leaves a manifest, which nothing needs any more.
    if (directory / MANIFEST).exists() and not (directory / RUN).is_dir():
        raise EdgesegError(f"{directory}: already holds a model", "a new directory", "choose another -o")
    return _new_manifest(config, directory.resolve().name, command), None


def _check_place(directory: Path) -> None:
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise EdgesegError(f"{directory}: {place} cannot be written", "a directory that can be written", "choose another -o")


def check_same(config: TrainConfig, saved: dict[str, Any]) -> None:
    """Refuse to go on with a run under other settings; only the number of workers may change."""
    values = {key: value for key, value in config.to_json().items() if key != "workers"}
    changed = [key for key, value in values.items() if saved.get(key) != value]
    if changed:
        raise EdgesegError(
            f"--resume with other settings: {', '.join(changed)}", "the settings of the run", "start a new run with another -o"
        )


@contextlib.contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Hold the folder's run directory; it is released when the process dies.

    Raises:
        EdgesegError: it cannot be written, or another process trains there.
    """
    check_writable(directory / RUN)
    with (directory / RUN / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgesegError(f"{directory}: another process trains there", "one run a directory", "choose another -o") from error
        yield


def start_folder(config: TrainConfig, manifest: Manifest, directory: Path) -> None:
    """Write the manifest and the settings of a new run."""
    manifest.save(directory / MANIFEST)
    write_json(directory / RUN / "config.json", config.to_json())


def save_weights(network: nn.Module, folder: ModelFolder) -> None:
    """Write the network's weights as model.safetensors; what was made from older weights leaves the manifest."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(folder.weights) as temporary:
        save_file(state, temporary)
    kept = {name: info for name, info in folder.manifest.files.items() if name not in (GRAPH, RANGES)}
    folder.update(files={**kept, WEIGHTS: describe_file(folder.weights)}, parity=None, measurements=[])


def _new_manifest(config: TrainConfig, name: str, command: str) -> Manifest:
    dataset = open_dataset(config.data, config.split)
    width, height = config.size
    return Manifest(
        name=_model_name(name),
        architecture=Architecture(name=config.arch, options=options_for(config.arch, config.options, dataset)),
        classes=list(dataset.classes),
        spaces=list(dataset.spaces),
        keypoints=dataset.keypoints,
        input=_input(config, dataset.modality, width, height),
        provenance=Provenance(
            created_by=f"edgeseg {__version__}",
            command=command,
            seed=config.seed,
            training_data=f"{dataset.uri or dataset.name} {config.split} ({len(dataset)} frames)",
            licence=dataset.licence,
        ),
    )


def describe_network(manifest: Manifest, network: nn.Module) -> Manifest:
    """The manifest with what the network is for and what it gives."""
    output = OutputSpec(kind=models.kind_of(network))
    return manifest.model_copy(update={"task": models.task_of(network), "output": output})


def check_truth(dataset: Dataset, task: Task) -> None:
    """Refuse data without the truth that the task needs.

    Raises:
        EdgesegError: names what the data set has.
    """
    if task not in dataset.tasks:
        have = ", ".join(dataset.tasks)
        raise EdgesegError(f"{dataset.name} has the truth for {have}", f"for {task}", "another --data, or another ARCH")


def options_for(arch: str, options: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The network's options with those that the data decide, where its constructor has them and they are not given."""
    things = [index for index, item in enumerate(dataset.classes) if item.thing]
    decided: dict[str, Any] = {
        "in_channels": CHANNELS[dataset.modality][0],
        "things": things,
        "num_keypoints": len(dataset.keypoints.names) if dataset.keypoints else None,
        "extra_classes": [len(space.classes) for space in dataset.spaces] or None,
    }
    known = models.accepts(arch)
    return {key: value for key, value in decided.items() if key in known and value is not None} | options


_PLANE_MEAN, _PLANE_STD = 0.5, 0.25


def _input(config: TrainConfig, modality: Modality, width: int, height: int) -> InputSpec:
    """The input of a modality: depth and HHA planes, which have no statistics of their own, are centred."""
    channels = CHANNELS[modality][0]
    colours = () if modality == "hha" else (config.mean, config.std)
    mean, std = (
        (*values, *[fill] * (channels - len(values)))
        for values, fill in zip(colours or ((), ()), (_PLANE_MEAN, _PLANE_STD), strict=True)
    )
    order: Literal["rgb", "bgr"] = "bgr" if modality == "hha" else "rgb"
    resize: Any = config.resize
    return InputSpec(
        width=width, height=height, channels=channels, colour_order=order, mean=mean, std=std, modality=modality, resize=resize
    )


def _model_name(directory: str) -> str:
    """A directory's name as the manifest allows it: letters, digits, dots, dashes and underscores."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in directory)
    return plain.lstrip("._-") or "model"
