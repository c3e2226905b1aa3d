"""Target profiles: what a runtime's INT8 kernels take, as data. docs/calibration.md tells why each is as it is."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.errors import CalibrationError


@dataclass(frozen=True)
class Profile:
    """The rules of one target.

    Attributes:
        unsigned: activations are uint8, else int8.
        symmetric: the zero point of activations is 0, else free.
        int32_bias: the bias is an int32 initialiser behind its own DequantizeLinear (scale_x * scale_w); else float.
        compute: operators whose inputs are quantised.
        quantise_outputs: Q/DQ also after each of ``compute`` (after its ReLU, where it has one), for runtimes that only
            run an operator in INT8 when its output is INT8 too.
        add: which inputs of a residual Add get Q/DQ: "shortcut" (the branch that is not fused with the Add), or "both".
        share_scales: the inputs of a Concat share one scale, so that it copies bytes.
        restate: Q/DQ with the same scale again after every operator that only moves values, for runtimes that look for
            DQ -> operator -> Q; else those operators stand between the DQ and its reader.
    """

    name: str
    unsigned: bool
    symmetric: bool
    int32_bias: bool
    compute: frozenset[str]
    quantise_outputs: bool
    add: str
    share_scales: bool
    restate: bool


_COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "x86", unsigned=True, symmetric=False, int32_bias=True, compute=_COMPUTE,
            quantise_outputs=True, add="both", share_scales=True, restate=True,
        ),
        Profile(
            "arm", unsigned=False, symmetric=False, int32_bias=True, compute=_COMPUTE,
            quantise_outputs=True, add="both", share_scales=True, restate=True,
        ),
        Profile(
            "tensorrt", unsigned=False, symmetric=True, int32_bias=False, compute=_COMPUTE,
            quantise_outputs=False, add="shortcut", share_scales=True, restate=False,
        ),
    )
}


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
