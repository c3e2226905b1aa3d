"""Target profiles: what a runtime's INT8 kernels take, as data. docs/calibration.md tells why each is as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.errors import CalibrationError

Places = slice  # of an operator's inputs
FIRST, ALL = Places(0, 1), Places(None)
# Operators whose output values are among (or between) those of some inputs: 8-bit codes pass through under the same scale.
MOVES: Mapping[str, Places] = {
    "Concat": ALL,
    **dict.fromkeys(
        ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "DepthToSpace", "SpaceToDepth", "Slice",
         "Split", "Expand", "Tile", "Pad"),
        FIRST,
    ),
}  # fmt: skip
# TensorRT has neither MaxPool's indices nor MaxUnpool; where they run, plugins of that form run them, on codes as well.
_PLUGIN_MOVES: Mapping[str, Places] = {
    "MaxPool/Indices": FIRST,
    "MaxUnpool": FIRST,
    "edgeseg::MaxPoolArgmax": FIRST,
    "edgeseg::MaxUnpool": FIRST,
    "edgeseg::MaxPoolIndices": FIRST,
    "edgeseg::MaxUnpoolIndices": FIRST,
    "edgeseg::RoIAlign": Places(2, None),  # boxes, batch indices, then the levels
}
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
            run an operator in INT8 when its output is INT8 too. After a MatMul only where it has a constant bias, and then
            after that.
        add: which inputs of a residual Add get Q/DQ: "shortcut" (the branch that is not fused with the Add), or "both".
        share_mixed: inputs of a Concat share one scale even where ReLU outputs meet signed tensors; else only tensors of
            one kind share, since a ReLU is absorbed by the Q after it only at the lowest zero point.
        moves: operators that 8-bit codes pass through, and the inputs they come from: these are quantised rather than the
            output. Operators are named as ``calibration.graph.operator`` does.
        restate: those of ``moves`` that get Q/DQ of the same scale again at their output, for runtimes that look for
            DQ -> operator -> Q.
        reads: operators that take 8-bit codes and give something else, and which inputs.
        compute: operators whose inputs are quantised.
        joined_tokens: a product may read a Concat of tokens, (N, L, channels), as codes. OpenVINO (2026.4) pulls Q through the
            Concat, takes the tokens' zero points for those of channels, and refuses the graph.
    """

    name: str
    unsigned: bool
    symmetric: bool
    int32_bias: bool
    quantise_outputs: bool
    add: str
    share_mixed: bool
    moves: Mapping[str, Places]
    restate: frozenset[str]
    reads: Mapping[str, Places] = field(default_factory=dict)
    compute: frozenset[str] = _COMPUTE
    joined_tokens: bool = True


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "x86", unsigned=True, symmetric=False, int32_bias=True, quantise_outputs=True,
            add="both", share_mixed=False, moves=MOVES, restate=frozenset(MOVES),
        ),
        Profile(
            "openvino", unsigned=True, symmetric=False, int32_bias=False, quantise_outputs=False,
            add="both", share_mixed=True, moves={name: places for name, places in MOVES.items() if name != "Resize"}, restate=_NONE,
            joined_tokens=False,
        ),
        Profile(
            "arm", unsigned=False, symmetric=False, int32_bias=True, quantise_outputs=True,
            add="both", share_mixed=False, moves=MOVES, restate=frozenset(MOVES),
        ),
        Profile(
            "tensorrt", unsigned=False, symmetric=True, int32_bias=False, quantise_outputs=False,
            add="shortcut", share_mixed=True, moves={**MOVES, **_PLUGIN_MOVES}, restate=frozenset(_PLUGIN_MOVES),
            reads={"edgeseg::UpsampleArgmax": FIRST},
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
