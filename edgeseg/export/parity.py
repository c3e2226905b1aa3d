"""The exported graph against the network it came from, on the same inputs, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgeseg.errors import OnnxError
from edgeseg.export.parity_detections import SCORE_TOLERANCE, match_detections
from edgeseg.manifest import OUTPUTS, Parity

_RELATIVE_TOLERANCE = 1e-4
_AGREEMENT = 0.999
_FIX = "the network uses something the exporter translates wrongly; please report it"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """Inputs by name and what is expected of them.

    Attributes:
        expected: the only output, scores (N, C, h, w) float32 or labels (N, h, w) of an integer type; or several by name, as
            ``edgeseg.manifest.OutputSpec`` describes them.
    """

    feeds: dict[str, NDArray[np.float32]]
    expected: NDArray[Any] | Arrays


@dataclass(frozen=True)
class _Compared:
    """One output against what was expected: the largest error and its limit, and the share of decisions that agree."""

    error: float
    limit: float
    scale: float
    agreement: float


def check_parity(model: onnx.ModelProto, cases: list[Case], opset: int) -> Parity:
    """Run ``model`` in ONNX Runtime over ``cases``.

    Raises:
        OnnxError: it does not run, an output has another shape or is not finite, the largest error exceeds 1e-4 of the largest
            output (or of 1, if that is smaller), or the argmax differs at more than 0.1% of pixels. Of labels only the
            latter counts, and their error is the share of pixels that differ. Detections are matched first: more than 0.1%
            without a partner of the same class with IoU > 0.99, or a score or mask off by more than 1e-3, is refused.
    """
    found = _run(model, cases)
    compared = [item for outputs, case in zip(found, cases, strict=True) for item in _compare(outputs, case)]
    agreement = min(item.agreement for item in compared)
    if agreement < _AGREEMENT or any(item.error > item.limit for item in compared):
        worst = max(compared, key=lambda item: item.error / item.limit)
        raise OnnxError(
            f"export parity: max abs error {worst.error:.2e}, argmax agreement {agreement:.4%}",
            f"at most {worst.limit:.2e} and at least {_AGREEMENT:.1%}",
            _FIX,
        )
    return Parity(
        max_abs=max(item.error for item in compared),
        max_rel=max(item.error / max(item.scale, 1e-12) for item in compared),
        argmax_agreement=agreement,
        tolerance_abs=max(item.limit for item in compared),
        opset=opset,
        shapes=[case.feeds[next(iter(case.feeds))].shape for case in cases],
    )


def _compare(found: Arrays, case: Case) -> list[_Compared]:
    expected = _named(case, found)
    detections = [name for name in expected if name in (*OUTPUTS["detections"], "masks", "keypoints")]
    compared = []
    if len(detections) > 1:
        error, agreement = match_detections(found, expected)
        compared.append(_Compared(error, SCORE_TOLERANCE, 1.0, agreement))
    for name in expected:
        if len(detections) < 2 or name not in detections:
            # Scores of queries have their classes last; all others have them second.
            axis = -1 if name == "class_logits" else 1
            compared.append(_compare_scores(found[name], expected[name], axis))
    return compared


def _compare_scores(output: NDArray[Any], expected: NDArray[Any], axis: int) -> _Compared:
    if np.issubdtype(expected.dtype, np.integer):
        agreement = float((output == expected).mean())
        return _Compared(1 - agreement, 1 - _AGREEMENT, 1.0, agreement)
    scale = float(np.abs(expected).max())
    error = float(np.abs(output - expected).max())
    agreement = float((output.argmax(axis) == expected.argmax(axis)).mean())
    return _Compared(error, _RELATIVE_TOLERANCE * max(scale, 1.0), scale, agreement)


def _named(case: Case, found: Arrays) -> Arrays:
    return case.expected if isinstance(case.expected, dict) else {next(iter(found)): case.expected}


def _run(model: onnx.ModelProto, cases: list[Case]) -> list[Arrays]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    outputs = []
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for case in cases:
            outputs.append(dict(zip(names, session.run(None, case.feeds), strict=True)))
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OnnxError(f"export: ONNX Runtime cannot run the graph ({reason})", "a graph that runs", _FIX) from error
    for arrays, case in zip(outputs, cases, strict=True):
        for name, expected in _named(case, arrays).items():
            _check_output(name, arrays[name], expected)
    return outputs


def _check_output(name: str, output: NDArray[Any], expected: NDArray[Any]) -> None:
    if output.shape != expected.shape:
        raise OnnxError(f"export parity: output of shape {output.shape}", f"{expected.shape} as PyTorch's", _FIX)
    if not (np.isfinite(output).all() and np.isfinite(expected).all()):
        raise OnnxError(f"export parity: outputs are not finite ({name})", "finite outputs", "check the weights; train again")
