"""The heads of a two-stage detector (He et al., ICCV 2017, figure 4 right, and section 5); parameter names as in torchvision."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _he(module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    assert module.bias is not None
    nn.init.zeros_(module.bias)


class BoxHead(nn.Module):
    """(R, C, s, s) to (R, width) by two fully connected layers."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(cin, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class BoxPredictor(nn.Module):
    """(R, width) to logits (R, 1 + C), the first of background, and deltas (R, 4 (1 + C))."""

    def __init__(self, cin: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(cin, 1 + classes)
        self.bbox_pred = nn.Linear(cin, 4 * (1 + classes))
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class MaskHead(nn.Sequential):
    """Four 3x3 convolutions."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        for index in range(4):
            conv = nn.Conv2d(cin if index == 0 else width, width, 3, padding=1)
            _he(conv)
            self.append(nn.Sequential(conv, nn.ReLU(inplace=True)))


class MaskPredictor(nn.Module):
    """(R, width, 14, 14) to (R, 1 + C, 28, 28); the first channel is background's, which nothing reads."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(width, width, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(width, 1 + classes, 1)
        _he(self.conv5_mask)
        _he(self.mask_fcn_logits)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.mask_fcn_logits(F.relu(self.conv5_mask(x)))
        return logits


class KeypointHead(nn.Sequential):
    """Eight 3x3 convolutions."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        for index in range(8):
            conv = nn.Conv2d(cin if index == 0 else width, width, 3, padding=1)
            _he(conv)
            self.append(conv)
            self.append(nn.ReLU(inplace=True))


class KeypointPredictor(nn.Module):
    """(R, width, 14, 14) to (R, K, 56, 56): a transposed convolution, then bilinear upsampling."""

    def __init__(self, width: int, points: int) -> None:
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(width, points, 4, 2, 1)
        _he(self.kps_score_lowres)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.kps_score_lowres(x), scale_factor=2.0, mode="bilinear", align_corners=False)
