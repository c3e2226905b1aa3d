"""Metrics of the PyTorch network during training; the figure that counts is measured on the engine by ``edgeseg eval``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg.data.base import Dataset
from edgeseg.errors import DataError
from edgeseg.manifest import Manifest
from edgeseg.metrics.score import Score
from edgeseg.postprocess.decoder import make_decoder
from edgeseg.preprocess import Preprocessor
from edgeseg.scene import Prediction
from edgeseg.training.sheet import prediction_sheet

_PICTURES = 3


@torch.inference_mode()
def validate(
    network: nn.Module, dataset: Dataset, manifest: Manifest, device: torch.device, bf16: bool
) -> tuple[Score, NDArray[np.uint8]]:
    """The figures over ``dataset`` and a sheet of predictions on frames spread over it.

    Raises:
        DataError: nothing in the data set is labelled.
    """
    score, predictor = Score(manifest), NetworkPredictor(network, manifest, device, bf16)
    wanted = set(np.linspace(0, len(dataset) - 1, _PICTURES).astype(int).tolist())
    kept = []
    network.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        prediction = predictor(sample.image)
        score.update(prediction, sample)
        if index in wanted:
            kept.append((sample, prediction))
    if np.isnan(score.summary()[score.headline]):
        raise DataError(f"{dataset.name} {dataset.split}: no labelled pixel", "frames with labels to choose the best weights on")
    return score, prediction_sheet(kept, manifest)


class NetworkPredictor:
    """A PyTorch network behind the preprocessing and the decoding that its engines will have."""

    def __init__(self, network: nn.Module, manifest: Manifest, device: torch.device, bf16: bool) -> None:
        self._network, self._manifest, self._device, self._bf16 = network, manifest, device, bf16
        self._preprocess, self._decode = Preprocessor(manifest.input), make_decoder(manifest)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        """(H, W, C) uint8 to what the task promises, at the picture's size."""
        x = torch.from_numpy(self._preprocess(image)).to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            result = self._network(x)
        tensors = result if isinstance(result, tuple) else (result,)
        arrays = [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]
        outputs = {name: item.cpu().numpy() for name, item in zip(self._manifest.output_names, arrays, strict=True)}
        return self._decode(outputs, self._preprocess.placement((image.shape[0], image.shape[1])), image)
