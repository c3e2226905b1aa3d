"""NVIDIA's Polygraphy: the files that its ``run`` verb compares with, and our engines as its runners.

Its own classes write the files, so that whatever version is installed reads them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from polygraphy.backend.base import BaseLoader, BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import RunResults
from polygraphy.json import to_json

from edgeseg.engines import Session, load_engine
from edgeseg.errors import BackendError
from edgeseg.files import atomic_directory, check_place, write_bytes
from edgeseg.folder import ModelFolder, open_folder
from edgeseg.measure.compare import Outputs

INPUTS, OUTPUTS = "inputs.json", "outputs.json"
_OURS = re.compile(r"inputs\.json|outputs(-[\w-]+)?\.json")


# --- files for `polygraphy run` --------------------------------------------------------------------------------------


def check_directory(directory: Path, force: bool) -> None:
    """Refuse, before any work, a directory that holds files; with ``force`` only one that holds others than ours.

    Raises:
        BackendError: says what is in the way.
    """
    found = sorted(item.name for item in directory.iterdir()) if directory.is_dir() else []
    if directory.exists() and not directory.is_dir():
        raise BackendError(f"--polygraphy {directory} is a file", "a directory", "choose another directory")
    if foreign := [name for name in found if not _OURS.fullmatch(name)]:
        raise BackendError(f"--polygraphy {directory} holds {foreign[0]}", "a directory of its own", "choose another directory")
    if found and not force:
        raise BackendError(f"--polygraphy {directory} holds {found[0]}", "an empty directory", "choose another, or give --force")
    check_place(directory)


def write_files(directory: Path, feeds: Sequence[dict[str, np.ndarray]], outputs: Outputs) -> dict[str, Path]:
    """Write ``inputs.json`` and the outputs of each engine, as a set that replaces the whole directory in one step.

    The first engine's outputs are in ``outputs.json``, those of another in ``outputs-<backend>-<precision>.json``: Polygraphy
    compares each run with the next, so engines of different precisions in one file would be compared with each other.

    Args:
        feeds: what the network was fed, one dict of named arrays for each frame.
        outputs: what ``run_engines`` gave for the same frames.

    Returns:
        The path of the inputs under "inputs", and of each engine's outputs under its name ("ort/fp32").
    """
    names = {name: OUTPUTS if not index else f"outputs-{name.replace('/', '-')}.json" for index, name in enumerate(outputs)}
    target = directory.resolve()
    with atomic_directory(target) as temporary:
        write_bytes(temporary / INPUTS, to_json(list(feeds)).encode())
        for name, results in outputs.items():
            write_bytes(temporary / names[name], _run_results(name, results).to_json().encode())
    return {"inputs": directory / INPUTS, **{name: directory / file for name, file in names.items()}}


def _run_results(name: str, results: Iterable[dict[str, np.ndarray]]) -> RunResults:
    run = RunResults()
    run.add(list(results), runner_name=f"edgeseg {name}")
    return run


# --- engines as runners ----------------------------------------------------------------------------------------------


class SessionFromFolder(BaseLoader):
    """Opens the engine of a model folder, building it first if it must be; for ``EdgesegRunner``.

    Args:
        folder: a model folder, its path, or the name of a shipped model.
        backend: a name in ``edgeseg.engines.REGISTRY``, or "auto".
        precision: fp32, bf16, fp16, int8, or "auto".
        threads: inference threads; all cores by default.
    """

    def __init__(
        self, folder: ModelFolder | Path | str, backend: str = "auto", precision: str = "auto", threads: int | None = None
    ) -> None:
        self.folder = folder if isinstance(folder, ModelFolder) else open_folder(str(folder))
        self.backend, self.precision, self.threads = backend, precision, threads

    def call_impl(self) -> Session:
        """The open session."""
        return load_engine(self.folder, self.backend, self.precision, self.threads)


class EdgesegRunner(BaseRunner):
    """Any engine of ours as a Polygraphy runner, for ``Comparator.run``.

    Args:
        session: an open session, which stays open, or a callable that opens one, such as ``SessionFromFolder``.
        name: shown in Polygraphy's reports; by default made of backend and precision where they are known.
    """

    def __init__(self, session: Session | Callable[[], Session], name: str | None = None) -> None:
        kind = [str(getattr(session, key)) for key in ("backend", "precision") if hasattr(session, key)]
        super().__init__(name=name, prefix="-".join(["edgeseg", *kind]))
        self._source = session

    def activate_impl(self) -> None:
        self._session: Session = self._source() if callable(self._source) else self._source

    def get_input_metadata_impl(self) -> TensorMetadata:
        metadata = TensorMetadata()
        for spec in self._session.inputs:
            metadata.add(spec.name, np.dtype(spec.dtype), spec.shape)
        return metadata

    def infer_impl(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, in arrays that the caller owns; CPU tensors of PyTorch are taken too."""
        feeds = {name: np.ascontiguousarray(array) for name, array in feed_dict.items()}
        started = time.perf_counter()
        outputs = self._session.run(feeds)
        self.inference_time = time.perf_counter() - started
        return outputs

    def deactivate_impl(self) -> None:
        if callable(self._source):
            self._session.close()
        del self._session
