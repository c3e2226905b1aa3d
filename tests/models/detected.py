"""What tests of detectors share: small options, two painted pictures with their truth, training on them, and graphs on runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgeseg.engines.lowering import lower_for_openvino
from edgeseg.models.targets import Target
from edgeseg.scene import mask_boxes

SIZE = (64, 96)
SMALL: dict[str, Any] = {
    "backbone": "resnet18", "backbone_width": 16, "fpn_channels": 32, "box_channels": 64, "mask_channels": 32,
    "keypoint_channels": 16, "anchor_sizes": [8, 16, 32, 64, 128], "canonical_size": 56, "pooling_aligned": True,
    "pre_nms": 64, "post_nms": 48, "train_pre_nms": 64, "train_post_nms": 48, "rpn_samples": 64, "roi_samples": 32,
    "candidates": 64, "detections": 8, "nms_rounds": 8,
}  # fmt: skip


def picture(seed: int) -> tuple[Tensor, Target]:
    """(3, H, W) of stuff (class 0 above 1) with a rectangle (class 2) and a disc (class 3), and its truth."""
    height, width = SIZE
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.int64)
    labels[height // 2 :] = 1
    rows, columns = np.mgrid[:height, :width]
    x, y, radius = rng.integers(8, 20), rng.integers(8, 20), rng.integers(12, 16)
    square = (columns >= x) & (columns < x + 26) & (rows >= y) & (rows < y + 34)
    disc = (columns - 70) ** 2 + (rows - 34) ** 2 < radius**2
    masks = np.stack([square, disc]).astype(np.uint8)
    labels[square], labels[disc] = 2, 3
    colours = torch.tensor([[-1.0, -1, 1], [-1, 1, -1], [1, -1, -1], [1, 1, -1]])
    image = colours[torch.from_numpy(labels)].permute(2, 0, 1) + 0.2 * torch.from_numpy(rng.standard_normal((3, *SIZE))).float()
    boxes = torch.from_numpy(mask_boxes(masks))
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    points = torch.stack([torch.cat([point, torch.full((2, 1), 2.0)], 1) for point in (centre, boxes[:, :2] + 2)], 1)
    nothing = torch.zeros(2, dtype=torch.bool)
    return image, Target(boxes, torch.tensor([2, 3]), torch.from_numpy(masks), nothing, torch.from_numpy(labels), points)


def empty(points: int | None = 2) -> Target:
    """The truth of a picture of the first class alone."""
    keypoints = None if points is None else torch.zeros(0, points, 3)
    none = torch.zeros(0, dtype=torch.int64)
    labels = torch.zeros(SIZE, dtype=torch.int64)
    return Target(torch.zeros(0, 4), none, torch.zeros((0, *SIZE), dtype=torch.uint8), none.bool(), labels, keypoints)


def overfit(network: nn.Module, pairs: Sequence[tuple[Tensor, Target]], steps: int, rate: float = 3e-3) -> dict[str, float]:
    """Train on the pictures alone with a rate that falls to 0; the last losses."""
    images, targets = torch.stack([image for image, _ in pairs]), [target for _, target in pairs]
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    network.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
        losses = network(images, targets)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    network.eval()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def run(model: onnx.ModelProto, image: np.ndarray, runtime: str) -> dict[str, np.ndarray]:
    """The outputs of a graph by name in "ort" or "openvino", float32, one thread."""
    names = [output.name for output in model.graph.output]
    if runtime == "ort":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, {"image": image}), strict=True))
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(lower_for_openvino(model).SerializeToString()), "CPU", settings)
    return dict(zip(names, compiled([image]).values(), strict=True))
