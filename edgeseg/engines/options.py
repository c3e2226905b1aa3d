"""What may be asked of a build beyond backend and precision, and what of it is part of the engine's key."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import BackendError

Shape = tuple[int, ...]

# Where a build looks things up and how long it may take change nothing in what it makes.
_NOT_IN_KEY = frozenset({"timing_cache", "timeout_s"})


@dataclass(frozen=True)
class ShapeRange:
    """An optimisation profile: shapes (N, C, H, W) of the network's input from ``min`` to ``max``, fastest at ``opt``."""

    min: Shape
    opt: Shape
    max: Shape

    @classmethod
    def parse(cls, text: str) -> ShapeRange:
        """``1x3x240x320,1x3x360x480,1x3x720x960`` (min, opt, max), or one shape for all three.

        Raises:
            BackendError: not of that form, or min > opt > max in some dimension.
        """
        parts = text.split(",")
        if len(parts) not in (1, 3) or not all(re.fullmatch(r"[1-9]\d{0,6}(x[1-9]\d{0,6})+", part) for part in parts):
            raise BackendError(f"--shapes {text!r}", "MIN,OPT,MAX such as 1x3x240x320,1x3x360x480,1x3x720x960", "write it so")
        shapes = [tuple(int(size) for size in part.split("x")) for part in parts]
        low, best, high = shapes * 3 if len(shapes) == 1 else shapes
        ordered = len(low) == len(best) == len(high) and all(a <= b <= c for a, b, c in zip(low, best, high, strict=True))
        if not ordered:
            raise BackendError(f"--shapes {text!r}: not ordered", "min <= opt <= max in every dimension", "order the three shapes")
        return cls(low, best, high)


@dataclass(frozen=True)
class BuildOptions:
    """Settings that some backends take; each says which in its ``OPTIONS``.

    Attributes:
        shapes: optimisation profiles of the network's input; none: the one shape of the manifest.
        workspace_mb: most device memory that one layer's tactic may use, in MiB.
        timing_cache: file of measured tactics; none: ``.timing-<backend>.cache`` beside the engines.
        builder_level: 0 (builds fastest) to 5 (runs fastest).
        dla_core: run on this deep learning accelerator of a Jetson.
        allow_gpu_fallback: layers that the accelerator cannot run go to the GPU instead of ending the build.
        hardware_compatible: the engine also runs on other GPUs of Ampere and later.
        version_compatible: the engine also runs with later minor versions of the library.
        refit: weights can be replaced in the built engine.
        cuda_graph: ONNX Runtime replays one captured CUDA graph (TensorRT's own sessions always do).
        targets: GPUs to build for, such as sm86; none: the backend's own default.
        timeout_s: end the build after so long.
    """

    shapes: tuple[ShapeRange, ...] = ()
    workspace_mb: int | None = None
    timing_cache: str | None = None
    builder_level: int | None = None
    dla_core: int | None = None
    allow_gpu_fallback: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False
    refit: bool = False
    cuda_graph: bool = False
    targets: tuple[str, ...] = ()
    timeout_s: float | None = None

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON values."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        return {item.name: values[item.name] for item in dataclasses.fields(self) if getattr(self, item.name) != item.default}

    def fields(self) -> dict[str, Any]:
        """What of it an engine depends on, for the key; options that were not given add nothing."""
        return {f"option.{name}": value for name, value in self.given().items() if name not in _NOT_IN_KEY}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BuildOptions:
        """The inverse of ``given`` after a way through JSON."""
        plain = dict(values)
        if "shapes" in plain:
            plain["shapes"] = tuple(ShapeRange(*(tuple(item[key]) for key in ("min", "opt", "max"))) for item in plain["shapes"])
        if "targets" in plain:
            plain["targets"] = tuple(plain["targets"])
        return cls(**plain)


def check_options(backend: str, taken: Collection[str], options: BuildOptions) -> None:
    """Refuse options that a backend would silently ignore, and values out of range.

    Raises:
        BackendError: names the option.
    """
    for name, value in options.given().items():
        flag = "--" + {"targets": "target", "timeout_s": "timeout", "dla_core": "dla"}.get(name, name).replace("_", "-")
        if name not in taken:
            raise BackendError(f"{backend} has no option {flag}", fix=f"leave {flag} out, or another --backend")
        low, high = {"workspace_mb": (1, 1 << 20), "builder_level": (0, 5), "dla_core": (0, 7)}.get(name, (None, None))
        if low is not None and high is not None and not low <= value <= high:
            raise BackendError(f"{flag} {value}", f"{low} to {high}", "choose a value in that range")
    if options.allow_gpu_fallback and options.dla_core is None:
        raise BackendError("--allow-gpu-fallback without --dla", "--dla CORE with it", "add --dla 0, or leave it out")


def differ_in_options_alone(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an engine of the key fields ``found`` was built with options and is otherwise the ``wanted`` one without any."""
    return {name: value for name, value in found.items() if not name.startswith("option.")} == wanted
