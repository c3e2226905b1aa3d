"""Everything that decides a training run; kept beside the checkpoint, so that resuming another run is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from edgeseg.errors import EdgesegError


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        arch, options: registry name and keyword arguments of the network.
        data, split, val_split: data set URI and the splits to learn from and to choose on.
        size: (width, height) of the network's input on the device.
        crop: (height, width) of training crops, or None for the input size.
        scale: range of the random zoom.
        colour: strength of the colour changes.
        batch: frames a step and process.
        optimiser: "adamw" or "sgd" (momentum 0.9).
        warmup: epochs of linear warm-up before the polynomial decay.
        loss: see ``edgeseg.training.losses.make_loss``.
        balance: power of median-frequency balancing; 0 is unweighted, 1 as published.
        aux_weight: weight of each deep-supervision output.
        ema: decay of the weights' moving average; 0 switches it off.
        workers: processes that prepare frames.
        eval_every: epochs between validations.
    """

    arch: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    val_split: str = "val"
    size: tuple[int, int] = (480, 360)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    colour: float = 0.4
    epochs: int = 100
    batch: int = 8
    optimiser: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    power: float = 0.9
    warmup: float = 2.0
    clip: float = 5.0
    loss: str = "ce"
    balance: float = 0.5
    aux_weight: float = 0.4
    ema: float = 0.998
    bf16: bool = True
    seed: int = 0
    workers: int = 1
    eval_every: int = 1

    def __post_init__(self) -> None:
        if self.optimiser not in ("adamw", "sgd"):
            raise EdgesegError(f"optimiser {self.optimiser!r}", "adamw or sgd")
        if min(self.epochs, self.batch, self.eval_every) < 1 or self.lr <= 0:
            raise EdgesegError(
                f"epochs {self.epochs}, batch {self.batch}, eval_every {self.eval_every}, lr {self.lr}", "positive numbers"
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)
