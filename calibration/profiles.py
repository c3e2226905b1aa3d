"""Target profiles: what a runtime's INT8 kernels take, as data. docs/calibration.md tells why each is as it is."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.errors import CalibrationError

# Operators whose output values are among (or between) their input's: 8-bit codes pass through under the same scale.
MOVES = frozenset({
    "Concat", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "DepthToSpace",
    "SpaceToDepth", "Slice", "Split", "Expand", "Tile", "Pad",
})  # fmt: skip
_COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Profile:
    """The rules of one target.

    Attributes:
        unsigned: activations are uint8, else int8.
        symmetric: the zero point of activations is 0, else free.
        int32_bias: the bias is an int32 initialiser behind its own DequantizeLinear (scale_x * scale_w); else float.
        quantise_outputs: Q/DQ also after each compute operator (after its ReLU, where it has one), for runtimes that only
            run an operator in INT8 when its output is INT8 too.
        add: which inputs of a residual Add get Q/DQ: "shortcut" (the branch that is not fused with the Add), or "both".
        share_mixed: inputs of a Concat share one scale even where ReLU outputs meet signed tensors; else only tensors of
            one kind share, since a ReLU is absorbed by the Q after it only at the lowest zero point.
        moves: operators that 8-bit codes pass through: their input is quantised rather than their output.
        restate: those of ``moves`` that get Q/DQ of the same scale again at their output, for runtimes that look for
            DQ -> operator -> Q.
        compute: operators whose inputs are quantised.
    """

    name: str
    unsigned: bool
    symmetric: bool
    int32_bias: bool
    quantise_outputs: bool
    add: str
    share_mixed: bool
    moves: frozenset[str]
    restate: frozenset[str]
    compute: frozenset[str] = _COMPUTE


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "x86", unsigned=True, symmetric=False, int32_bias=True, quantise_outputs=True,
            add="both", share_mixed=False, moves=MOVES, restate=MOVES,
        ),
        Profile(
            "openvino", unsigned=True, symmetric=False, int32_bias=False, quantise_outputs=False,
            add="both", share_mixed=True, moves=MOVES - {"Resize"}, restate=_NONE,
        ),
        Profile(
            "arm", unsigned=False, symmetric=False, int32_bias=True, quantise_outputs=True,
            add="both", share_mixed=False, moves=MOVES, restate=MOVES,
        ),
        Profile(
            "tensorrt", unsigned=False, symmetric=True, int32_bias=False, quantise_outputs=False,
            add="shortcut", share_mixed=True, moves=MOVES, restate=_NONE,
        ),
    )
}  # fmt: skip


def resolve(profile: str | Profile) -> Profile:
    """The profile of that name.

    Raises:
        CalibrationError: there is none.
    """
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise CalibrationError(f"profile {profile!r}", f"one of {', '.join(PROFILES)}", "choose one of these")
    return PROFILES[profile]
