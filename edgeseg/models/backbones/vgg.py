"""VGG16 (Simonyan and Zisserman, ICLR 2015), configuration D; parameter names as in torchvision (``features.N``)."""

from __future__ import annotations

from torch import nn

from edgeseg.models.blocks import init_weights

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CHANNELS = [stage[-1] for stage in STAGES]


class VGG16(nn.Module):
    """The thirteen convolutions as one ``features`` list; ``stage(i)`` are the layers before pooling i (0..4).

    Args:
        batch_norm: torchvision's vgg16_bn (SegNet uses it) rather than vgg16.
    """

    HEAD = ("classifier.",)  # what a downloaded classifier has beyond this

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._bounds: list[tuple[int, int]] = []
        cin = 3
        for widths in STAGES:
            start = len(layers)
            for width in widths:
                layers.append(nn.Conv2d(cin, width, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                cin = width
            self._bounds.append((start, len(layers)))
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        init_weights(self)

    def stage(self, index: int) -> nn.Sequential:
        """The convolutions of stage ``index``, without its pooling."""
        start, stop = self._bounds[index]
        return nn.Sequential(*list(self.features)[start:stop])
