"""A model folder with a three-convolution network and a CamVid-shaped data set, for tests that need no training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.data.camvid import CLASSES
from edgeseg.folder import GRAPH, ModelFolder
from edgeseg.manifest import ClassInfo, InputSpec, Manifest

HEIGHT, WIDTH, STRIDE = 32, 48, 4
WRONG_FEEDS = [  # of its graph, and what every session's refusal says
    ({}, "exactly"),
    ({"frame": np.zeros((1, 3, HEIGHT, WIDTH), np.float32)}, "exactly"),
    ({"image": np.zeros((1, 3, HEIGHT, WIDTH + 1), np.float32)}, "shape"),
    ({"image": np.zeros((1, 3, HEIGHT, WIDTH), np.float64)}, "dtype"),
    ({"image": np.zeros((1, 3, WIDTH, HEIGHT), np.float32).transpose(0, 1, 3, 2)}, "contiguous"),
]


def tiny_graph(num_classes: int = 5, seed: int = 0, batch: int = 1, dynamic: bool = False) -> onnx.ModelProto:
    """(N, 3, 32, 48) -> logits (N, num_classes, 8, 12): Conv-BN-Relu, Conv-Relu, Conv 1x1."""
    rng = np.random.default_rng(seed)
    weights = {
        "stem.weight": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "bn.weight": rng.uniform(0.5, 1.5, 8),
        "bn.bias": rng.normal(0, 0.2, 8),
        "bn.running_mean": rng.normal(0, 0.1, 8),
        "bn.running_var": rng.uniform(0.5, 1.5, 8),
        "body.weight": rng.normal(0, 0.25, (16, 8, 3, 3)),
        "body.bias": rng.normal(0, 0.1, 16),
        "head.weight": rng.normal(0, 0.8, (num_classes, 16, 1, 1)),
        "head.bias": rng.normal(0, 0.1, num_classes),
    }
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["stem"], "stem", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node(
            "BatchNormalization", ["stem", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], ["normed"], "bn"
        ),
        helper.make_node("Relu", ["normed"], ["stem_relu"], "stem_relu"),
        helper.make_node(
            "Conv", ["stem_relu", "body.weight", "body.bias"], ["body"], "body", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["body"], ["body_relu"], "body_relu"),
        helper.make_node("Conv", ["body_relu", "head.weight", "head.bias"], ["logits"], "head", kernel_shape=[1, 1]),
    ]
    free = ["n", 3, "h", "w"] if dynamic else [batch, 3, HEIGHT, WIDTH]
    out = ["n", num_classes, "oh", "ow"] if dynamic else [batch, num_classes, HEIGHT // STRIDE, WIDTH // STRIDE]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def tiny_folder(path: Path, num_classes: int = 5, *, batch: int = 1, dynamic: bool = False, seed: int = 0) -> ModelFolder:
    """A model folder with ``tiny_graph``; with 11 classes they are CamVid's."""
    path.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(1).integers(0, 256, (num_classes, 3)).tolist()
    named = tuple(ClassInfo(name=f"class{index}", colour=tuple(colour)) for index, colour in enumerate(colours))
    spec = InputSpec(
        width=WIDTH, height=HEIGHT, batch=batch, dynamic=dynamic, mean=(0.4, 0.45, 0.5), std=(0.25, 0.2, 0.3), colour_order="rgb"
    )
    classes = list(CLASSES) if num_classes == len(CLASSES) else list(named)
    Manifest(name="tiny", classes=classes, input=spec).save(path / "model.json")
    onnx.save(tiny_graph(num_classes, seed, batch, dynamic), str(path / GRAPH))
    folder = ModelFolder(path)
    folder.register(GRAPH)
    return folder


def frames(count: int = 4, height: int = 60, width: int = 80, seed: int = 0) -> list[np.ndarray]:
    """Smooth random (height, width, 3) uint8 frames."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return [np.ascontiguousarray(cv2.resize(item, (width, height), interpolation=cv2.INTER_CUBIC)) for item in coarse]


def camvid_copy(root: Path, counts: dict[str, int], size: tuple[int, int] = (60, 80)) -> Path:
    """A data set in CamVid's layout with random smooth pictures and labels in 0..11."""
    rng = np.random.default_rng(7)
    for number, (split, count) in enumerate(counts.items()):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / f"{split}annot").mkdir(exist_ok=True)
        lines = []
        for index, frame in enumerate(frames(count, *size, seed=number + 10)):
            name = f"{split}_{index:03d}.png"
            coarse = rng.integers(0, 12, (6, 8), dtype=np.uint8)
            labels = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(root / split / name), frame)
            cv2.imwrite(str(root / f"{split}annot" / name), labels)
            lines.append(f"{split}/{name} {split}annot/{name}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def calibrated(folder: ModelFolder, seed: int = 3, method: str = "minmax", count: int = 8) -> ModelFolder:
    """Give ``folder`` a ranges.json from random frames."""
    from calibration import collect, prepare
    from edgeseg.engines.keys import preprocessing_digest
    from edgeseg.preprocess import Preprocessor

    preprocess, spec = Preprocessor(folder.manifest.input), folder.manifest.input
    batches = [{spec.name: np.repeat(preprocess(frame)[:1], spec.batch, axis=0)} for frame in frames(count, seed=seed)]
    ranges = collect(prepare(onnx.load(str(folder.graph)), keep_domains=("edgeseg",)), batches, method=method)
    ranges.data["preprocessing"] = preprocessing_digest(folder.manifest)
    ranges.save(folder.ranges)
    folder.register("ranges.json")
    return folder
