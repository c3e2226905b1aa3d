"""VGG16 (Simonyan and Zisserman, ICLR 2015), configuration D; parameter names as in torchvision (``features.N``)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import init_weights

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CHANNELS = [stage[-1] for stage in STAGES]


class VGG16(nn.Module):
    """The thirteen convolutions as one ``features`` list; ``stage(i)`` are the layers before pooling i (0..4).

    Args:
        batch_norm: torchvision's vgg16_bn (SegNet uses it) rather than vgg16.
        width: factor of all channels; 1 is the paper's.

    Attributes:
        channels: of the five stages.
        pool_channels: channels of ``pools``.
        centres: pixel of the first cell's centre, of the pools at strides 8, 16 and 32.
    """

    HEAD: tuple[str, ...] = ("classifier.",)  # what a downloaded classifier has beyond this
    FULLY_CONNECTED = ("classifier.0", "classifier.3")
    WINDOW = 7  # cells that the first fully connected layer sees
    centres = (3.5, 7.5, 15.5)

    def __init__(self, batch_norm: bool = False, width: float = 1.0) -> None:
        super().__init__()
        stages = scaled_stages(width)
        layers: list[nn.Module] = []
        self._bounds: list[tuple[int, int]] = []
        self.channels = [stage[-1] for stage in stages]
        self.pool_channels = self.channels[2:]
        cin = 3
        for widths in stages:
            start = len(layers)
            for cout in widths:
                layers.append(nn.Conv2d(cin, cout, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(cout))
                layers.append(nn.ReLU(inplace=True))
                cin = cout
            self._bounds.append((start, len(layers)))
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        init_weights(self)

    def stage(self, index: int) -> nn.Sequential:
        """The convolutions of stage ``index``, without its pooling."""
        start, stop = self._bounds[index]
        return nn.Sequential(*list(self.features)[start:stop])

    def pools(self, x: Tensor) -> list[Tensor]:
        """Pools 3, 4 and 5 of (N, 3, H, W), at strides 8, 16 and 32; sizes are rounded up."""
        found = []
        for index in range(len(self._bounds)):
            x = F.max_pool2d(self.stage(index)(x), 2, 2, ceil_mode=True)
            found.append(x)
        return found[2:]

    def cut(self, level: int) -> None:
        """Drop what comes after ``pools``' element ``level``, 0..2."""
        self._bounds = self._bounds[: level + 3]
        self.HEAD = (*self.HEAD, *drop_after(self.features, self._bounds[-1][1] + 1))


def drop_after(layers: nn.Sequential, kept: int) -> list[str]:
    """Drop the layers of a ``features`` list from number ``kept`` on; returns the prefixes of their names."""
    dropped = [f"features.{index}." for index in range(kept, len(layers))]
    del layers[kept:]
    return dropped


def scaled_stages(width: float) -> list[list[int]]:
    """``STAGES`` with every width times ``width``.

    Raises:
        EdgesegError: a factor that leaves no channel.
    """
    if not 1 / 64 <= width <= 8:
        raise EdgesegError(f"width {width}", "a factor of the channels in 1/64..8")
    return [[round(channels * width) for channels in stage] for stage in STAGES]
