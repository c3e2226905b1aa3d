"""The workloads that are timed: who takes part, what each has to move, and the goals."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.ops import launch
from gpu_check_lib.device import Device
from gpu_check_lib.timing import Contest, Turn, Workload

PREPROCESS_MEAN, PREPROCESS_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def workloads(host: bool) -> dict[str, Workload]:
    """By name; on the host in sizes that only exercise the code."""
    from gpu_check_lib.speed_roi_align import roi_align

    found = [
        roi_align(7, host, quick=True),
        roi_align(14, host),
        _pool_pair((8, 64, 360, 480) if not host else (1, 4, 36, 48)),
        *(_upsample(dtype, regions, host) for dtype in ("float16", "float32") for regions in (False, True)),
        _preprocess((720, 1280), (512, 512) if not host else (64, 64)),
        _overlay((1080, 1920) if not host else (108, 192)),
    ]
    return {workload.name: workload for workload in found}


def es(tensor: Tensor, shape: tuple[int, ...] | None = None, format: str = "linear") -> launch.Tensor:
    """An EsTensor over a torch tensor's memory; ``shape`` is the logical one where the tensor is packed."""
    return launch.tensor(tensor.data_ptr(), str(tensor.dtype).removeprefix("torch."), shape or tuple(tensor.shape), format)


def ours(device: Device, memory: list[Any], *launches: tuple[str, Sequence[ctypes.Structure]]) -> Turn:
    """A turn that makes our launches one after the other with the arguments of buffer set i.

    Args:
        memory: the tensors behind the arguments, which hold addresses alone.
    """

    def turn(i: int) -> list[Any]:
        for name, args in launches:
            device.run(name, args[i])
        return memory

    return turn


