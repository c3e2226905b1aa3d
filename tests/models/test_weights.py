"""Weights from files: what loads, what is refused, and what the refusal says."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="weights need the train extra")
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from edgeseg import models
from edgeseg.errors import EdgesegError
from edgeseg.folder import ModelFolder, open_folder
from edgeseg.manifest import Architecture
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.weights import load_network, load_state, load_weights, read_state
from tests.tiny_model import tiny_folder

UNET = {"widths": [4, 4, 8]}


class Trap:
    """Creates the directory ``path`` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def unet() -> torch.nn.Module:
    return models.create("unet", 3, **UNET)


def deeplab() -> torch.nn.Module:
    return models.create("deeplab_v3_plus", 3, backbone="resnet18", width=8, low_width=8)


# --- 5: code in pickles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle 2", "bare pickle 4"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    document = {"w": torch.zeros(2), "trap": Trap(sprung)}
    if form.startswith("bare"):
        path.write_bytes(pickle.dumps({"trap": Trap(sprung)}, protocol=int(form[-1])))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(EdgesegError, match="--trust") as caught:
        read_state(path)
    assert "could run code" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not sprung.exists()


def test_trust_runs_it(tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    torch.save({"w": torch.ones(2), "trap": Trap(sprung)}, path)
    assert read_state(path, trust=True)["w"].tolist() == [1, 1]
    assert sprung.exists()


# --- 6: damaged files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    state = {"a.weight": torch.randn(40, 40), "b": torch.arange(5)}
    if kind == "safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    data = whole.read_bytes()
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    for length in (0, 1, 9, 100, len(data) // 2, len(data) - 40, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(EdgesegError, match=r"cut\.") as caught:
            read_state(path)
        assert "\n" not in str(caught.value)
        assert "--trust" not in str(caught.value)


@pytest.mark.parametrize("data", [b"hello world\n" * 9, bytes(range(256)) * 8, b"\x80\x02}q\x00.", b"\x80\x04\x95"])
def test_not_a_checkpoint(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise.pth"
    path.write_bytes(data)
    with pytest.raises(EdgesegError, match="noise"):
        read_state(path)


def test_missing(tmp_path: Path) -> None:
    for name in ("no.pth", "no.safetensors"):
        with pytest.raises(EdgesegError, match="no such file"):
            read_state(tmp_path / name)


def test_a_compressed_archive_is_a_bomb(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(EdgesegError, match="unpack to 40"):
        read_state(bomb)


def test_a_number_shown_as_a_huge_tensor(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    torch.save({"w": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(EdgesegError, match=r"weight 'w' .* less data"):
        read_state(path)


def test_no_tensors_or_unusual_ones(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    for document, told in (
        ({"epoch": 3}, "no tensors"),
        ([torch.zeros(2)], "no tensors"),
        ({"w": torch.eye(3).to_sparse()}, "sparse"),
        ({"w": torch.empty(3, device="meta")}, "without data"),
    ):
        torch.save(document, path)
        with pytest.raises(EdgesegError, match=told):
            read_state(path)


# --- 7: what does not fit ----------------------------------------------------------------------------------------


def test_differences_are_listed(tmp_path: Path) -> None:
    network, path = unet(), tmp_path / "w.safetensors"
    state = dict(network.state_dict())
    del state["stem.0.weight"]
    state["surplus"] = torch.zeros(1)
    state["classifier.bias"] = torch.zeros(7)
    save_file(state, path)
    with pytest.raises(EdgesegError) as caught:
        load_weights(network, path)
    text = str(caught.value)
    for part in ("1 missing (stem.0.weight)", "1 unknown (surplus)", "classifier.bias (7,) for (3,)", "w.safetensors"):
        assert part in text


def test_a_deeper_backbone_is_not_cut_to_fit(tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    torch.save(ResNet("resnet34").state_dict(), path)
    with pytest.raises(EdgesegError, match=r"layer1\.2\.conv1\.weight"):
        load_weights(deeplab(), path)


# --- 8: bad values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_tensor_with_bad_values_is_named(tmp_path: Path, value: float, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    state = {"good": torch.ones(3), "layer.bad": torch.tensor([1.0, value])}
    (save_file if suffix == "safetensors" else torch.save)(state, path)
    with pytest.raises(EdgesegError, match=r"layer\.bad"):
        read_state(path)


# --- what loads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module."])
def test_a_downloaded_backbone_loads_without_its_head(tmp_path: Path, wrap: str) -> None:
    path = tmp_path / "resnet18.pth"
    state = ResNet("resnet18").state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    if wrap == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({wrap: state, "epoch": 3} if wrap in ("state_dict", "model") else state, path)
    network = deeplab()
    head = network.classifier.weight.clone()
    load_weights(network, path)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, state[f"module.{name}" if wrap == "module." else name])
    assert torch.equal(network.classifier.weight, head)


def test_a_classifier_loads_into_a_detectors_pyramid(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    state = ResNet("resnet18").state_dict()
    torch.save(state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    detector = models.create("faster_rcnn", 2, backbone="resnet18", fpn_channels=16, box_channels=16)
    load_weights(detector, path)
    assert torch.equal(detector.backbone.body.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_old_checkpoints_have_no_batch_counters(tmp_path: Path) -> None:
    path = tmp_path / "vgg16_bn.safetensors"
    donor, network = models.create("segnet", 2), models.create("segnet", 2)
    state = {name: tensor for name, tensor in donor.backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state | {"classifier.0.weight": torch.zeros(8, 8)}, path)
    load_weights(network, path)
    assert torch.equal(network.backbone.features[0].weight, donor.backbone.features[0].weight)


def test_a_whole_network_in_half_precision(tmp_path: Path) -> None:
    path, donor, network = tmp_path / "w.pth", unet(), unet()
    torch.save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in donor.state_dict().items()}, path)
    load_weights(network, path)
    assert network.classifier.weight.dtype == torch.float32
    assert torch.equal(network.classifier.weight, donor.classifier.weight.half().float())


# --- model folders -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A folder whose graph holds a U-Net's weights as initialisers, those of two or more dimensions in FP16."""
    made = tiny_folder(tmp_path / "model", num_classes=3)
    torch.manual_seed(1)
    graph = onnx.load(made.graph)
    del graph.graph.initializer[:], graph.graph.node[:]
    for name, tensor in unet().state_dict().items():
        if not name.endswith("num_batches_tracked"):
            stored = tensor.half() if tensor.ndim > 1 else tensor
            graph.graph.initializer.append(numpy_helper.from_array(stored.numpy(), name))
    shape = numpy_helper.from_array(torch.tensor([1, 3, 8, 12]).numpy(), "shape")
    graph.graph.initializer.append(shape)
    graph.graph.node.append(
        helper.make_node("ConstantOfShape", ["shape"], ["logits"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]))
    )
    onnx.save(graph, made.graph)
    made.register("model.onnx", architecture=Architecture(name="unet", options=UNET))
    return made


def test_weights_come_from_the_graph_where_no_file_has_them(folder: ModelFolder) -> None:
    torch.manual_seed(1)
    expected = unet().state_dict()
    state = load_state(folder)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    network = load_network(folder)
    assert not network.training
    for name, tensor in network.state_dict().items():
        want = expected[name]
        assert torch.equal(tensor, want.half().float() if want.ndim > 1 else want)


def test_an_incomplete_graph_is_told(folder: ModelFolder) -> None:
    graph = onnx.load(folder.graph)
    dropped = next(item for item in graph.graph.initializer if item.name == "classifier.weight")
    graph.graph.initializer.remove(dropped)
    onnx.save(graph, folder.graph)
    folder.register("model.onnx")
    with pytest.raises(EdgesegError, match=r"1 missing \(classifier\.weight\)"):
        load_network(folder)


def test_an_adopted_model_has_no_network(tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match="adopted from ONNX"):
        load_network(tiny_folder(tmp_path / "tiny"))


def test_weights_that_were_swapped_are_refused(folder: ModelFolder) -> None:
    save_file(unet().state_dict(), folder.weights)
    folder.register("model.safetensors")
    save_file({name: tensor + 1 for name, tensor in unet().state_dict().items()}, folder.weights)
    with pytest.raises(EdgesegError, match="sha256"):
        load_network(folder)
    os.truncate(folder.weights, 100)
    with pytest.raises(EdgesegError, match="100 bytes"):
        load_network(folder)


def test_a_shipped_model_is_a_start_for_training() -> None:
    options = folder_options("streets")
    network = models.create("unet", num_classes=11, **options)
    load_weights(network, "streets")
    shipped = load_network(open_folder("streets"))
    image = torch.randn(1, 3, 64, 96)
    assert torch.equal(network.eval()(image), shipped(image))
    with pytest.raises(EdgesegError, match="of another shape"):
        load_weights(models.create("unet", num_classes=5, **options), "streets")


def folder_options(name: str) -> dict:
    """The network's options as the model's manifest has them."""
    architecture = open_folder(name).manifest.architecture
    assert architecture is not None
    return architecture.options
