"""From a camera frame to a label map: preprocess, infer, decode, in memory that is allocated once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeseg.engines.session import Session
from edgeseg.errors import BackendError
from edgeseg.postprocess import LabelDecoder
from edgeseg.preprocess import Preprocessor

if TYPE_CHECKING:
    from edgeseg.manifest import Manifest


_SCORES = ("logits", "softmax", "sigmoid", "labels")


class Segmenter:
    """The fused path frame -> label map over any session, and its three stages for pipelines that overlap them.

    ``preprocess``, ``infer`` and ``decode`` give arrays that the caller owns unless ``out`` is passed, so that stages
    of different frames may run at the same time in different threads (one thread per stage: the session itself
    serves one caller). Calling the segmenter reuses buffers of its own.

    Args:
        session: a loaded engine.
        manifest: the manifest of the model that the engine was built from.
        threads: threads of preprocessing and decoding.
    """

    def __init__(self, session: Session, manifest: Manifest, threads: int = 1) -> None:
        check_serves(manifest)
        self.session, self.manifest = session, manifest
        self.preprocessor = Preprocessor(manifest.input, threads=threads)
        self.decoder = LabelDecoder(manifest.output, len(manifest.classes), threads=threads)
        self._input, self._output = manifest.input.name, manifest.output.name
        require_names(session, manifest)
        self._spec = next(spec for spec in session.outputs if spec.name == self._output)
        self._batch = manifest.input.batch
        self._full = np.zeros(manifest.input.shape, np.float32) if self._batch > 1 else None
        self._tensor = self.allocate_input()
        self._logits = self._spec.empty() if self._spec.shape is not None else None
        # Some sessions take a frame to its labels without leaving the device, where kernels for that are built.
        on_device = getattr(session, "frame_pipeline", None)
        self._on_device = on_device(manifest) if on_device else None

    def allocate_input(self) -> np.ndarray:
        """A buffer for ``preprocess(out=)``: (1, C, H, W) float32."""
        return self.preprocessor.allocate()

    def allocate_output(self) -> np.ndarray | None:
        """A buffer for ``infer(out=)``; None when the network's output shape is known only at run time."""
        return self._spec.empty() if self._spec.shape is not None else None

    def preprocess(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (1, C, h, w) float32, as the manifest's input says."""
        return self.preprocessor(frame, out)

    def infer(self, tensor: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(1, C, h, w) float32 -> the network's output of one frame, (1, K, h', w') float32 or (1, h', w') labels."""
        if self._full is not None:
            self._full[:1] = tensor
            tensor = self._full
        out = self.allocate_output() if out is None else out
        if out is None:
            out = self.session.run({self._input: tensor})[self._output]
        else:
            self.session.run_into({self._input: tensor}, {self._output: out})
        return out[:1] if self._batch > 1 else out

    def decode(self, output: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
        """The network's output -> (H, W) uint8 labels at ``size`` (H, W)."""
        return self.decoder(output, size, out)

    def __call__(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (H, W) uint8 labels at the frame's size."""
        if self._on_device is not None:
            labels: np.ndarray = self._on_device(frame, out)
            return labels
        tensor = self.preprocess(frame, self._tensor)
        return self.decode(self.infer(tensor, self._logits), (frame.shape[0], frame.shape[1]), out)

    def close(self) -> None:
        if self._on_device is not None:
            self._on_device.close()
        self.session.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serves(manifest: Manifest) -> bool:
    """Whether the fused path gives what the model's task promises: one label map of a stretched frame, nothing behind it."""
    return not _beyond(manifest)


def check_serves(manifest: Manifest) -> None:
    """Refuse a model that the fused path does not serve.

    Raises:
        BackendError: says what it gives beyond one label map.
    """
    if beyond := _beyond(manifest):
        what = f"{manifest.name}: task {manifest.task}, {beyond}"
        raise BackendError(what, "a model that gives one label map", "`edgeseg predict` and `edgeseg eval` run it")


def _beyond(manifest: Manifest) -> str:
    if manifest.output.kind not in _SCORES:
        return f"output {manifest.output.kind}"
    reasons = {
        "further label spaces": bool(manifest.spaces),
        "a dense CRF": manifest.crf is not None,
        "tiles": manifest.tile is not None,
        "a letterboxed input": manifest.input.resize != "stretch",
    }
    return ", ".join(reason for reason, given in reasons.items() if given)


def require_names(session: Session, manifest: Manifest) -> None:
    """Refuse a manifest that names tensors which the engine has not.

    Raises:
        BackendError: names the first.
    """
    wanted = [("input", manifest.input.name, session.input_names)]
    wanted += [("output", name, session.output_names) for name in manifest.output_names]
    for kind, name, names in wanted:
        if name not in names:
            raise BackendError(f"$.{kind}.name is {name!r}", f"one of the network's {kind}s {names}", "correct model.json")
