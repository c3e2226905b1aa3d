"""Metrics of the PyTorch network during training; the figure that counts is measured on the engine by ``edgeseg eval``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from edgeseg.data.base import Dataset
from edgeseg.errors import DataError
from edgeseg.manifest import Manifest
from edgeseg.metrics.semantic import ConfusionMatrix
from edgeseg.preprocess import Preprocessor
from edgeseg.training.log import prediction_sheet

_PICTURES = 3


@torch.inference_mode()
def validate(
    network: nn.Module, dataset: Dataset, manifest: Manifest, device: torch.device, bf16: bool
) -> tuple[ConfusionMatrix, NDArray[np.uint8]]:
    """The confusion matrix over ``dataset`` and a sheet of predictions on frames spread over it.

    Raises:
        DataError: no pixel of the data set is labelled.
    """
    matrix = ConfusionMatrix(len(manifest.classes), manifest.ignore_label)
    wanted = set(np.linspace(0, len(dataset) - 1, _PICTURES).astype(int).tolist())
    kept: list[tuple[NDArray[np.uint8], ...]] = []
    network.eval()
    for index in range(len(dataset)):
        sample = dataset[index]
        labels = predict(network, sample.image, manifest, device, bf16)
        matrix.update(labels, sample.labels)
        if index in wanted:
            kept.append((sample.image, sample.labels, labels))
    if np.isnan(matrix.mean_iou):
        raise DataError(f"{dataset.name} {dataset.split}: no labelled pixel", "frames with labels to choose the best weights on")
    images, truths, guesses = (list(items) for items in zip(*kept, strict=True))
    return matrix, prediction_sheet(images, truths, guesses, manifest.classes)


def predict(
    network: nn.Module, image: NDArray[np.uint8], manifest: Manifest, device: torch.device, bf16: bool
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR to (H, W) uint8 labels."""
    size = (image.shape[0], image.shape[1])
    x = torch.from_numpy(Preprocessor(manifest.input)(image)).to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = network(x)
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    labels: NDArray[np.uint8] = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return labels
