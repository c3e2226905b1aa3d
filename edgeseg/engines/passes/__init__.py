"""Rewrites of ONNX graphs on their way into an engine: one file per rewrite, put together in ``edgeseg.engines.lowering``."""
