"""ONNX: from PyTorch, or adopted from a file."""
