"""One door to the decoders: from what a network gives to what a model's task promises, at the frame's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.errors import BackendError
from edgeseg.manifest import Manifest
from edgeseg.postprocess.decode import LabelDecoder
from edgeseg.postprocess.label_map import label_map
from edgeseg.postprocess.placing import visible
from edgeseg.scene import Instances, Panoptic, Placement, Prediction

Labels = NDArray[np.uint8]


class Decoder(Protocol):
    """Turns a network's outputs into a prediction; ``frame`` (H, W, 3) uint8 BGR is needed by a dense CRF only."""

    def __call__(
        self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: NDArray[np.uint8] | None = None
    ) -> Prediction: ...


def make_decoder(manifest: Manifest, threads: int = 1) -> Decoder:
    """The decoder that the manifest's output and task ask for."""
    kind = manifest.output.kind
    decoder: Any
    if kind == "queries":
        from edgeseg.postprocess.queries import QueryDecoder

        decoder = QueryDecoder(manifest, threads)
    elif kind == "panoptic":
        from edgeseg.postprocess.panoptic import PanopticDecoder

        decoder = PanopticDecoder(manifest, threads)
    elif kind == "detections":
        from edgeseg.postprocess.instances import InstanceDecoder

        decoder = InstanceDecoder(manifest, threads)
    else:
        return ScoreDecoder(manifest, threads)
    return _WithoutFrame(decoder)


class _WithoutFrame:
    """A decoder that looks at the outputs alone."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __call__(
        self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: NDArray[np.uint8] | None = None
    ) -> Prediction:
        prediction: Prediction = self._decoder(dict(outputs), placement)
        return prediction


class ScoreDecoder:
    """Scores of pixels: labels, one label map a label space, and a dense CRF where the manifest has one."""

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        self._name, self._threads = manifest.output.name, threads
        self._plain = LabelDecoder(manifest.output, len(manifest.classes), threads)
        self._spaces = [len(manifest.classes), *(len(space.classes) for space in manifest.spaces)]
        self._crf: Any = None
        if manifest.crf is not None:
            from edgeseg.postprocess.dense_crf import DenseCrf

            self._crf = DenseCrf(manifest.crf, threads, manifest.output)

    def __call__(
        self, outputs: Mapping[str, NDArray[Any]], placement: Placement, frame: NDArray[np.uint8] | None = None
    ) -> Labels | list[Labels]:
        """Labels at ``placement.frame``; a list of them, the classes' first, where there are further label spaces.

        Raises:
            BackendError: the array does not fit the manifest, or a dense CRF was given no frame.
        """
        array = np.ascontiguousarray(visible(outputs[self._name], placement))
        if len(self._spaces) > 1:
            return [self._argmax(part, placement.frame) for part in self._split(array)]
        if self._crf is not None:
            if frame is None:
                raise BackendError("a dense CRF without the frame", "the frame beside the scores", "use Predictor")
            labels: Labels = self._crf(np.ascontiguousarray(frame[..., :3]), array[0].astype(np.float32, copy=False))
            return labels
        return self._plain(array, placement.frame)

    def _split(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        if array.ndim != 4 or array.shape[1] != sum(self._spaces):
            expected = f"(1, {' + '.join(str(count) for count in self._spaces)}, h, w)"
            raise BackendError(f"output {self._name!r}: {array.shape}", expected, "correct $.classes or $.spaces of model.json")
        return np.split(array[0], np.cumsum(self._spaces)[:-1])

    def _argmax(self, scores: NDArray[Any], size: tuple[int, int]) -> Labels:
        return native.upsample_argmax(scores.astype(np.float32, copy=False), size, threads=self._threads)


def class_map(prediction: Prediction, size: tuple[int, int]) -> Labels:
    """(H, W) = ``size`` uint8 classes of any prediction, 255 where there is none: what viewers of labels show."""
    if isinstance(prediction, Instances | Panoptic):
        return label_map(prediction, size)
    return prediction[0] if isinstance(prediction, list) else prediction
