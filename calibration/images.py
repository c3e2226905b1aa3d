"""Calibration batches for the command: pictures, or arrays saved with numpy, from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from calibration.errors import CalibrationError

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp"}
_ARRAYS = {".npy", ".npz"}
_MAX_CORRUPT_SHARE = 0.1


@dataclass
class Folder:
    """Batches read from the pictures or .npy / .npz files of one folder, in the order of their names.

    A picture becomes (pixel * scale - mean) / std, float32, in the layout of the graph's input. A .npy file is one
    batch of a graph with one input, a .npz file one batch of named inputs; both are fed as they are.

    Attributes:
        mean, std: one value or one per channel, in the channels' order.
        size: (height, width) to resize to; None takes the graph's own.
        colour: order of the channels: rgb, bgr or gray.
        corrupt: files that could not be read so far; they are left out.
    """

    model: ModelProto
    directory: Path
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    scale: float = 1.0 / 255.0
    size: tuple[int, int] | None = None
    colour: str = "rgb"
    limit: int | None = None
    corrupt: list[str] = field(default_factory=list)

    def files(self) -> list[Path]:
        """What will be read.

        Raises:
            CalibrationError: the folder is missing, or holds nothing to read.
        """
        if not self.directory.is_dir():
            raise CalibrationError(f"{self.directory}: no such folder", "a folder of pictures or .npy / .npz files")
        suffixes = _PICTURES | _ARRAYS
        found = sorted(path for path in self.directory.iterdir() if path.suffix.lower() in suffixes)
        if not found:
            raise CalibrationError(f"{self.directory}: no images", f"files ending in {' '.join(sorted(suffixes))}")
        return found[: self.limit]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        files = self.files()
        arrays = [path for path in files if path.suffix.lower() in _ARRAYS]
        for path in arrays:
            if (batch := self._guarded(path, self._load_arrays)) is not None:
                yield batch
        pictures = [path for path in files if path.suffix.lower() in _PICTURES]
        if pictures:
            yield from self._picture_batches(pictures)
        if len(self.corrupt) > _MAX_CORRUPT_SHARE * len(files):
            raise CalibrationError(
                f"{self.directory}: {len(self.corrupt)} of {len(files)} files could not be read, {self.corrupt[0]} first",
                f"at most {_MAX_CORRUPT_SHARE:.0%}",
                "remove or replace them",
            )

    def _picture_batches(self, pictures: list[Path]) -> Iterator[dict[str, np.ndarray]]:
        target = _picture_input(self.model, self.size)
        decode = _decoder()
        waiting: list[np.ndarray] = []
        for path in pictures:
            picture = self._guarded(path, lambda p: self._normalise(decode(p, target.size, self.colour), target))
            if picture is not None:
                waiting.append(picture)
            if len(waiting) == target.batch:
                yield {target.name: np.stack(waiting)}
                waiting = []

    def _guarded(self, path: Path, read: Callable[[Path], Any]) -> Any:
        try:
            return read(path)
        except (OSError, ValueError):
            self.corrupt.append(path.name)
            return None

    def _load_arrays(self, path: Path) -> dict[str, np.ndarray]:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix.lower() == ".npz":
            return {name: loaded[name] for name in loaded.files}
        return {self.model.graph.input[0].name: loaded}

    def _normalise(self, picture: np.ndarray, target: _Target) -> np.ndarray:
        if picture.shape[2] != target.channels:
            raise CalibrationError(
                f"pictures of {picture.shape[2]} channels ({self.colour})", f"{target.channels} channels", "set --colour"
            )
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        values = (picture.astype(np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)) if target.channels_first else values


@dataclass(frozen=True)
class _Target:
    name: str
    batch: int
    channels: int
    size: tuple[int, int]
    channels_first: bool


def _picture_input(model: ModelProto, size: tuple[int, int] | None) -> _Target:
    value = model.graph.input[0]
    tensor = value.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]  # 0 where free
    if len(model.graph.input) != 1 or len(shape) != 4 or tensor.elem_type != TensorProto.FLOAT:
        raise CalibrationError(
            "the model does not take one float picture (N, C, H, W) or (N, H, W, C)", "such an input", "give .npz batches"
        )
    first = shape[1] in (1, 3) or shape[3] not in (1, 3)
    height, width = shape[2:] if first else shape[1:3]
    found = size or (height, width)
    if 0 in found:
        raise CalibrationError(f"input {value.name!r} has a free size", "a size to calibrate at", "give --size HEIGHT,WIDTH")
    return _Target(value.name, shape[0] or 1, (shape[1] if first else shape[3]) or 3, (found[0], found[1]), first)


def _decoder() -> Callable[[Path, tuple[int, int], str], np.ndarray]:
    """Reads a picture as (H, W, C) uint8 at a size: OpenCV where it is installed, else Pillow."""
    try:
        import cv2  # noqa: F401

        return _decode_opencv
    except ImportError:
        pass
    try:
        import PIL.Image  # noqa: F401

        return _decode_pillow
    except ImportError:
        raise CalibrationError("pictures need OpenCV or Pillow", "one of them installed", "pip install pillow") from None


def _decode_opencv(path: Path, size: tuple[int, int], colour: str) -> np.ndarray:
    import cv2

    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if colour == "gray" else cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise ValueError(f"{path}: not a picture")
    picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    if colour == "gray":
        return picture[:, :, None]
    return picture[:, :, ::-1] if colour == "rgb" else picture


def _decode_pillow(path: Path, size: tuple[int, int], colour: str) -> np.ndarray:
    import PIL.Image

    with PIL.Image.open(path) as opened:
        picture = opened.convert("L" if colour == "gray" else "RGB").resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    values = np.asarray(picture)
    if colour == "gray":
        return values[:, :, None]
    return values[:, :, ::-1] if colour == "bgr" else values
