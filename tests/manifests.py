"""Small manifests and graphs that several tests need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.folder import GRAPH, MANIFEST, ModelFolder, describe_file
from edgeseg.manifest import parse_manifest
from edgeseg.onnx_guard import save_onnx


def document(**changes: Any) -> dict[str, Any]:
    """A manifest with every part of a plain model filled in, as JSON."""
    return {
        "format": "edgeseg-model",
        "version": 1,
        "name": "small",
        "task": "semantic",
        "architecture": {"name": "unet", "options": {"width": 8}},
        "classes": [
            {"name": "road", "colour": [128, 64, 128], "thing": False},
            {"name": "car", "colour": [0, 0, 142], "thing": True},
        ],
        "ignore_label": 255,
        "input": {
            "name": "image",
            "width": 12,
            "height": 8,
            "batch": 1,
            "dynamic": False,
            "channels": 3,
            "colour_order": "rgb",
            "scale": 0.00392156862745098,
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.2, 0.2],
            "resize": "stretch",
            "interpolation": "bilinear",
            "modality": "rgb",
        },
        "output": {"name": "logits", "kind": "logits", "threshold": 0.5},
        "spaces": [],
        "keypoints": None,
        "merge": {"score": 0.5, "overlap": 0.5, "stuff_area": 4096, "mask": 0.5},
        "crf": None,
        "tile": None,
        "files": {"model.onnx": {"sha256": "0" * 64, "bytes": 1}},
        "provenance": {
            "created_by": "test",
            "command": "train",
            "seed": 1,
            "training_data": "none",
            "licence": "MIT",
            "notes": "",
        },
        "parity": {
            "max_abs": 1e-5,
            "max_rel": 1e-4,
            "argmax_agreement": 1.0,
            "tolerance_abs": 1e-3,
            "opset": 17,
            "shapes": [[1, 3, 8, 12]],
        },
        "measurements": [
            {
                "what": "eval",
                "backend": "ort",
                "precision": "fp32",
                "machine": "m",
                "date": "2026-11-20",
                "data": "streets",
                "values": {"mean_iou": 0.5},
            }
        ],
        **changes,
    }


def graph(classes: int = 2, height: int = 8, width: int = 12) -> ModelProto:
    """One convolution: (1, 3, height, width) -> (1, classes, height / 2, width / 2)."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(classes, 3, 3, 3)).astype(np.float32), "w")
    node = helper.make_node("Conv", ["image", "w"], ["logits"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, height // 2, width // 2])]
    made = helper.make_graph([node], "g", inputs, outputs, [weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folder(directory: Path) -> ModelFolder:
    """A complete model folder with the graph above."""
    directory.mkdir(parents=True, exist_ok=True)
    save_onnx(graph(), directory / GRAPH)
    manifest = parse_manifest(json.dumps(document(parity=None, measurements=[])))
    manifest.model_copy(update={"files": {GRAPH: describe_file(directory / GRAPH)}}).save(directory / MANIFEST)
    return ModelFolder(directory)
