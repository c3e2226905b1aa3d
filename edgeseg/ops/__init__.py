"""Python faces of the operators: reference, PyTorch operator, ONNX form."""
