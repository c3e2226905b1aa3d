"""Panoptic FPN: the semantic branch, its losses, learning, and its graph on every runtime and in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the train extra")

from torch import Tensor, nn  # noqa: E402

from calibration import collect, prepare, quantize  # noqa: E402
from edgeseg import models  # noqa: E402
from edgeseg.engines.lowering import to_half, to_primitive  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export.parity_detections import match_detections  # noqa: E402
from edgeseg.export.torch_onnx import to_onnx  # noqa: E402
from edgeseg.models.detection.boxes import iou  # noqa: E402
from edgeseg.models.panoptic_fpn import SemanticBranch, semantic_loss  # noqa: E402
from tests.models.detected import SIZE, SMALL, empty, overfit, picture, run  # noqa: E402
from tests.ops.rtx import build  # noqa: E402

NAMES = ("boxes", "scores", "classes", "masks", "semantic")
PAIRS = [picture(0), picture(1)]


def small(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create("panoptic_fpn", 4, **{**SMALL, "things": [2, 3], "semantic_channels": 16, **options})


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    network = small()
    overfit(network, PAIRS, steps=90)
    return network


@torch.inference_mode()
def answers(network: nn.Module, image: Tensor) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, (item.numpy() for item in network(image[None])), strict=True))


def check_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], slack: float = 1e-3) -> None:
    """Box by box: IoU > 0.99 and score within 1e-3 (``match_detections``); and the semantic logits."""
    assert (wanted["scores"] > 0.5).sum() >= 2
    error, share = match_detections(found, wanted)
    assert share == 1
    assert error < slack
    assert np.abs(found["semantic"] - wanted["semantic"]).max() <= slack * np.abs(wanted["semantic"]).max()


# --- the network -------------------------------------------------------------------------------------------------------


def test_outputs_are_the_manifests() -> None:
    network = small().eval()
    assert (models.task_of(network), models.kind_of(network)) == ("panoptic", "panoptic")
    for height, width in (SIZE, (75, 101)):
        found = answers(network, torch.randn(3, height, width))
        # Two stuff classes and "any thing", at stride 4.
        assert found["semantic"].shape == (1, 3, -(-height // 4), -(-width // 4))
        assert found["masks"].shape == (1, 8, 28, 28)


def test_a_level_takes_as_many_stages_as_it_is_octaves_above_stride_4() -> None:
    branch = SemanticBranch(32, 16, 3)
    assert [len(stages) for stages in branch.levels] == [1, 1, 2, 3]
    assert sum(parameter.numel() for parameter in SemanticBranch(256, 128, 54).parameters()) == sum(
        [4 * 256 * 128 * 9, 3 * 128 * 128 * 9, 7 * 2 * 128, 54 * 129]
    )


def test_labels_become_any_thing_and_stuff_in_order() -> None:
    network = models.create("panoptic_fpn", 5, **{**SMALL, "things": [3, 0], "semantic_channels": 16})
    assert network.channel_of[[0, 1, 2, 3, 4, 255]].tolist() == [0, 1, 2, 0, 3, 255]
    assert network.place_of.tolist() == [1, -1, -1, 0, -1]


def test_the_semantic_loss_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 8, 8), 255)
    assert float(semantic_loss(logits, labels)) == 0.0
    labels[0, 2, 3], labels[1, 7, 7] = 1, 2
    log = logits.log_softmax(1)
    assert float(semantic_loss(logits, labels)) == pytest.approx(-float(log[0, 1, 2, 3] + log[1, 2, 7, 7]) / 2, rel=1e-5)


def test_losses_carry_their_weights() -> None:
    losses = []
    for weights in ((1.0, 1.0), (2.0, 0.25)):
        network = small(instance_weight=weights[0], semantic_weight=weights[1]).train()
        torch.manual_seed(3)
        found = network(torch.stack([image for image, _ in PAIRS]), [PAIRS[0][1], empty()])
        losses.append({name: float(loss.detach()) for name, loss in found.items()})
    plain, weighted = losses
    for name, value in plain.items():
        assert weighted[name] == pytest.approx(value * (0.25 if name == "semantic" else 2.0), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "told"), [({"semantic_channels": 40}, "multiple of 32"), ({"things": []}, "one or more"), ({"thing": 1}, "thing")]
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told):
        small(**options)


# --- learning and runtimes ---------------------------------------------------------------------------------------------


def test_it_learns_two_pictures(trained: nn.Module) -> None:
    for image, target in PAIRS:
        found = answers(trained, image)
        for index, label in enumerate(target.classes.tolist()):
            row = int(np.flatnonzero(found["classes"][0] == label)[0])
            box = torch.from_numpy(found["boxes"][0, row])
            assert found["scores"][0, row] > 0.5
            assert iou(target.boxes[index][None], box[None]).item() > 0.8
            assert _mask_iou(found["masks"][0, row], box, target.masks[index]) > 0.8
        semantic = torch.from_numpy(found["semantic"])
        full = nn.functional.interpolate(semantic, size=SIZE, mode="bilinear").argmax(1)[0]
        truth = torch.tensor([1, 2, 0, 0])[target.labels]
        assert (full == truth).float().mean() > 0.95


def _mask_iou(probability: np.ndarray, box: Tensor, truth: Tensor) -> float:
    """The row's mask, read at the centre of each pixel, against the truth (H, W)."""
    rows, columns = torch.meshgrid(*(torch.arange(size) + 0.5 for size in SIZE), indexing="ij")
    x, y = (2 * (place - box[axis]) / (box[axis + 2] - box[axis]) - 1 for axis, place in ((0, columns), (1, rows)))
    grid = torch.stack([x, y], -1)[None]
    mask = nn.functional.grid_sample(torch.from_numpy(probability)[None, None], grid, align_corners=False)[0, 0] > 0.5
    return float((mask & (truth > 0)).sum() / (mask | (truth > 0)).sum())


