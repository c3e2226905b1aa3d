"""Segmenter (Strudel et al., ICCV 2021): a Vision Transformer whose patch tokens are decoded by a linear map or by masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.vit import LAYOUTS, Block, VisionTransformer, init_transformer


class LinearDecoder(nn.Module):
    """Class scores of each patch token (section 3.2, "Linear"): (N, L, dim) to (N, L, classes)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, num_classes)
        init_transformer(self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x)
        return y


class MaskDecoder(nn.Module):
    """Patch tokens and class embeddings through a transformer together; their scalar products are the scores (equation 4).

    Both are L2-normalised, and the scores of a patch are layer-normalised over the classes, as in the authors' code.
    """

    def __init__(self, dim: int, num_classes: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        if num_classes < 2:
            raise EdgesegError("the mask decoder for one class", "two or more, whose scores are normalised against each other")
        self.num_classes = num_classes
        self.proj_dec = nn.Linear(dim, dim)
        self.cls_emb = nn.Parameter(torch.empty(1, num_classes, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout) for _ in range(layers)))
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Linear(dim, dim, bias=False)
        self.proj_classes = nn.Linear(dim, dim, bias=False)
        self.mask_norm = nn.LayerNorm(num_classes)
        for part in (self.proj_dec, self.blocks, self.decoder_norm, self.mask_norm):
            init_transformer(part)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)
        for layer in (self.proj_patch, self.proj_classes):
            nn.init.normal_(layer.weight, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        classes = self.cls_emb.expand(x.shape[0], -1, -1)
        x = self.decoder_norm(self.blocks(torch.cat([self.proj_dec(x), classes], dim=1)))
        patches = F.normalize(self.proj_patch(x[:, : -self.num_classes]), dim=-1)
        classes = F.normalize(self.proj_classes(x[:, -self.num_classes :]), dim=-1)
        y: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return y


class Segmenter(nn.Module):
    """Logits at the stride of the patch.

    A size that the patch does not divide is padded at the right and the bottom with zeros, as in the authors' code. They
    upsample, then crop; here the coarse logits are resampled so that they span the picture alone, which is the same map
    without logits at full resolution.

    Args:
        num_classes: number of logit channels.
        backbone: vit_tiny, vit_small, vit_base or vit_large.
        dim, depth, heads: width, blocks and heads in place of the backbone's.
        patch: edge of a patch in pixels, 16 or 8 in the paper; smaller is finer and slower (table 1).
        decoder: "linear" or "mask".
        decoder_layers: blocks of the mask decoder, M in the paper.
        image_size: (height, width) or one edge in pixels that the position embeddings are stored for: that of the weights.
        dropout: in the backbone.
        decoder_dropout: in the mask decoder's blocks.
        drop_path: largest rate of stochastic depth in the backbone.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_small",
        dim: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        patch: int = 16,
        decoder: str = "mask",
        decoder_layers: int = 2,
        image_size: int | tuple[int, int] = 384,
        dropout: float = 0.0,
        decoder_dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if backbone not in LAYOUTS:
            raise EdgesegError(f"backbone {backbone!r}", f"one of {', '.join(LAYOUTS)}")
        if decoder not in ("linear", "mask"):
            raise EdgesegError(f"decoder {decoder!r}", "linear or mask")
        if not 0 <= drop_path < 1:
            raise EdgesegError(f"drop_path {drop_path}", "0 up to 1, which would drop all")
        layout = LAYOUTS[backbone]
        width, blocks, number = dim or layout[0], depth or layout[1], heads or layout[2]
        size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.patch = patch
        self.backbone = VisionTransformer(width, blocks, number, patch, size, dropout, drop_path)
        self.decoder: nn.Module
        if decoder == "linear":
            self.decoder = LinearDecoder(width, num_classes)
        else:
            self.decoder = MaskDecoder(width, num_classes, decoder_layers, number, decoder_dropout)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        bottom, right = -height % self.patch, -width % self.patch
        tokens, grid = self.backbone(F.pad(x, (0, right, 0, bottom)))
        scores = self.decoder(tokens)
        logits = scores.transpose(1, 2).reshape(scores.shape[0], -1, *grid)
        return _span(logits, height, width, self.patch)


def _span(logits: Tensor, height: int, width: int, patch: int) -> Tensor:
    """Logits whose cells cover height x width pixels, of (N, C, h, w) that cover h * patch x w * patch."""
    rows, columns = logits.shape[-2:]
    known = all(isinstance(size, int) for size in (height, width, rows, columns))
    if known and (rows * patch, columns * patch) == (height, width):
        return logits
    # grid_sample's -1 and 1 are the outer edges of the padded picture, the origin of both grids is its top left corner.
    y = _centres(rows, logits.device) * (height / (rows * patch)) - 1
    x = _centres(columns, logits.device) * (width / (columns * patch)) - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    return F.grid_sample(
        logits.float(), grid[None].expand(logits.shape[0], -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )


def _centres(count: int, device: torch.device) -> Tensor:
    """Centres of ``count`` equal cells of the interval 0..2."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (2 / count)
