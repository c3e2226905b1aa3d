"""Depth frames: from a camera's own encoding to metres, and from metres to the planes that networks read.

Depth is (H, W) float32 in metres along the camera's axis, 0 where it is unknown. Planes are uint8, 0 where it is unknown:
    depth: ``1 + 254 * z / FAR_M``, rounded; 255 at ``FAR_M`` and beyond.
    HHA: horizontal disparity, height, angle; see ``edgeseg.native.hha``. Windows of normals grow with the picture's width.

Encodings of depth files (16 bit; 0 and 65535 are unknown in all):
    "mm": millimetres (Kinect, RealSense), or another ``unit``.
    "tum": 5000 a metre (TUM RGB-D).
    "sun": millimetres, their bits rotated left by three (SUN RGB-D).
    "nyu": raw Kinect disparity of NYU Depth v2, low byte first in a PGM; metres are 351.3 / (1092.5 - raw) as in its toolbox;
        2047 and all that lies beyond 10 m or behind the camera is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError, PictureError
from edgeseg.manifest import Modality
from edgeseg.native import hha

FAR_M = 10.0
Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0)."""
Vector = tuple[float, float, float]
Encoding = Literal["mm", "tum", "sun", "nyu"]
_UNITS: dict[str, float] = {"mm": 1e-3, "tum": 1 / 5000, "sun": 1e-3}
_SATURATED = 65535
_NYU_FAR_M = 10.0


def pack(
    image: NDArray[np.uint8], depth: NDArray[np.float32], intrinsics: Intrinsics, modality: Modality, gravity: Vector | None = None
) -> NDArray[np.uint8]:
    """A frame of the modality's channels: (H, W, 3) "rgb" or "hha", (H, W, 4) "rgbd", (H, W, 6) "rgb-hha"; BGR comes first.

    Args:
        image: (H, W, 3) uint8 BGR.
        depth: (H, W) float32 m, 0 unknown; registered to the image.
        gravity: downwards in camera axes (x right, y down, z forward); estimated from the depth when None.

    Raises:
        DataError: shapes or types do not fit.
    """
    _check(image, depth)
    if modality == "rgb":
        return image
    if modality == "rgbd":
        return np.dstack([image, depth_plane(depth)])
    if modality not in ("hha", "rgb-hha"):
        raise DataError(f"modality {modality!r}", "rgb, rgbd, hha or rgb-hha")
    planes, _ = hha.encode(depth, intrinsics, gravity, radius=max(2, round(hha.RADIUS * depth.shape[1] / 640)))
    return planes if modality == "hha" else np.concatenate([image, planes], axis=2)


def depth_plane(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) uint8 of depth in metres; see the module."""
    known = np.isfinite(depth) & (depth > 0)
    scaled = 1.5 + np.minimum(np.where(known, depth, 0), FAR_M) * np.float32(254 / FAR_M)
    return np.where(known, scaled, 0).astype(np.uint8)


def plane_depth(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Metres (H, W) float32 of a depth plane, within ``FAR_M`` / 508; 0 where unknown."""
    return np.where(plane > 0, (plane.astype(np.float32) - 1) * np.float32(FAR_M / 254), 0).astype(np.float32)


def decode_depth(raw: NDArray[np.uint16], encoding: Encoding = "mm", unit: float | None = None) -> NDArray[np.float32]:
    """Metres (H, W) float32, 0 unknown, of a depth file's values (H, W) uint16 as OpenCV reads them.

    Args:
        unit: metres of one count, for "mm" only (RealSense SR305: 0.000125).

    Raises:
        DataError: not (H, W) uint16, or an unknown encoding.
    """
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise DataError(f"depth: {raw.shape} {raw.dtype}", "(H, W) uint16", "read it with cv2.IMREAD_UNCHANGED")
    if encoding == "nyu":
        return _decode_nyu(raw)
    if encoding not in _UNITS:
        raise DataError(f"depth encoding {encoding!r}", "mm, tum, sun or nyu")
    if encoding == "sun":
        raw = np.asarray((raw >> 3) | (raw << 13), np.uint16)
    scale = unit if unit is not None and encoding == "mm" else _UNITS[encoding]
    return np.where(raw == _SATURATED, 0, raw.astype(np.float32) * np.float32(scale)).astype(np.float32)


def _decode_nyu(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    gap = np.float32(1092.5) - raw.byteswap().astype(np.float32)
    metres = np.float32(351.3) / np.where(gap > 0, gap, 1)
    return np.where((gap > 0) & (metres <= _NYU_FAR_M) & (raw > 0), metres, 0).astype(np.float32)


def read_depth(path: Path, encoding: Encoding = "mm", unit: float | None = None) -> NDArray[np.float32]:
    """A depth file in metres; see ``decode_depth``.

    Raises:
        DataError: missing, not a picture, or not of one 16-bit channel.
    """
    try:
        data = np.fromfile(path, np.uint8)
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise PictureError(f"{path}: cannot read the depth ({error})", "a 16-bit PNG or PGM") from error
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
        found = "no picture" if raw is None else f"{raw.shape} {raw.dtype}"
        raise PictureError(f"{path}: {found}", "a 16-bit PNG or PGM of one channel")
    return decode_depth(np.asarray(raw, np.uint16), encoding, unit)


def _check(image: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"image: {image.shape} {image.dtype}", "(H, W, 3) uint8 in BGR order")
    if depth.shape != image.shape[:2] or depth.dtype != np.float32:
        raise DataError(f"depth: {depth.shape} {depth.dtype}", f"{image.shape[:2]} float32 metres", "decode it, and register it")
