"""``model.json``: what a model is, how a frame enters it, what it gives, and what was measured of it.

It is the only source of preprocessing: training, evaluation, calibration and the live app all read ``Manifest.input``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeseg.errors import ManifestError
from edgeseg.files import write_json

FORMAT: Literal["edgeseg-model"] = "edgeseg-model"
VERSION: Literal[1] = 1

Byte = Annotated[int, Field(ge=0, le=255)]
Size = Annotated[int, Field(gt=0, le=16384)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Task = Literal["semantic", "detection", "instance", "keypoint", "panoptic"]
OutputKind = Literal["logits", "softmax", "sigmoid", "labels", "detections", "panoptic", "queries"]
Modality = Literal["rgb", "rgbd", "hha", "rgb-hha"]
CHANNELS: dict[str, tuple[int, ...]] = {"rgb": (3, 1), "rgbd": (4,), "hha": (3,), "rgb-hha": (6,)}
"""Channels of each modality's input."""
OUTPUTS: dict[str, tuple[str, ...]] = {
    "detections": ("boxes", "scores", "classes"),
    "panoptic": ("boxes", "scores", "classes", "masks", "semantic"),
    "queries": ("class_logits", "mask_logits"),
}
"""Names of the graph's outputs where there are several; masks and keypoints follow in detections where the task has them."""


def _known_channels(count: int) -> int:
    if count not in (known := sorted({number for numbers in CHANNELS.values() for number in numbers})):
        raise ValueError(f"Input should be one of {known}")
    return count


# Not a Literal, which takes true for 1.
Channels = Annotated[int, AfterValidator(_known_channels)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ClassInfo(_Strict):
    """One class: its name and the colour (R, G, B) it is drawn in. Its label is its place in the list.

    ``thing``: countable objects, told apart one by one; otherwise stuff (Kirillov et al., CVPR 2019).
    """

    name: Annotated[str, Field(min_length=1)]
    colour: tuple[Byte, Byte, Byte]
    thing: bool = False


class InputSpec(_Strict):
    """The image input: ``x = (pixel * scale - mean) / std`` per channel, resized by ``resize``, NCHW float32.

    ``mean`` and ``std`` follow ``colour_order`` and are in the units of ``pixel * scale`` (0..1 by default).

    ``modality``: what a frame's channels are: "rgb" (3, or 1 for grey), "rgbd" (4: colour and depth), "hha" (3: horizontal
    disparity, height, angle), "rgb-hha" (6). Depth and HHA are uint8 planes behind the colours; see ``edgeseg.data.rgbd``.
    ``resize``: "stretch", or "letterbox": the aspect is kept, the rest at the right and the bottom is 0 after normalising.
    """

    name: str = "image"
    width: Size
    height: Size
    batch: Annotated[int, Field(gt=0, le=1024)] = 1
    dynamic: bool = False
    channels: Channels = 3
    colour_order: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: Annotated[float, Field(gt=0)] = 1 / 255
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    resize: Literal["stretch", "letterbox"] = "stretch"
    interpolation: Literal["bilinear"] = "bilinear"
    modality: Modality = "rgb"

    @model_validator(mode="after")
    def _channels_agree(self) -> InputSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean has {len(self.mean)} and std {len(self.std)} values for {self.channels} channels")
        if (self.colour_order == "grey") != (self.channels == 1):
            raise ValueError(f"colour_order {self.colour_order!r} does not fit {self.channels} channels")
        if self.channels not in CHANNELS[self.modality]:
            raise ValueError(f"{self.channels} channels do not fit modality {self.modality!r}")
        return self

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W) of the tensor that enters the network."""
        return self.batch, self.channels, self.height, self.width


class OutputSpec(_Strict):
    """The segmentation output. ``logits``, ``softmax`` and ``sigmoid`` are (N, C, h, w) float32, ``labels`` (N, h, w).

    h and w may be smaller than the input: the label map is upsampled bilinearly (half-pixel) with the argmax fused.
    One channel means two classes told apart by ``threshold`` on the sigmoid probability.

    Other kinds have the outputs that ``OUTPUTS`` names, of one picture, in pixels of the input tensor:
        detections: boxes (1, D, 4) x1, y1, x2, y2, scores (1, D), classes (1, D) int64, best first; D is fixed, rows that are no
            object have class -1 and score 0. Task "instance" adds masks (1, D, m, m), the probability over the box of the
            row's class; task "keypoint" keypoints (1, D, K, 3) x, y, score.
        panoptic: the same with masks, and semantic (1, 1 + S, h, w), logits of "any thing" and of the S stuff classes in order.
        queries: class_logits (1, Q, C + 1), the last for "no object", and mask_logits (1, Q, h, w).
    """

    name: str = "logits"
    kind: OutputKind = "logits"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5


class MergeSpec(_Strict):
    """How detections or queries become a picture's segments; areas in pixels of the frame.

    Attributes:
        score: detections below it are dropped from panoptic pictures (Panoptic FPN; Mask2Former's 0.8 for queries).
        overlap: an instance is dropped when a smaller share of its mask is still free (both papers, section "inference").
        stuff_area: stuff segments that are smaller become void (Panoptic FPN only).
        mask: probability above which a pixel belongs to a mask.
    """

    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.5
    stuff_area: Annotated[int, Field(ge=0)] = 4096
    mask: Annotated[float, Field(ge=0, le=1)] = 0.5


class CrfSpec(_Strict):
    """A dense CRF behind the network (Kraehenbuehl and Koltun, NIPS 2011, equation 3).

    Attributes:
        w1, sigma_alpha, sigma_beta: weight, position (px) and colour (0..255) deviations of the appearance kernel.
        w2, sigma_gamma: weight and position deviation (px) of the smoothness kernel.
        iterations: mean-field steps.
    """

    w1: Annotated[float, Field(ge=0)] = 4.0
    sigma_alpha: Annotated[float, Field(gt=0)] = 67.0
    sigma_beta: Annotated[float, Field(gt=0)] = 3.0
    w2: Annotated[float, Field(ge=0)] = 3.0
    sigma_gamma: Annotated[float, Field(gt=0)] = 1.0
    iterations: Annotated[int, Field(ge=0, le=100)] = 10


class TileSpec(_Strict):
    """Inference in tiles: the network sees ``input`` sized windows of the frame at its own scale.

    Attributes:
        overlap: pixels that neighbouring outputs share; their scores are blended.
        border: what lies beyond the frame's edge: mirrored pixels (U-Net's overlap-tile strategy) or black.
    """

    overlap: Annotated[int, Field(ge=0)] = 32
    border: Literal["mirror", "zero"] = "mirror"


class LabelSpace(_Strict):
    """One more way to label every pixel, such as geometry beside semantics (Long et al., CVPR 2015, section 5.3)."""

    name: Annotated[str, Field(min_length=1)]
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=255)]


class KeypointSpec(_Strict):
    """The K keypoints of an object.

    Attributes:
        names: in order.
        flip: index of each point's counterpart in a mirrored picture.
        sigmas: COCO's per-point deviations k_i / 2 of the object keypoint similarity.
    """

    names: Annotated[list[str], Field(min_length=1)]
    flip: list[int]
    sigmas: list[Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _lengths_agree(self) -> KeypointSpec:
        if len(self.flip) != len(self.names) or len(self.sigmas) != len(self.names):
            raise ValueError(f"{len(self.flip)} flips and {len(self.sigmas)} sigmas for {len(self.names)} names")
        return self


class Architecture(_Strict):
    """The network's registry name and keyword arguments, from which ``edgeseg.models.create`` makes it again."""

    name: str
    options: dict[str, Any] = {}


