"""Vision Transformer (Dosovitskiy et al., ICLR 2021); parameter names as in timm, so that its published weights load."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError

# Width, depth, heads (Dosovitskiy et al., table 1; Touvron et al., ICML 2021, table 1; Strudel et al., table 1).
LAYOUTS: dict[str, tuple[int, int, int]] = {
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
}
_EPSILON = 1e-6  # of the published weights' layer norms


class DropPath(nn.Module):
    """Leaves a residual branch out for some items of a batch (stochastic depth, Huang et al., ECCV 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class SelfAttention(nn.Module):
    """Multi-head self-attention on (N, L, dim)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        query, key, value = (
            part.reshape(n, length, self.heads, dim // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = (query * (dim // self.heads) ** -0.5) @ key.transpose(-2, -1)
        mixed = self.dropout(scores.softmax(-1)) @ value
        y: Tensor = self.dropout(self.proj(mixed.transpose(1, 2).reshape(n, length, dim)))
        return y


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))
        return y


class Block(nn.Module):
    """Pre-norm transformer block (equations 2 and 3)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPSILON)
        self.attn = SelfAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=_EPSILON)
        self.mlp = MLP(dim, 4 * dim, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class PatchEmbed(nn.Module):
    """(N, 3, H, W) to (N, dim, H / patch, W / patch): one linear map of each patch."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


class VisionTransformer(nn.Module):
    """Patch tokens (N, h * w, dim) in rows of the grid, and the grid's (h, w).

    Args:
        dim, depth, heads: width of a token, number of blocks, heads of each.
        patch: edge of a patch in pixels; height and width of the input are multiples of it.
        image_size: (height, width) in pixels whose grid the stored position embeddings span. Other sizes take them
            interpolated bilinearly, as Strudel et al. do.
        drop_path: rate of stochastic depth in the last block, rising linearly from 0 in the first.

    Raises:
        EdgesegError: sizes that do not fit together.
    """

    HEAD = ("head.", "head_dist.", "pre_logits.", "fc_norm.")  # what a downloaded classifier has beyond this

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        image_size: tuple[int, int],
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise EdgesegError(f"width {dim} for {heads} heads", "a multiple of the heads")
        if patch < 1 or any(size < patch or size % patch for size in image_size):
            raise EdgesegError(f"image_size {image_size[0]}x{image_size[1]}", f"positive multiples of the patch, {patch}")
        self.dim, self.patch = dim, patch
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dim))
        rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim, eps=_EPSILON)
        self.dropout = nn.Dropout(dropout)
        init_transformer(self)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.patch_embed(x)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self._positions(height, width)
        first = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([first.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm(self.blocks(self.dropout(x)))
        return x[:, 1:], (height, width)

    def _positions(self, height: int, width: int) -> Tensor:
        """The patches' embeddings (1, height * width, dim) at a grid of that size."""
        stored = self.pos_embed[:, 1:]
        known = isinstance(height, int) and isinstance(width, int)  # while a dynamic graph is traced they are symbols
        if known and (height, width) == self.grid:
            return stored
        plane = stored.transpose(1, 2).reshape(1, self.dim, *self.grid)
        plane = F.interpolate(plane, size=(height, width), mode="bilinear", align_corners=False)
        return plane.flatten(2).transpose(1, 2)


def init_transformer(network: nn.Module) -> None:
    """Truncated normal of deviation 0.02 for linear layers, unit layer norms (the initialisation of timm and of the paper)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
