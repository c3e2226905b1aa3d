from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def preprocess(
    frame: Array, out: Array, scale: float, mean: Sequence[float], std: Sequence[float], swap_rb: bool, threads: int
) -> None: ...
def upsample_argmax(logits: Array, labels: Array, threads: int) -> None: ...
def upsample_threshold(logits: Array, labels: Array, threshold: float, threads: int) -> None: ...
def upsample_nearest(labels: Array, out: Array) -> None: ...
def overlay(frame: Array, labels: Array, palette: Array, alpha: float, out: Array, threads: int) -> None: ...
def upsample_argmax_overlay(
    logits: Array, frame: Array, palette: Array, alpha: float, labels: Array, out: Array, threads: int
) -> None: ...
def depth_normals(depth: Array, intrinsics: Sequence[float], radius: int, normals: Array) -> None: ...
def hha(depth: Array, intrinsics: Sequence[float], gravity: Sequence[float] | None, radius: int, planes: Array) -> list[float]: ...
def isa_names() -> list[str]: ...
def isa() -> str: ...
def select_isa(name: str) -> None: ...
def paste_masks(masks: Array, boxes: Array, threshold: float, out: Array, threads: int) -> None: ...
def merge_panoptic(
    masks: Array,
    boxes: Array,
    semantic: Array,
    stuff: int,
    threshold: float,
    overlap: float,
    stuff_area: int,
    ids: Array,
    threads: int,
) -> tuple[list[int], list[int]]: ...
def query_masks(
    logits: Array,
    step_y: float,
    step_x: float,
    cut: float,
    masks: Array,
    areas: Array,
    spans: Array,
    sums: Array,
    threads: int,
) -> None: ...
def query_argmax(
    logits: Array, scores: Array, step_y: float, step_x: float, cut: float, winners: Array, threads: int
) -> tuple[list[int], list[int], list[int]]: ...

class CrfMemory:
    def __init__(self) -> None: ...

def dense_crf(
    memory: CrfMemory,
    frame: Array,
    scores: Array,
    probabilities: bool,
    least: float,
    w1: float,
    sigma_alpha: float,
    sigma_beta: float,
    w2: float,
    sigma_gamma: float,
    iterations: int,
    labels: Array,
    marginals: Array | None,
    threads: int,
) -> None: ...
