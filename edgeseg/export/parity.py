"""The exported graph against the network it came from, on the same inputs, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgeseg.errors import OnnxError
from edgeseg.manifest import Parity

_RELATIVE_TOLERANCE = 1e-4
_AGREEMENT = 0.999
_FIX = "the network uses something the exporter translates wrongly; please report it"


@dataclass(frozen=True)
class Case:
    """Inputs by name and the output expected: scores (N, C, h, w) float32, or labels (N, h, w) of an integer type."""

    feeds: dict[str, NDArray[np.float32]]
    expected: NDArray[Any]


def check_parity(model: onnx.ModelProto, cases: list[Case], opset: int) -> Parity:
    """Run ``model`` in ONNX Runtime over ``cases``.

    Raises:
        OnnxError: it does not run, an output has another shape or is not finite, the largest error exceeds 1e-4 of the largest
            output (or of 1, if that is smaller), or the argmax differs at more than 0.1% of pixels. Of labels only the
            latter counts, and their error is the share of pixels that differ.
    """
    found = _run(model, cases)
    errors = [_error(output, case.expected) for output, case in zip(found, cases, strict=True)]
    scales = [1.0 if _are_labels(case.expected) else float(np.abs(case.expected).max()) for case in cases]
    limits = [_limit(case.expected, scale) for case, scale in zip(cases, scales, strict=True)]
    agreement = min(_agreement(output, case.expected) for output, case in zip(found, cases, strict=True))
    if agreement < _AGREEMENT or any(error > limit for error, limit in zip(errors, limits, strict=True)):
        raise OnnxError(
            f"export parity: max abs error {max(errors):.2e}, argmax agreement {agreement:.4%}",
            f"at most {max(limits):.2e} and at least {_AGREEMENT:.1%}",
            _FIX,
        )
    return Parity(
        max_abs=max(errors),
        max_rel=max(error / max(scale, 1e-12) for error, scale in zip(errors, scales, strict=True)),
        argmax_agreement=agreement,
        tolerance_abs=max(limits),
        opset=opset,
        shapes=[case.feeds[next(iter(case.feeds))].shape for case in cases],
    )


def _are_labels(array: NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.integer))


def _agreement(output: NDArray[Any], expected: NDArray[Any]) -> float:
    labels = (output, expected) if _are_labels(expected) else (output.argmax(1), expected.argmax(1))
    return float((labels[0] == labels[1]).mean())


def _error(output: NDArray[Any], expected: NDArray[Any]) -> float:
    return 1 - _agreement(output, expected) if _are_labels(expected) else float(np.abs(output - expected).max())


def _limit(expected: NDArray[Any], scale: float) -> float:
    return 1 - _AGREEMENT if _are_labels(expected) else _RELATIVE_TOLERANCE * max(scale, 1.0)


def _run(model: onnx.ModelProto, cases: list[Case]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    outputs = []
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for case in cases:
            outputs.append(session.run(None, case.feeds)[0])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OnnxError(f"export: ONNX Runtime cannot run the graph ({reason})", "a graph that runs", _FIX) from error
    for output, case in zip(outputs, cases, strict=True):
        if output.shape != case.expected.shape:
            raise OnnxError(f"export parity: output of shape {output.shape}", f"{case.expected.shape} as PyTorch's", _FIX)
        if not (np.isfinite(output).all() and np.isfinite(case.expected).all()):
            raise OnnxError("export parity: outputs are not finite", "finite outputs", "check the weights; train again")
    return outputs
