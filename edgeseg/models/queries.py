"""What networks of queries share: positions, attention, the steps of a transformer layer, and the prediction of masks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError

TASKS = ("semantic", "instance", "panoptic")
_BLOCKED = -1e4  # as a logit: its softmax is 0, and FP16 can hold it


def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """(1, height * width, dim): sines and cosines of y, then of x, both scaled to 0..2 pi (Carion et al., ECCV 2020)."""
    quarter = torch.arange(dim // 4, device=device, dtype=torch.float32)
    frequency = 10000.0 ** (-4 * quarter / dim)
    y, x = ((torch.arange(size, device=device, dtype=torch.float32) + 1) * (2 * math.pi / size) for size in (height, width))
    rows, columns = (_waves(at[:, None] * frequency) for at in (y, x))
    plane = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1)
    return plane.reshape(1, height * width, dim)


def _waves(angle: Tensor) -> Tensor:
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def to_tokens(x: Tensor) -> Tensor:
    """(N, C, h, w) to (N, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention; ``blocked`` (N, Q, L) is true where a query must not look, and never so in a whole row."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        depth = query.shape[-1] // self.heads
        q, k, v = self._split(self.query(query) * depth**-0.5), self._split(self.key(key)), self._split(self.value(value))
        scores = q @ k.transpose(-2, -1)
        if blocked is not None:
            scores = torch.where(blocked[:, None], torch.full_like(scores[:1, :1, :1, :1], _BLOCKED), scores)
        mixed = self.dropout(scores.softmax(-1)) @ v
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class Attend(nn.Module):
    """Attention, shortcut and layer norm; positions are added to queries and keys only."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, at: Tensor, memory_at: Tensor, blocked: Tensor | None = None) -> Tensor:
        y: Tensor = self.norm(x + self.dropout(self.attention(x + at, memory + memory_at, memory, blocked)))
        return y


class FeedForward(nn.Module):
    """Two linear layers with ReLU, shortcut and layer norm."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x + self.dropout(self.second(self.dropout(F.relu(self.first(x))))))
        return y


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward step on tokens (N, L, dim) at positions ``at``."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.itself = Attend(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout)

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        y: Tensor = self.feed_forward(self.itself(x, x, at, at))
        return y


class DecoderLayer(nn.Module):
    """Queries look at each other and at the picture.

    Args:
        picture_first: the picture before each other, as in Mask2Former (figure 2); else the order of DETR.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, picture_first: bool) -> None:
        super().__init__()
        self.picture_first = picture_first
        self.itself, self.picture = Attend(dim, heads, dropout), Attend(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout)

    def forward(self, x: Tensor, memory: Tensor, at: Tensor, memory_at: Tensor, blocked: Tensor | None = None) -> Tensor:
        if self.picture_first:
            x = self.picture(x, memory, at, memory_at, blocked)
            x = self.itself(x, x, at, at)
        else:
            x = self.itself(x, x, at, at)
            x = self.picture(x, memory, at, memory_at, blocked)
        y: Tensor = self.feed_forward(x)
        return y


class QueryHead(nn.Module):
    """Class logits (N, Q, C + 1) and mask embeddings (N, Q, mask_dim) of queries (N, Q, dim), which are normalised first."""

    def __init__(self, dim: int, mask_dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.classes = nn.Linear(dim, num_classes + 1)
        self.embedding = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, mask_dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        return self.classes(x), self.embedding(x)


def draw_masks(embedding: Tensor, features: Tensor) -> Tensor:
    """Mask logits (N, Q, h, w): scalar products of embeddings (N, Q, D) and pixels (N, D, h, w)."""
    logits = embedding @ features.flatten(2)
    return logits.reshape(logits.shape[0], logits.shape[1], features.shape[2], features.shape[3])


def init_attention(network: nn.Module) -> None:
    """Xavier initialisation of linear layers, as in DETR; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def check_query_options(task: str, things: list[int] | None, dim: int, heads: int, num_classes: int) -> None:
    """Refuse what no network of queries can be made from.

    Raises:
        EdgesegError: names the option.
    """
    if task not in TASKS:
        raise EdgesegError(f"task {task!r}", f"one of {', '.join(TASKS)}")
    if task == "panoptic" and things is None:
        raise EdgesegError("task 'panoptic' without things", "the indices of the thing classes", "give things, a list of classes")
    if things and not all(0 <= index < num_classes for index in things):
        raise EdgesegError(f"things {things} of {num_classes} classes", f"indices 0..{num_classes - 1}")
    if dim < 4 or dim % 4 or heads < 1 or dim % heads:
        raise EdgesegError(f"dim {dim} with {heads} heads", "a multiple of 4 and of the heads")