@pytest.fixture(scope="module")
def graph(trained: nn.Module) -> Any:
    return to_onnx(trained, (1, 3, *SIZE), "image", NAMES, dynamic=False)


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_runtimes_agree_box_by_box(trained: nn.Module, graph: Any, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="needs the openvino extra")
    for image, _ in PAIRS:
        check_same(run(graph, image[None].numpy(), runtime), answers(trained, image))


def test_the_graph_has_fixed_shapes_and_no_operator_with_a_size_of_its_own(graph: Any) -> None:
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & {"NonMaxSuppression", "NonZero", "Loop", "If", "Compress", "Unique"}
    shapes = [tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim) for item in graph.graph.output]
    assert shapes == [(1, 8, 4), (1, 8), (1, 8), (1, 8, 28, 28), (1, 3, SIZE[0] // 4, SIZE[1] // 4)]
    assert sum(node.domain == "edgeseg" for node in graph.graph.node) == 2  # boxes and masks


def test_int8_finds_the_same_objects(trained: nn.Module, graph: Any) -> None:
    prepared = prepare(graph, keep_domains=("edgeseg",))
    frames = [{"image": image[None].numpy()} for image, _ in PAIRS]
    ranges = collect(prepared, frames)
    for profile in ("x86", "tensorrt"):
        quantized = quantize(prepared, ranges, profile)
        for image, _ in PAIRS:
            found, wanted = run(quantized, image[None].numpy(), "ort"), answers(trained, image)
            sure = wanted["scores"][0] > 0.9
            assert found["classes"][0, : sure.sum()].tolist() == wanted["classes"][0, sure].tolist()
            assert np.abs(found["boxes"][0, : sure.sum()] - wanted["boxes"][0, sure]).max() < 3


def test_half_precision_keeps_boxes_exact(trained: nn.Module, graph: Any) -> None:
    half = to_half(to_primitive(prepare(graph, keep_domains=("edgeseg",))))
    for image, _ in PAIRS:
        found, wanted = run(half, image[None].numpy(), "ort"), answers(trained, image)
        sure = wanted["scores"][0] > 0.5
        assert found["classes"][0, : sure.sum()].tolist() == wanted["classes"][0, sure].tolist()
        assert np.abs(found["boxes"][0, : sure.sum()] - wanted["boxes"][0, sure]).max() < 0.5


def test_tensorrt_rtx_builds_it(graph: Any, tmp_path: Path) -> None:
    assert build(to_primitive(prepare(graph, keep_domains=("edgeseg",))), tmp_path, ("SM86",)).size > 0
