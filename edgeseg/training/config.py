"""Everything that decides a training run; kept beside the checkpoint, so that resuming another run is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgeseg.errors import EdgesegError


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        arch, options: registry name and keyword arguments of the network.
        data, split, val_split: data set URI and the splits to learn from and to choose on.
        size: (width, height) of the network's input on the device.
        mean, std: normalisation of the R, G, B channels, in units of 0..1.
        crop: (height, width) of training crops, or None for the input size.
        scale: range of the random zoom.
        colour: strength of the colour changes.
        resize: "stretch" or "letterbox", see ``edgeseg.manifest.InputSpec``.
        elastic: deviation of elastic deformation, px.
        copy_paste: share of frames that get objects of another frame.
        batch: frames a step and process.
        optimiser: "adamw" or "sgd" (momentum 0.9).
        lr, weight_decay: peak learning rate; decay of weights other than biases and normalisation.
        power: exponent of the polynomial decay.
        warmup: epochs of linear warm-up before the polynomial decay.
        clip: largest norm of the gradient.
        loss: see ``edgeseg.training.losses.make_loss``.
        balance: power of median-frequency balancing; 0 is unweighted, 1 as published.
        aux_weight: weight of each deep-supervision output.
        ema: decay of the weights' moving average; 0 switches it off.
        workers: processes that prepare frames.
        eval_every: epochs between validations.

    Raises:
        EdgesegError: a value that no run can use.
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
    resize: str = "stretch"
    elastic: float = 0.0
    copy_paste: float = 0.0
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
        if self.resize not in ("stretch", "letterbox"):
            raise EdgesegError(f"resize {self.resize!r}", "stretch or letterbox")
        for key, (low, high) in _RANGES.items():
            _check_range(key, getattr(self, key), low, high)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON has them: tuples are lists."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], origin: str = "settings") -> TrainConfig:
        """The settings in ``values``, whose types are checked strictly.

        Raises:
            EdgesegError: an unknown key, a wrong type or value; names ``origin`` and the JSON path.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise EdgesegError(f"{origin} $.{unknown[0]}: unknown key", f"keys of {', '.join(known)}")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in first["loc"])
            raise EdgesegError(f"{origin} $.{path}: {first['msg']}, got {str(first.get('input'))[:80]!r}") from error


_MOST = 1e9
_TINY = 1e-12
_RANGES: dict[str, tuple[float, float]] = {
    "size": (1, 16384), "std": (_TINY, _MOST), "mean": (-_MOST, _MOST), "crop": (1, 16384), "scale": (1e-3, 1e3), "colour": (0, 10),
    "elastic": (0, 1000), "copy_paste": (0, 1),
    "epochs": (1, _MOST), "batch": (1, _MOST), "lr": (_TINY, _MOST), "weight_decay": (0, _MOST), "power": (0, 100),
    "warmup": (0, _MOST), "clip": (_TINY, _MOST), "balance": (-10, 10), "aux_weight": (0, _MOST), "ema": (0, 0.9999999),
    "seed": (0, 2**31 - 1), "workers": (0, 1024), "eval_every": (1, _MOST),
}  # fmt: skip


def _check_range(key: str, value: Any, low: float, high: float) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if number is not None and not (math.isfinite(number) and low <= number <= high):
            raise EdgesegError(f"{key} {number}", f"a number in {low:g}..{high:g}")