class FileInfo(_Strict):
    """A file beside the manifest."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Provenance(_Strict):
    """Where the model came from: enough to make it again, and the licence of what it was trained on."""

    created_by: str = ""
    command: str = ""
    seed: int | None = None
    training_data: str = ""
    licence: str = ""
    notes: str = ""


class Parity(_Strict):
    """The exported graph against the PyTorch model on the same inputs, ONNX Runtime in float32."""

    max_abs: float
    max_rel: float
    argmax_agreement: Annotated[float, Field(ge=0, le=1)]
    tolerance_abs: float
    opset: int
    shapes: list[tuple[int, ...]]


class Measurement(_Strict):
    """A figure measured on this model, with what is needed to measure it again."""

    what: str
    backend: str
    precision: str
    machine: str
    date: str
    data: str = ""
    values: dict[str, float]


class Manifest(_Strict):
    """The whole of ``model.json``."""

    format: Literal["edgeseg-model"] = FORMAT
    version: Literal[1] = VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: Task = "semantic"
    architecture: Architecture | None = None
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=256)]
    ignore_label: Byte = 255
    input: InputSpec
    output: OutputSpec = OutputSpec()
    spaces: list[LabelSpace] = []
    keypoints: KeypointSpec | None = None
    merge: MergeSpec = MergeSpec()
    crf: CrfSpec | None = None
    tile: TileSpec | None = None
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], FileInfo] = {}
    provenance: Provenance = Provenance()
    parity: Parity | None = None
    measurements: list[Measurement] = []

    @property
    def class_names(self) -> list[str]:
        return [item.name for item in self.classes]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs in order."""
        names = OUTPUTS.get(self.output.kind, (self.output.name,))
        more = {"instance": ("masks",), "keypoint": ("keypoints",)} if self.output.kind == "detections" else {}
        return (*names, *more.get(self.task, ()))

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def save(self, path: Path) -> None:
        """Write the manifest to ``path`` atomically."""
        write_json(path, self.to_json())


def _json_path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} appears twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    # Python also reads NaN and Infinity, and 1e999 as Infinity.
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def parse_manifest(text: str | bytes, origin: str = "model.json") -> Manifest:
    """Parse and validate a manifest strictly.

    Raises:
        ManifestError: not JSON, another format or version, an unknown key, a wrong type or value; names the JSON path.
    """
    try:
        document = json.loads(text, object_pairs_hook=_distinct, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{origin}: not JSON ({error})", "a model.json written by edgeseg", "restore the file") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ManifestError(f"{origin} $.format: not a model manifest", repr(FORMAT), "point at a model folder")
    if (found := document.get("version")) != VERSION or type(found) is not int:
        fix = "use the edgeseg that wrote it, or export again"
        raise ManifestError(f"{origin} $.version: {found!r}", f"version {VERSION}", fix)
    try:
        return Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ManifestError(
            f"{origin} {_json_path(first['loc'])}: {first['msg']}, got {str(first.get('input'))[:80]!r}{more}",
            fix="correct that key; docs/manifest.md lists all of them",
        ) from error


def load_manifest(path: Path) -> Manifest:
    """Read and validate the manifest at ``path``."""
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "a model folder with a model.json") from error
