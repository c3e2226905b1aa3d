"""Mask2Former (Cheng et al., CVPR 2022): queries that look only where they last drew their mask (figure 2)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.losses_queries import PointComparison, Prediction, QueryLoss
from edgeseg.models.pixel_decoders import DeformableDecoder, FPNDecoder
from edgeseg.models.queries import (
    DecoderLayer,
    QueryHead,
    check_query_options,
    draw_masks,
    init_attention,
    sine_positions,
    to_tokens,
)
from edgeseg.models.segment_truth import segment_truth
from edgeseg.models.targets import Target


class Mask2Former(nn.Module):
    """Class logits (N, Q, C + 1) and mask logits (N, Q, h, w) at stride 4; in training the losses.

    Args:
        num_classes: classes without "no object".
        task: semantic, instance or panoptic: what the queries learn to find; the network is the same.
        things: indices of the thing classes of a panoptic task.
        backbone, backbone_options: a name of ``edgeseg.models.backbones.dilated``, and of its constructor.
        queries: 100 in the paper.
        dim, mask_dim: width of a query and of the maps, and of the pixel embeddings.
        layers: of the transformer decoder, 9 in the paper: three rounds over strides 32, 16 and 8.
        heads, hidden, dropout: of its layers; the paper has no dropout.
        pixel_decoder: "deformable", or "fpn" for runtimes that sample slowly (the paper's ablations compare them).
        encoder_layers, encoder_points, encoder_hidden: of the deformable pixel decoder.
        points: K, at which masks are compared in training.
    """

    task = "semantic"
    kind = "queries"
    own_loss = True

    def __init__(
        self,
        num_classes: int,
        task: str = "semantic",
        things: list[int] | None = None,
        backbone: str = "resnet50",
        backbone_options: dict[str, Any] | None = None,
        queries: int = 100,
        dim: int = 256,
        mask_dim: int = 256,
        layers: int = 9,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.0,
        pixel_decoder: str = "deformable",
        encoder_layers: int = 6,
        encoder_points: int = 4,
        encoder_hidden: int = 1024,
        points: int = 12544,
    ) -> None:
        super().__init__()
        check_query_options(task, things, dim, heads, num_classes)
        if pixel_decoder not in ("deformable", "fpn"):
            raise EdgesegError(f"pixel_decoder {pixel_decoder!r}", "deformable or fpn")
        if points < 1:
            raise EdgesegError(f"{points} points", "1 or more")
        self.task, self.things, self.dim = task, frozenset(things or ()), dim
        self.backbone = make_backbone(backbone, 32, backbone_options, strides=(32,))
        channels = self.backbone.channels
        self.pixels: nn.Module
        if pixel_decoder == "fpn":
            self.pixels = FPNDecoder(channels, dim, mask_dim)
        else:
            self.pixels = DeformableDecoder(channels, dim, mask_dim, encoder_layers, heads, encoder_points, encoder_hidden, dropout)
        self.query = nn.Parameter(torch.empty(1, queries, dim))
        self.query_at = nn.Parameter(torch.empty(1, queries, dim))
        self.level = nn.Parameter(torch.empty(3, dim))
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden, dropout, picture_first=True) for _ in range(layers))
        self.head = QueryHead(dim, mask_dim, num_classes)
        init_attention(self.layers)
        init_attention(self.head)
        for parameter in (self.query, self.query_at, self.level):
            nn.init.normal_(parameter)
        # Section 4.1: cross entropy and dice loss of masks weigh 5, the class loss 2.
        self.loss = QueryLoss(PointComparison(points), class_weight=2.0, mask_weight=5.0, dice_weight=5.0, class_cost=2.0)

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        pixels = self.pixels(self.backbone(x))
        if targets is None:
            return self._decode(pixels.scales, pixels.embedding, every=False)[-1]
        predictions = self._decode(pixels.scales, pixels.embedding, every=True)
        return self.loss(predictions, [segment_truth(target, self.task, self.things) for target in targets])

    def _decode(self, scales: list[Tensor], embedding: Tensor, every: bool) -> list[Prediction]:
        """The prediction of the last layer, or that of the initial queries and of each layer."""
        memories = [to_tokens(item) + self.level[i] for i, item in enumerate(scales)]
        places = [sine_positions(item.shape[2], item.shape[3], self.dim, item.device) for item in scales]
        # Bilinear resizing is linear, so a mask drawn from the resized embedding is the mask resized: at a fraction of its cost.
        coarse = [F.interpolate(embedding.detach(), size=item.shape[-2:], mode="bilinear", align_corners=False) for item in scales]
        query_at = self.query_at.expand(embedding.shape[0], -1, -1)
        x = self.query.expand(embedding.shape[0], -1, -1)
        classes, masks = self.head(x)
        found = [(classes, draw_masks(masks, embedding))] if every or not len(self.layers) else []
        for index, layer in enumerate(self.layers):
            level = index % len(scales)
            blocked = outside(masks.detach() @ coarse[level].flatten(2))
            x = layer(x, memories[level], query_at, places[level], blocked)
            classes, masks = self.head(x)
            if every or index == len(self.layers) - 1:
                found.append((classes, draw_masks(masks, embedding)))
        return found


def outside(logits: Tensor) -> Tensor:
    """Where masked attention must not look: (N, Q, L) bool, true where a mask is below 0.5 (equation 3).

    Nowhere for a mask that is empty: its query looks at the whole picture, and no row of the softmax is without a value.
    """
    inside = (logits >= 0).to(logits.dtype)
    return inside < inside.amax(-1, keepdim=True)
