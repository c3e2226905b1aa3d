"""MaskFormer (Cheng, Schwing, Kirillov, NeurIPS 2021): segmentation as a set of classes with a mask each (figure 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import init_weights
from edgeseg.models.losses_queries import DenseComparison, Prediction, QueryLoss
from edgeseg.models.pixel_decoders import FPNDecoder
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


class MaskFormer(nn.Module):
    """Class logits (N, Q, C + 1) and mask logits (N, Q, h, w) at stride 4; in training the losses.

    Args:
        num_classes: classes without "no object".
        task: semantic, instance or panoptic: what the queries learn to find; the network is the same.
        things: indices of the thing classes of a panoptic task.
        backbone, backbone_options: a name of ``edgeseg.models.backbones.dilated``, and of its constructor.
        queries: N in the paper.
        dim, mask_dim: width of a query and of the pyramid, and of the pixel embeddings.
        layers, heads, hidden, dropout: of the transformer decoder.
        encoder_layers: of a transformer encoder on the last features: 0 in the paper's semantic networks, 6 in its panoptic.
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
        layers: int = 6,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        encoder_layers: int = 0,
    ) -> None:
        super().__init__()
        check_query_options(task, things, dim, heads, num_classes)
        if layers < 1:
            raise EdgesegError(f"{layers} decoder layers", "1 or more")
        self.task, self.things, self.dim = task, frozenset(things or ()), dim
        self.backbone = make_backbone(backbone, 32, backbone_options, strides=(32,))
        channels = self.backbone.channels
        self.pixels = FPNDecoder(channels, dim, mask_dim, encoder_layers, heads, hidden, dropout)
        self.project = nn.Conv2d(channels[3], dim, 1) if not encoder_layers else None
        self.query_at = nn.Parameter(torch.empty(1, queries, dim))
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden, dropout, picture_first=False) for _ in range(layers))
        self.head = QueryHead(dim, mask_dim, num_classes)
        if self.project is not None:
            init_weights(self.project)
        init_attention(self.layers)
        init_attention(self.head)
        nn.init.normal_(self.query_at)
        # Section 4.1: focal, dice and class loss weigh 20, 1 and 1.
        self.loss = QueryLoss(DenseComparison(), class_weight=1.0, mask_weight=20.0, dice_weight=1.0, class_cost=1.0)

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        features = self.backbone(x)
        pixels = self.pixels(features)
        memory = pixels.encoded if self.project is None else self.project(features[3])
        if targets is None:
            return self._decode(memory, pixels.embedding, every=False)[-1]
        predictions = self._decode(memory, pixels.embedding, every=True)
        return self.loss(predictions, [segment_truth(target, self.task, self.things) for target in targets])

    def _decode(self, memory: Tensor, embedding: Tensor, every: bool) -> list[Prediction]:
        """The prediction of the last layer, or of each."""
        at = sine_positions(memory.shape[2], memory.shape[3], self.dim, memory.device)
        tokens = to_tokens(memory)
        query_at = self.query_at.expand(tokens.shape[0], -1, -1)
        x = torch.zeros_like(query_at)
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x, tokens, query_at, at)
            if every or index == len(self.layers) - 1:
                classes, masks = self.head(x)
                found.append((classes, draw_masks(masks, embedding)))
        return found
