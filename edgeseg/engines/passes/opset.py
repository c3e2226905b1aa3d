"""A later version of the standard operator set."""

from __future__ import annotations

import onnx
import onnx.version_converter

from calibration.graph import opset
from edgeseg.errors import OnnxError


def raise_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model at opset ``version`` or above.

    Raises:
        OnnxError: ONNX's converter cannot.
    """
    if opset(model) >= version:
        return model
    try:
        return onnx.version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises RuntimeError and ConvertError alike, both from C++
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        fix = f"export the model with opset {version}"
        raise OnnxError(f"opset {opset(model)} could not be converted to {version}: {reason}", fix=fix) from error