def random(device: Device, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator(device.torch_device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device.torch_device).to(dtype)


# --- pooling -----------------------------------------------------------------------------------------------------------


def _pool_pair(shape: tuple[int, int, int, int]) -> Workload:
    n, c, h, w = shape
    pooled = (n, c, h // 2, w // 2)
    whole, small = 2 * n * c * h * w, 2 * n * c * (h // 2) * (w // 2)
    minimum = 2 * (whole + small + small // 2)  # pool: read x, write y and codes; unpool: read y and codes, write x

    def make(device: Device, sets: int) -> Contest:
        at = device.torch_device
        x = [random(device, shape, torch.float16, i) for i in range(sets)]
        y = [torch.empty(pooled, dtype=torch.float16, device=at) for _ in range(sets)]
        codes = [torch.empty(pooled, dtype=torch.uint8, device=at) for _ in range(sets)]
        back = [torch.empty(shape, dtype=torch.float16, device=at) for _ in range(sets)]
        window = launch.Window(2, 2, 2, 2, 0, 0)
        pools = [launch.MaxPoolArgmax(es(x[i]), es(y[i]), es(codes[i]), window) for i in range(sets)]
        unpools = [launch.MaxUnpool(es(y[i]), es(codes[i]), es(back[i]), window) for i in range(sets)]
        mine = ours(device, [x, y, codes, back], ("max_pool_argmax", pools), ("max_unpool", unpools))

        def theirs(i: int) -> Tensor:
            values, places = F.max_pool2d(x[i], 2, 2, return_indices=True)
            return F.max_unpool2d(values, places, (2, 2))

        def check() -> list[str]:
            mine(0)
            device.synchronize()
            return [] if torch.equal(back[0], theirs(0)) else ["pooled and unpooled plane differs from torch's"]

        goals = [("at least 2x torch's pair", "ours", "torch", 2.0), ("at least 70% of copy bandwidth", "ours", "", 0.7)]
        return Contest({"ours": mine, "torch": theirs}, minimum, check, goals)

    name = f"MaxPoolArgmax + MaxUnpool 2x2, {n}x{c}x{h}x{w}, FP16"
    return Workload(name, ("max_pool_argmax", "max_unpool"), 2 * (whole + small) + small, make, quick=True)


# --- upsample and argmax -------------------------------------------------------------------------------------------------


def _upsample(dtype: str, regions: bool, host: bool) -> Workload:
    c, (h, w), (height, width) = 19, (128, 256) if not host else (16, 32), (1024, 2048) if not host else (128, 256)
    bytes_in = c * h * w * (2 if dtype == "float16" else 4)

    def make(device: Device, sets: int) -> Contest:
        type_ = getattr(torch, dtype)
        logits = [_logits(device, (1, c, h, w), regions, i).to(type_) for i in range(sets)]
        labels = [torch.empty((1, 1, height, width), dtype=torch.uint8, device=device.torch_device) for _ in range(sets)]
        args = [_upsample_args(es(logits[i]), es(labels[i])) for i in range(sets)]
        contestants: dict[str, Turn] = {"ours": ours(device, [logits, labels], ("upsample_argmax", args))}
        if dtype == "float16":
            packed = [_hwc8(tensor) for tensor in logits]
            shaped = [es(tensor, (1, c, h, w), "hwc8") for tensor in packed]
            args8 = [_upsample_args(shaped[i], es(labels[i])) for i in range(sets)]
            contestants["ours hwc8"] = ours(device, [packed, labels], ("upsample_argmax", args8))
        contestants["torch"] = lambda i: F.interpolate(logits[i], (height, width), mode="bilinear").argmax(1)

        def check() -> list[str]:
            upsampled = F.interpolate(logits[0].double(), (height, width), mode="bilinear")
            best = upsampled.amax(1)
            return [problem for name in list(contestants)[:-1] for problem in one(name, upsampled, best)]

        def one(name: str, upsampled: Tensor, best: Tensor) -> list[str]:
            labels[0].fill_(255)
            contestants[name](0)
            device.synchronize()
            chosen = upsampled.gather(1, labels[0].long().clamp(max=c - 1))[:, 0]
            cost = (best - chosen).max().item() if int(labels[0].max()) < c else float("inf")
            return [] if cost < 1e-4 else [f"{name}: a label {cost:.3g} below the best class"]

        return Contest(contestants, bytes_in + height * width, check, [("at least 10x torch", "ours", "torch", 10.0)])

    data = "regions" if regions else "noise"
    name = f"UpsampleArgmax {c}x{h}x{w} to {height}x{width}, {dtype.replace('float', 'FP')}, {data}"
    return Workload(name, ("upsample_argmax",), bytes_in + height * width, make, quick=dtype == "float16" and not regions)


def _upsample_args(logits: launch.Tensor, labels: launch.Tensor) -> launch.UpsampleArgmax:
    return launch.UpsampleArgmax(logits, labels, None, 0, 0.0, 1.0)


def _logits(device: Device, shape: tuple[int, int, int, int], regions: bool, seed: int) -> Tensor:
    """Noise, the worst case, or blocks where one class leads, as networks give them."""
    noise = random(device, shape, torch.float32, seed)
    if not regions:
        return noise
    n, c, h, w = shape
    leader = random(device, (n, c, h // 16, w // 16), torch.float32, seed + 1).argmax(1, keepdim=True)
    leads = torch.zeros((n, c, h // 16, w // 16), device=device.torch_device).scatter_(1, leader, 12.0)
    return noise + F.interpolate(leads, (h, w))


def _hwc8(tensor: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H, W, C padded to a multiple of 8)."""
    padded = F.pad(tensor, (0, 0, 0, 0, 0, -tensor.shape[1] % 8))
    return padded.permute(0, 2, 3, 1).contiguous()


# --- frames --------------------------------------------------------------------------------------------------------------


def _preprocess(frame_size: tuple[int, int], size: tuple[int, int]) -> Workload:
    (h, w), (height, width) = frame_size, size
    bytes_in, bytes_out = h * w * 3, 3 * height * width * 2

    def make(device: Device, sets: int) -> Contest:
        at = device.torch_device
        frames = [_frame(device, (h, w, 3), i) for i in range(sets)]
        out = [torch.empty((1, 3, height, width), dtype=torch.float16, device=at) for _ in range(sets)]
        mul = [1 / std for std in PREPROCESS_STD]
        add = [-mean / std for mean, std in zip(PREPROCESS_MEAN, PREPROCESS_STD, strict=True)]
        floats = ctypes.c_float * 3
        args = [
            launch.Preprocess(frames[i].data_ptr(), None, 3 * w, 0, h, w, es(out[i]), floats(*mul), floats(*add), 1)
            for i in range(sets)
        ]
        scale, shift = (torch.tensor(values, device=at).view(1, 3, 1, 1) for values in (mul, add))
        mine = ours(device, [frames, out], ("preprocess", args))

        def theirs(i: int) -> Tensor:
            planes = F.interpolate(frames[i].permute(2, 0, 1)[None].float(), (height, width), mode="bilinear")
            return planes.flip(1).mul_(scale).add_(shift).half()

        def check() -> list[str]:
            mine(0)
            device.synchronize()
            off = (out[0].float() - theirs(0).float()).abs().max().item()
            return [] if off < 0.02 else [f"off by {off:.3g} from torch"]

        return Contest({"ours": mine, "torch": theirs}, bytes_in + bytes_out, check)

    return Workload(f"Preprocess {w}x{h} BGR to {width}x{height}, FP16", ("preprocess",), bytes_in + bytes_out, make, quick=True)


def _overlay(size: tuple[int, int]) -> Workload:
    h, w = size

    def make(device: Device, sets: int) -> Contest:
        at = device.torch_device
        frames = [_frame(device, (h, w, 3), i) for i in range(sets)]
        labels = [_frame(device, (h, w), 100 + i).remainder(20) for i in range(sets)]
        palette, out = _frame(device, (256, 3), 7), [torch.empty((h, w, 3), dtype=torch.uint8, device=at) for _ in range(sets)]
        args = [
            launch.Overlay(
                *(frames[i].data_ptr(), 3 * w, out[i].data_ptr(), 3 * w, labels[i].data_ptr(), palette.data_ptr(), h, w, 128)
            )
            for i in range(sets)
        ]
        mine = ours(device, [frames, labels, palette, out], ("overlay", args))
        colours = palette.int() * 128 + 128

        def theirs(i: int) -> Tensor:
            blended = ((frames[i].int() * 128 + colours[labels[i].int()]) >> 8).to(torch.uint8)
            return torch.where((labels[i] == 255)[..., None], frames[i], blended)

        def check() -> list[str]:
            mine(0)
            device.synchronize()
            return [] if torch.equal(out[0], theirs(0)) else ["differs from torch"]

        return Contest({"ours": mine, "torch": theirs}, 7 * h * w, check)

    return Workload(f"Overlay {w}x{h}", ("overlay",), 7 * h * w, make)


def _frame(device: Device, shape: tuple[int, ...], seed: int) -> Any:
    generator = torch.Generator(device.torch_device).manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device=device.torch_device)
