"""Mask, Faster and Keypoint R-CNN: counts, names, fixed shapes, losses, learning, and torchvision where it is to be had."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="networks need the train extra")

from torch import Tensor, nn  # noqa: E402

from edgeseg import models  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export.torch_onnx import to_onnx  # noqa: E402
from edgeseg.models.detection.boxes import iou  # noqa: E402
from edgeseg.models.detection.fpn import FrozenBatchNorm  # noqa: E402
from edgeseg.models.targets import Target  # noqa: E402
from tests.models.detected import SIZE, SMALL, empty, overfit, picture, run  # noqa: E402
from tests.models.detection_reference import detection  # noqa: E402

KINDS: list[tuple[str, dict[str, Any]]] = [("mask_rcnn", {}), ("faster_rcnn", {}), ("keypoint_rcnn", {"num_keypoints": 2})]


def small(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, 4, **{**SMALL, "things": [2, 3], **options})


# --- what it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "options", "parameters"),
    [
        # torchvision counts background: 91, 91 and 2 classes. The batch normalisation of its trained models is frozen.
        ("mask_rcnn", 90, {}, 44_401_393),
        ("faster_rcnn", 90, {}, 41_755_286),
        ("keypoint_rcnn", 1, {"num_keypoints": 17}, 59_137_258),
    ],
)
def test_parameter_counts_are_torchvisions(name: str, classes: int, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = models.create(name, classes, frozen_bn=True, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def names_of(masks: bool, points: bool) -> set[str]:
    """torchvision's names beyond the ResNet's."""
    layers = [f"backbone.fpn.{kind}.{level}.0" for kind in ("inner_blocks", "layer_blocks") for level in range(4)]
    layers += ["rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred"]
    layers += [
        f"roi_heads.{name}" for name in ("box_head.fc6", "box_head.fc7", "box_predictor.cls_score", "box_predictor.bbox_pred")
    ]
    if masks:
        layers += [f"roi_heads.mask_head.{index}.0" for index in range(4)]
        layers += ["roi_heads.mask_predictor.conv5_mask", "roi_heads.mask_predictor.mask_fcn_logits"]
    if points:
        layers += [f"roi_heads.keypoint_head.{index}" for index in range(0, 16, 2)]
        layers.append("roi_heads.keypoint_predictor.kps_score_lowres")
    return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_names_are_torchvisions(name: str, options: dict[str, Any]) -> None:
    state = small(name, **options).state_dict()
    body = {item for item in state if item.startswith("backbone.body.")}
    assert {"backbone.body.conv1.weight", "backbone.body.layer4.1.bn2.running_var"} <= body
    assert set(state) - body == names_of(name == "mask_rcnn", name == "keypoint_rcnn")


def test_frozen_batch_norm_has_the_same_names_and_does_not_move() -> None:
    plain, frozen = small("faster_rcnn").eval(), small("faster_rcnn", frozen_bn=True)
    counters = {name for name in plain.state_dict() if name.endswith("num_batches_tracked")}
    assert set(frozen.state_dict()) == set(plain.state_dict()) - counters
    frozen.load_state_dict({name: value for name, value in plain.state_dict().items() if name not in counters})
    assert isinstance(frozen.backbone.body.bn1, FrozenBatchNorm)
    x = torch.randn(1, 3, *SIZE)
    before = {name: value.clone() for name, value in frozen.named_buffers()}
    for one, other in zip(frozen.train().backbone(x), plain.backbone(x), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in frozen.named_buffers())


def test_levels_have_the_papers_strides() -> None:
    levels = small("faster_rcnn").backbone(torch.zeros(2, 3, 128, 192))
    assert [tuple(level.shape) for level in levels] == [(2, 32, 128 // s, 192 // s) for s in (4, 8, 16, 32, 64)]


# --- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_outputs_have_fixed_shapes_and_rows_of_nothing_are_marked(name: str, options: dict[str, Any], pooling: str) -> None:
    network = small(name, pooling=pooling, score_threshold=0.34, **options).eval()
    assert models.task_of(network) == {"mask_rcnn": "instance", "faster_rcnn": "detection"}.get(name, "keypoint")
    more = {"mask_rcnn": [(1, 8, 28, 28)], "keypoint_rcnn": [(1, 8, 2, 3)]}.get(name, [])
    for height, width in (SIZE, (37, 51)):
        with torch.inference_mode():
            boxes, scores, classes, *rest = network(torch.randn(1, 3, height, width))
        assert [tuple(item.shape) for item in (boxes, scores, classes, *rest)] == [(1, 8, 4), (1, 8), (1, 8), *more]
        assert classes.dtype == torch.int64
        nothing = classes[0] < 0
        assert set(classes[0, ~nothing].tolist()) <= {2, 3}
        assert (scores[0].diff() <= 0).all()
        assert (scores[0, ~nothing] > 0.34).all()
        assert not any(item[0, nothing].any() for item in (boxes, scores, *rest))
        assert boxes.min() >= 0
        assert boxes[..., 2].max() <= width
        assert boxes[..., 3].max() <= height


def test_fewer_candidates_than_detections_are_filled_up() -> None:
    network = small("faster_rcnn", candidates=3, detections=5).eval()
    with torch.inference_mode():
        boxes, _, classes = network(torch.randn(1, 3, *SIZE))
    assert boxes.shape == (1, 5, 4)
    assert classes[0, 3:].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone": "vgg16"}, "resnet50"),
        ({"anchor_sizes": [8, 16]}, "one for each of 5 levels"),
        ({"pooling": "sum"}, "avg or max"),
        ({"detections": 0}, "at least 1"),
        ({"nms_threshold": 1.5}, "a share"),
        ({"things": [9]}, "indices of 4 classes"),
        ({"things": []}, "one or more"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EdgesegError, match=told) as caught:
        small("mask_rcnn", **options)
    assert "\n" not in str(caught.value)


def test_several_pictures_and_missing_truth_are_refused() -> None:
    network = small("faster_rcnn")
    with pytest.raises(EdgesegError, match="use batch 1"):
        network.eval()(torch.zeros(2, 3, *SIZE))
    with pytest.raises(EdgesegError, match="without targets"):
        network.train()(torch.zeros(2, 3, *SIZE))


# --- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_losses_are_finite_reach_every_weight_and_repeat_under_a_seed(name: str, options: dict[str, Any], pooling: str) -> None:
    network = small(name, pooling=pooling, **options).train()
    pairs = [picture(0), picture(1)]
    x, targets = torch.stack([image for image, _ in pairs]), [pairs[0][1], empty()]
    totals = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        network.zero_grad()
        losses = network(x, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        totals.append(float(total.detach()))
    assert {"objectness", "rpn_boxes", "classes", "boxes"} <= set(losses)
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    assert totals[0] != totals[2]
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()] == []


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_pictures_without_objects_train(name: str, options: dict[str, Any]) -> None:
    network = small(name, **options).train()
    losses = network(torch.randn(2, 3, *SIZE), [empty(), empty(None)])
    torch.stack(list(losses.values())).sum().backward()
    nothing = {key: float(loss.detach()) for key, loss in losses.items() if key not in ("objectness", "classes")}
    assert set(nothing.values()) == {0.0}
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


def test_crowd_regions_are_no_background_and_no_object() -> None:
    network = small("mask_rcnn", roi_samples=10_000, rpn_samples=100_000).train()
    image, target = picture(0)
    everything = torch.tensor([[0.0, 0, SIZE[1], SIZE[0]]])
    crowd = Target(
        everything, torch.tensor([2]), torch.ones((1, *SIZE), dtype=torch.uint8), torch.tensor([True]), target.labels, None
    )
    losses = network(image[None].repeat(2, 1, 1, 1), [crowd, crowd])
    # Anchors that lie half outside of the picture are all that is left to be background.
    assert not any(losses[name].detach() for name in ("classes", "boxes", "masks", "rpn_boxes"))


def test_it_learns_two_pictures_and_runtimes_find_the_same_points_by_standard_operators() -> None:
    network = small("keypoint_rcnn", num_keypoints=2)
    pairs = [picture(0), picture(1)]
    overfit(network, pairs, steps=80)
    names = ("boxes", "scores", "classes", "keypoints")
    model = to_onnx(network, (1, 3, *SIZE), "image", names, dynamic=False, operators="standard")
    assert not model.functions
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert sum(node.op_type == "RoiAlign" for node in model.graph.node) == 8  # one a level, boxes and keypoints
    for image, target in pairs:
        with torch.inference_mode():
            boxes, scores, classes, points = (item[0] for item in network(image[None]))
        for index, label in enumerate(target.classes):
            row = int((classes == label).nonzero()[0])
            assert scores[row] > 0.5
            assert iou(target.boxes[index : index + 1], boxes[row : row + 1]).item() > 0.8
            assert target.keypoints is not None
            assert (points[row, :, :2] - target.keypoints[index, :, :2]).abs().max() < 3
        for runtime in ("ort", "openvino"):
            if runtime == "openvino":
                pytest.importorskip("openvino", reason="needs the openvino extra")
            found = run(model, image[None].numpy(), runtime)
            assert found["classes"].tolist() == [classes.tolist()]
            assert abs(found["scores"][0] - scores.numpy()).max() < 1e-4
            assert abs(found["keypoints"][0] - points.numpy()).max() < 1e-2


# --- torchvision -------------------------------------------------------------------------------------------------------


ROWS: dict[str, Any] = {"nms_rounds": 64, "post_nms": 120, "pre_nms": 300, "score_threshold": 0.3, "detections": 12}


def pair(name: str, **options: Any) -> tuple[nn.Module, Any]:
    """Ours and torchvision's with the same random weights, wide enough apart that scores are no ties; three classes."""
    theirs = {"mask_rcnn": "maskrcnn", "faster_rcnn": "fasterrcnn", "keypoint_rcnn": "keypointrcnn"}[name]
    torch.manual_seed(0)
    ours = models.create(name, 3, **{**ROWS, **options})
    for key, weight in ours.named_parameters():
        if key.startswith(("rpn.head", "roi_heads.box_predictor")):
            nn.init.normal_(weight, std=0.02 if "bbox" in key else 0.1)
    settings = {"num_keypoints": 17} if name == "keypoint_rcnn" else {}
    reference = getattr(detection(), f"{theirs}_resnet50_fpn")(
        weights=None, weights_backbone=None, num_classes=4, rpn_post_nms_top_n_test=120, rpn_pre_nms_top_n_test=300,
        box_detections_per_img=12, box_score_thresh=0.3, **settings,
    )  # fmt: skip
    reference.load_state_dict(ours.state_dict())
    return ours.eval(), reference.eval()


