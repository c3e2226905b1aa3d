"""From a frame to what a model's task promises, over any session: labels, instances, segments, several label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeseg.engines.segmenter import require_names
from edgeseg.engines.session import Session
from edgeseg.postprocess.decoder import make_decoder
from edgeseg.preprocess import Preprocessor
from edgeseg.scene import Placement, Prediction

if TYPE_CHECKING:
    from edgeseg.manifest import Manifest

Outputs = dict[str, np.ndarray]


class Predictor:
    """Preprocess, infer, decode: ``Segmenter``'s stages for every kind of output.

    Args:
        session: a loaded engine.
        manifest: the manifest of the model that the engine was built from.
        threads: threads of preprocessing and decoding.
    """

    def __init__(self, session: Session, manifest: Manifest, threads: int = 1) -> None:
        self.session, self.manifest = session, manifest
        self.preprocessor = Preprocessor(manifest.input, threads=threads)
        self.decoder = make_decoder(manifest, threads)
        require_names(session, manifest)
        self._specs = {spec.name: spec for spec in session.outputs if spec.name in manifest.output_names}
        self._full = np.zeros(manifest.input.shape, np.float32) if manifest.input.batch > 1 else None
        self._tensor, self._buffers = self.allocate_input(), self.allocate_output()

    def allocate_input(self) -> np.ndarray:
        """A buffer for ``preprocess(out=)``: (1, C, H, W) float32."""
        return self.preprocessor.allocate()

    def allocate_output(self) -> Outputs | None:
        """Buffers for ``infer(out=)``; None when a shape is known only at run time."""
        if any(spec.shape is None for spec in self._specs.values()):
            return None
        return {name: spec.empty() for name, spec in self._specs.items()}

    def preprocess(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(H, W, C) uint8 -> (1, C, h, w) float32, as the manifest's input says."""
        return self.preprocessor(frame, out)

    def placement(self, frame: np.ndarray) -> Placement:
        """Where the frame lies in the tensor that ``preprocess`` makes of it."""
        return self.preprocessor.placement((frame.shape[0], frame.shape[1]))

    def infer(self, tensor: np.ndarray, out: Outputs | None = None) -> Outputs:
        """(1, C, h, w) float32 -> the network's outputs of one frame by name."""
        if self._full is not None:
            self._full[:1] = tensor
            tensor = self._full
        out = self.allocate_output() if out is None else out
        feeds = {self.manifest.input.name: tensor}
        if out is None:
            found = self.session.run(feeds)
            out = {name: found[name] for name in self._specs}
        else:
            self.session.run_into(feeds, out)
        return {name: array[:1] for name, array in out.items()} if self._full is not None else out

    def decode(self, outputs: Outputs, placement: Placement, frame: np.ndarray | None = None) -> Prediction:
        """The network's outputs -> the prediction at the frame's size; a dense CRF needs the frame itself too."""
        return self.decoder(outputs, placement, frame)

    def __call__(self, frame: np.ndarray) -> Prediction:
        """(H, W, C) uint8, BGR first -> labels, label maps, instances or segments at the frame's size."""
        outputs = self.infer(self.preprocess(frame, self._tensor), self._buffers)
        return self.decode(outputs, self.placement(frame), frame)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
