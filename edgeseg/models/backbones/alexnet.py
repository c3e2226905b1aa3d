"""AlexNet in one column (Krizhevsky, arXiv 1404.5997), as torchvision has it; parameter names as there (``features.N``)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.vgg import drop_after
from edgeseg.models.blocks import init_weights

CHANNELS = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """Five convolutions; there is no local response normalisation, as in torchvision.

    Args:
        width: factor of all channels; 1 is the paper's.

    Attributes:
        pool_channels: channels of ``pools``.
        centres: pixel of the first cell's centre, of ``pools``.
    """

    HEAD: tuple[str, ...] = ("classifier.",)
    FULLY_CONNECTED = ("classifier.1", "classifier.4")
    WINDOW = 6  # cells that the first fully connected layer sees
    centres = (3.0, 3.0, 3.0)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 1 / 64 <= width <= 8:
            raise EdgesegError(f"width {width}", "a factor of the channels in 1/64..8")
        one, two, three, four, five = (round(channels * width) for channels in CHANNELS)
        self.pool_channels = [one, two, five]
        self.features = nn.Sequential(
            nn.Conv2d(3, one, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(one, two, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(three, four, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(four, five, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        init_weights(self)

    def pools(self, x: Tensor) -> list[Tensor]:
        """The three pools of (N, 3, H, W), at strides 8, 16 and 32; sizes are rounded up.

        Pools are padded, and the picture at its right and bottom, so that the cells reach the borders; inside the picture
        the function is that of ``features``.
        """
        found = []
        x = F.pad(x, (0, 6, 0, 6))
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                x = F.max_pool2d(x, 3, 2, padding=1)
                found.append(x)
            else:
                x = layer(x)
        return found

    def cut(self, level: int) -> None:
        """Drop what comes after ``pools``' element ``level``, 0..2."""
        places = [index for index, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.HEAD = (*self.HEAD, *drop_after(self.features, places[level] + 1))