def scaled(levels: list[Tensor]) -> list[Tensor]:
    """Features of a magnitude at which random heads are neither flat nor saturated."""
    return [level / level.std() for level in levels]


@pytest.mark.parametrize("name", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
@torch.inference_mode()
def test_every_stage_agrees_with_torchvision(name: str) -> None:
    ours, theirs = pair(name)
    x = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(2))
    features = theirs.backbone(x)
    levels = ours.backbone(x)
    for one, other in zip(levels, features.values(), strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
    levels = scaled(levels)
    features = dict(zip(features, levels, strict=True))
    images = as_images(x)
    wanted, _ = theirs.rpn(images, features)
    boxes, scores, _ = ours.rpn(levels, 128, 192)
    found = boxes[0][scores[0] >= 0]
    assert found.shape == wanted[0].shape
    # Proposals of equal score may come in another order.
    apart = (found[:, None] - wanted[0]).abs().amax(2)
    for axis in (0, 1):
        assert apart.amin(axis).max() < 1e-2
    rows, _ = theirs.roi_heads(features, wanted, images.image_sizes)
    result = ours.roi_heads.detect(levels, wanted[0], torch.ones(len(wanted[0])), 128, 192)
    count = int(result.valid.sum())
    assert count == len(rows[0]["boxes"]) > 2
    assert (result.boxes[:count] - rows[0]["boxes"]).abs().max() < 1e-2
    assert (result.scores[:count] - rows[0]["scores"]).abs().max() < 1e-4
    assert torch.equal(result.classes[:count] + 1, rows[0]["labels"])
    if name == "mask_rcnn":
        masks = ours.roi_heads.masks_of(levels, result)[:count]
        assert (masks - rows[0]["masks"][:, 0]).abs().max() < 1e-4
    if name == "keypoint_rcnn":
        heads = theirs.roi_heads
        pooled = heads.keypoint_roi_pool(features, [result.boxes], images.image_sizes)
        maps = heads.keypoint_predictor(heads.keypoint_head(pooled))
        assert (ours.roi_heads.keypoint_logits(levels, [result.boxes]) - maps).abs().max() <= 1e-4 * maps.abs().max()


def as_images(x: Tensor) -> Any:
    """A batch as torchvision's stages want it."""
    from torchvision.models.detection.image_list import ImageList

    return ImageList(x, [tuple(x.shape[-2:])] * len(x))


def test_losses_agree_with_torchvision_where_every_box_is_sampled() -> None:
    ours, theirs = pair("keypoint_rcnn", rpn_samples=10**6, roi_samples=10**6, train_pre_nms=300, train_post_nms=120)
    theirs.rpn._pre_nms_top_n = {"training": 300, "testing": 300}
    theirs.rpn._post_nms_top_n = {"training": 120, "testing": 120}
    theirs.rpn.fg_bg_sampler.batch_size_per_image = theirs.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
    boxes = torch.tensor([[10.0, 12, 70, 90], [60, 30, 150, 110], [100, 5, 130, 60]])
    points = torch.rand(3, 17, 3, generator=torch.Generator().manual_seed(4)) * 90
    points[..., 2] = (points[..., 2] > 30).float()
    labels = torch.tensor([0, 2, 1])
    nothing = torch.zeros(3, dtype=torch.bool)
    masks = torch.zeros((3, 128, 192), dtype=torch.uint8)
    target = Target(boxes, labels, masks, nothing, torch.zeros(128, 192, dtype=torch.int64), points)
    x = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        levels = scaled(ours.backbone(x))
        found = ours.train().detection_losses(levels, [target], 128, 192)
        truth = [{"boxes": boxes, "labels": labels + 1, "keypoints": points}]
        images = as_images(x)
        features = dict(zip(("0", "1", "2", "3", "pool"), levels, strict=True))
        proposals, first = theirs.train().rpn(images, features, truth)
        _, second = theirs.roi_heads(features, proposals, images.image_sizes, truth)
    wanted = first | second
    for name, theirs_name in (
        ("objectness", "loss_objectness"), ("rpn_boxes", "loss_rpn_box_reg"), ("classes", "loss_classifier"),
        ("boxes", "loss_box_reg"), ("keypoints", "loss_keypoint"),
    ):  # fmt: skip
        assert float(found[name]) == pytest.approx(float(wanted[theirs_name]), rel=1e-4), name
