"""The exported graph against the network it came from, on the same inputs, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgeseg.errors import OnnxError
from edgeseg.manifest import Parity

_RELATIVE_TOLERANCE = 1e-4
_AGREEMENT = 0.999


@dataclass(frozen=True)
class Case:
    """Inputs by name and the float32 output (N, C, h, w) expected."""

    feeds: dict[str, NDArray[np.float32]]
    expected: NDArray[np.float32]


def check_parity(model: onnx.ModelProto, cases: list[Case], opset: int) -> Parity:
    """Run ``model`` in ONNX Runtime over ``cases``.

    Raises:
        OnnxError: the largest error exceeds 1e-4 of the largest output, or the argmax differs at more than 0.1% of pixels.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    max_abs = max_rel = tolerance = 0.0
    agreement = 1.0
    for case in cases:
        (found, *_) = session.run(None, case.feeds)
        error, scale = float(np.abs(found - case.expected).max()), float(np.abs(case.expected).max())
        max_abs, max_rel = max(max_abs, error), max(max_rel, error / max(scale, 1e-12))
        tolerance = max(tolerance, _RELATIVE_TOLERANCE * max(scale, 1.0))
        agreement = min(agreement, float((found.argmax(1) == case.expected.argmax(1)).mean()))
    if not max_abs <= tolerance or agreement < _AGREEMENT:
        raise OnnxError(
            f"export parity: max abs error {max_abs:.2e}, argmax agreement {agreement:.4%}",
            f"at most {tolerance:.2e} and at least {_AGREEMENT:.1%}",
            "the network uses something the exporter translates wrongly; please report it",
        )
    return Parity(
        max_abs=max_abs,
        max_rel=max_rel,
        argmax_agreement=agreement,
        tolerance_abs=tolerance,
        opset=opset,
        shapes=[case.feeds[next(iter(case.feeds))].shape for case in cases],
    )
