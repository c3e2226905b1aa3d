"""RoIAlign as a detector uses it, beside torchvision's calls and, where there is no torchvision, torch's grid_sample."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.ops import launch
from gpu_check_lib.device import Device
from gpu_check_lib.operators.roi_align import sample_grid
from gpu_check_lib.operators.roi_align_oracle import Settings, levels_of
from gpu_check_lib.operators.roi_align_oracle import roi_align as oracle
from gpu_check_lib.timing import Contest, Turn, Workload

IMAGE = (800, 1344)
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
TOLERANCE = 2e-3  # of one FP16 rounding of values that reach 4


def roi_align(bins: int, host: bool, quick: bool = False) -> Workload:
    """Boxes over a pyramid of strides 4 to 32, one image, sampling ratio 2, average, aligned."""
    channels, boxes, image = (256, 1000, IMAGE) if not host else (8, 40, (160, 256))
    shapes = [(1, channels, round(image[0] * scale), round(image[1] * scale)) for scale in SCALES]
    bytes_in = sum(2 * int(np.prod(shape)) for shape in shapes)
    bytes_out = 2 * boxes * channels * bins * bins

    def make(device: Device, sets: int) -> Contest:
        return _contest(device, sets, shapes, make_boxes(boxes, image), bins, bytes_in + bytes_out)

    name = f"RoIAlign {boxes} boxes, {channels} channels, 4 levels, {bins}x{bins}, FP16"
    return Workload(name, ("roi_align",), bytes_in + bytes_out, make, quick)


def make_boxes(count: int, image: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes of 16 to 600 px inside the image, as proposals are: every level gets some."""
    random = np.random.default_rng(1)
    sides = np.minimum(np.exp(random.uniform(np.log(16), np.log(600), (count, 2))), (image[1], image[0]))
    corners = random.random((count, 2)) * ((image[1], image[0]) - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def _contest(
    device: Device, sets: int, shapes: list[tuple[int, int, int, int]], boxes: NDArray[np.float32], bins: int, minimum: int
) -> Contest:
    at, settings = device.torch_device, Settings((bins, bins), 2, False, True, SCALES, 224.0, 2)
    maps = [[torch.randn(shape, device=at).half() for shape in shapes] for _ in range(sets)]
    rois, images = torch.from_numpy(boxes).to(at), torch.zeros(len(boxes), dtype=torch.int64, device=at)
    contestants: dict[str, Turn] = {}
    results: dict[str, Callable[[], Tensor]] = {}
    for name, format in (("ours", "linear"), ("ours hwc8", "hwc8")):
        contestants[name], results[name] = _ours(device, maps, rois, images, settings, format)
    levels, absent = levels_of(boxes, settings, len(shapes)), {}
    rivals = {"torch grid_sample x4": _grid_sample}
    try:
        import_module("torchvision.ops")

        rivals |= {"torchvision roi_align x4": _torchvision, "torchvision MultiScaleRoIAlign": _multi_scale}
    except Exception as error:
        absent = {"torchvision": f"{type(error).__name__}: {error}".splitlines()[0]}
    for name, make in rivals.items():
        contestants[name] = make(maps, rois, levels, settings)

    def check() -> list[str]:
        wanted = oracle(maps[0], boxes, np.zeros(len(boxes), np.int64), settings)
        problems = []
        for name, result in results.items():
            contestants[name](0)
            device.synchronize()
            off = ((result().double() - wanted).abs() / wanted.abs().clamp(min=1)).max().item()
            if not off < TOLERANCE:
                problems.append(f"{name}: off by {off:.3g}")
        return problems

    goals = [("at least 2x torchvision's four calls", "ours", "torchvision roi_align x4", 2.0)]
    return Contest(contestants, minimum, check, goals, absent, frozenset({"torchvision MultiScaleRoIAlign"}))


def _ours(
    device: Device, maps: list[list[Tensor]], rois: Tensor, images: Tensor, settings: Settings, format: str
) -> tuple[Turn, Callable[[], Tensor]]:
    """The turn, and what reads buffer set 0's result as (K, C, oh, ow)."""
    channels, (height, width) = maps[0][0].shape[1], settings.size
    packed = maps if format == "linear" else [[tensor.permute(0, 2, 3, 1).contiguous() for tensor in level] for level in maps]
    shape = (len(rois), channels, height, width)
    stored = shape if format == "linear" else (len(rois), height, width, channels)
    out = [torch.empty(stored, dtype=torch.float16, device=rois.device) for _ in maps]

    def tensor(data: Tensor, logical: tuple[int, ...]) -> launch.Tensor:
        return launch.tensor(data.data_ptr(), "float16", logical, format)

    args = []
    for packed_set, plain, y in zip(packed, maps, out, strict=True):
        levels = [tensor(data, tuple(shaped.shape)) for data, shaped in zip(packed_set, plain, strict=True)]
        args.append(
            launch.RoiAlign(
                (launch.Tensor * launch.MAX_LEVELS)(*levels),
                (ctypes.c_float * launch.MAX_LEVELS)(*settings.scales),
                len(levels),
                *(rois.data_ptr(), images.data_ptr(), launch.TYPES["int64"], tensor(y, shape)),
                *(settings.sampling_ratio, int(settings.maximum), int(settings.aligned)),
                *(settings.canonical_size, settings.canonical_level),
            )
        )

    memory = [packed, out, rois, images]  # the arguments hold addresses alone

    def turn(i: int) -> list[Any]:
        device.run("roi_align", args[i])
        return memory

    return turn, lambda: out[0] if format == "linear" else out[0].permute(0, 3, 1, 2)


def _by_level(rois: Tensor, levels: NDArray[np.int64]) -> list[Tensor]:
    return [rois[torch.from_numpy(np.flatnonzero(levels == level)).to(rois.device)] for level in range(len(SCALES))]


def _torchvision(maps: list[list[Tensor]], rois: Tensor, levels: NDArray[np.int64], settings: Settings) -> Turn:
    """One call a level, boxes sorted by level before the clock starts. torchvision wants boxes of the features' type."""
    theirs = import_module("torchvision.ops").roi_align
    sorted_ = [F.pad(boxes, (1, 0)).half() for boxes in _by_level(rois, levels)]

    def turn(i: int) -> list[Tensor]:
        calls, rest = zip(maps[i], sorted_, settings.scales, strict=True), (settings.sampling_ratio, settings.aligned)
        return [theirs(level, boxes, settings.size, scale, *rest) for level, boxes, scale in calls]

    return turn


def _multi_scale(maps: list[list[Tensor]], rois: Tensor, levels: NDArray[np.int64], settings: Settings) -> Turn:
    pool = import_module("torchvision.ops").MultiScaleRoIAlign(["0", "1", "2", "3"], list(settings.size), settings.sampling_ratio)
    boxes = [rois.half()]
    named = [{str(number): level for number, level in enumerate(levels_)} for levels_ in maps]
    size = (int(maps[0][0].shape[2] * 4), int(maps[0][0].shape[3] * 4))
    return lambda i: pool(named[i], boxes, [size])


def _grid_sample(maps: list[list[Tensor]], rois: Tensor, levels: NDArray[np.int64], settings: Settings) -> Turn:
    """Samples by grid_sample, bins by avg_pool; the grids are made before the clock starts."""
    ratio, grids = settings.sampling_ratio, {}
    for number, (boxes, scale, level) in enumerate(zip(_by_level(rois, levels), settings.scales, maps[0], strict=True)):
        if len(boxes):
            pixels = (level.shape[2], level.shape[3])
            grid, _ = sample_grid(boxes, settings.size, scale, ratio, settings.aligned, pixels)
            grids[number] = grid.reshape(1, -1, settings.size[1] * ratio, 2).half()

    def turn(i: int) -> list[Tensor]:
        sampled = [
            F.grid_sample(maps[i][number], grid, padding_mode="border", align_corners=False) for number, grid in grids.items()
        ]
        return [F.avg_pool2d(values, ratio) for values in sampled]

    return turn
