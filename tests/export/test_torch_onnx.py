"""Export of every architecture: standard nodes, parity with PyTorch, names, half-stored weights, and what is refused."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="export needs the train extra")
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg import models
from edgeseg.errors import EdgesegError, OnnxError
from edgeseg.export import torch_onnx
from edgeseg.export.parity import Case, check_parity
from edgeseg.export.torch_onnx import export_folder, to_onnx
from edgeseg.folder import ModelFolder
from edgeseg.manifest import Architecture, ClassInfo, InputSpec, Manifest
from edgeseg.models.segnet import _even
from edgeseg.models.weights import load_network
from edgeseg.ops.pytorch.max_pool import max_pool_argmax, max_pool_indices, max_unpool, max_unpool_codes
from edgeseg.ops.pytorch.roi_align import roi_align
from edgeseg.ops.pytorch.upsample_argmax import upsample_argmax

HEIGHT, WIDTH = 32, 48
RESIDUAL = {"widths": [4, 8, 8, 8], "depths": [0, 1, 1, 2], "block": "residual", "stem_stride": 2, "upsample": "bilinear"}
DEEPLAB = {"width": 16, "low_width": 8}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_folder(path: Path, name: str, options: dict[str, Any]) -> ModelFolder:
    """A model folder with a network of random weights, batch statistics and, where they start at zero, scores."""
    torch.manual_seed(0)
    network = models.create(name, num_classes=4, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
        elif isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
    path.mkdir()
    classes = [ClassInfo(name=f"class {index}", colour=(index, 0, 0)) for index in range(4)]
    spec = InputSpec(width=WIDTH, height=HEIGHT, mean=(0.5,) * 3, std=(0.2,) * 3)
    Manifest(name="net", classes=classes, input=spec, architecture=Architecture(name=name, options=options)).save(
        path / "model.json"
    )
    save_file(network.state_dict(), path / "model.safetensors")
    folder = ModelFolder(path)
    folder.register("model.safetensors")
    return folder


def operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def state_names(folder: ModelFolder) -> set[str]:
    names = load_network(folder).state_dict()
    return {name for name in names if not name.endswith("num_batches_tracked") and not name.startswith("auxiliary")}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {"fc_channels": 64}),
        ("deeplab_v3_plus", {"backbone": "resnet18", **DEEPLAB}),
        ("deeplab_v3_plus", {"backbone": "mobilenet_v2", **DEEPLAB}),
        ("unet", {"widths": [4, 8, 8]}),
        ("unet", {**RESIDUAL, "deep_supervision": True}),
        ("segnet", {}),
    ],
)
def test_every_architecture(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    folder = make_folder(tmp_path / "net", name, options)
    manifest = export_folder(folder)
    parity = manifest.parity
    assert parity is not None
    assert folder.manifest.parity == parity
    assert parity.max_abs <= parity.tolerance_abs
    assert parity.argmax_agreement >= 0.999
    assert parity.shapes == [(1, 3, HEIGHT, WIDTH)]
    graph = onnx.load(folder.require("model.onnx", "export"))
    ours = {"edgeseg": 1} if name == "segnet" else {}
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": parity.opset, **ours}
    assert parity.opset <= 21
    assert {function.name for function in graph.functions} == ({"MaxPoolArgmax", "MaxUnpool"} if ours else set())
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == (manifest.input.name, manifest.output.name)
    assert state_names(folder) <= {item.name for item in graph.graph.initializer}
    found = operators(graph)
    assert not [kind for kind in found if kind.startswith(("Scatter", "Gather"))]
    if name == "segnet":
        assert found["MaxPoolArgmax"] == found["MaxUnpool"] == 5
        assert not found["MaxPool"]


@pytest.mark.parametrize(("name", "options"), [("unet", {"widths": [4, 8, 8]}), ("deeplab_v3_plus", DEEPLAB)])
def test_dynamic_graphs_take_sizes_they_were_not_traced_with(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    folder = make_folder(tmp_path / "net", name, options)
    manifest = export_folder(folder, dynamic=True)
    assert manifest.input.dynamic
    assert manifest.parity is not None
    assert manifest.parity.shapes == [(1, 3, HEIGHT, WIDTH), (2, 3, HEIGHT // 2 + 33, WIDTH // 2 + 47)]
    network, graph = load_network(folder), onnx.load(folder.graph)
    cases = [torch_onnx._case(network, "image", shape, 5) for shape in ((1, 3, 35, 53), (3, 3, 40, 40))]
    assert check_parity(graph, cases, 18).max_abs <= 1e-3


class PoolAndUnpool(nn.Module):
    """Two levels of SegNet's way down and up; five take the tracer half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        x = torch.relu(self.down(x))
        for _ in range(2):
            size = x.shape[-2:]
            x, indices = max_pool_indices(_even(x), 2, 2)
            kept.append((indices, size))
        for indices, (height, width) in reversed(kept):
            x = max_unpool(x, indices, 2 * x.shape[-2], 2 * x.shape[-1])[..., :height, :width]
        y: Tensor = self.up(x)
        return y


@pytest.mark.parametrize("written_as", ["edgeseg", "standard"])
def test_dynamic_unpooling_at_odd_sizes_and_other_batches(written_as: str) -> None:
    torch.manual_seed(0)
    network = PoolAndUnpool().eval()
    graph = to_onnx(network, (1, 3, HEIGHT, WIDTH), "image", "logits", True, written_as)
    found = operators(graph)
    assert found["MaxUnpool"] == found["MaxPoolArgmax" if written_as == "edgeseg" else "MaxPool"] == 2
    assert {node.domain for node in graph.graph.node} == ({"", "edgeseg"} if written_as == "edgeseg" else {""})
    assert bool(graph.functions) == (written_as == "edgeseg")
    assert not [kind for kind in found if kind.startswith(("Scatter", "Gather"))]
    shapes = ((1, 3, HEIGHT, WIDTH), (3, 3, 35, 53), (2, 3, 9, 30), (4, 3, 10, 7))
    assert check_parity(graph, [torch_onnx._case(network, "image", shape, 1) for shape in shapes], 18).argmax_agreement == 1


class Windows(nn.Module):
    """Pooling and unpooling by codes, twice: two windows, so two functions of each operator."""

    def forward(self, x: Tensor) -> Tensor:
        for kernel, stride, pads in (([3, 3], [2, 2], [1, 1, 1, 1]), ([2, 3], [2, 3], [0, 0, 0, 0])):
            size = [x.shape[2], x.shape[3]]
            y, codes = max_pool_argmax(x, kernel, stride, pads)
            x = max_unpool_codes(y, codes, kernel, stride, pads, size)
        return x


@pytest.mark.parametrize("written_as", ["edgeseg", "standard"])
def test_codes_are_written_as_functions_or_inlined(written_as: str) -> None:
    network = Windows().eval()
    graph = to_onnx(network, (1, 3, HEIGHT, WIDTH), "image", "logits", False, written_as)
    names = [node.op_type for node in graph.graph.node if node.domain == "edgeseg"]
    twice = ["MaxPoolArgmax", "MaxUnpool", "MaxPoolArgmax_2", "MaxUnpool_2"]
    assert names == (twice if written_as == "edgeseg" else [])
    assert sorted(function.name for function in graph.functions) == sorted(names)
    assert check_parity(graph, [torch_onnx._case(network, "image", (1, 3, HEIGHT, WIDTH), 2)], 18).max_abs == 0


class Boxes(nn.Module):
    """Features of fixed boxes from two levels."""

    def __init__(self) -> None:
        super().__init__()
        corners = [[1.0, 2, 9, 12], [0, 0, 47, 31], [20, 5, 30.5, 29], [40, 25, 60, 40]]
        self.register_buffer("rois", torch.tensor(corners))
        self.register_buffer("images", torch.zeros(4, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        levels = [x, nn.functional.avg_pool2d(x, 2)]
        y: Tensor = roi_align(self.rois, self.images, levels, 3, 5, 2, "avg", True, [1.0, 0.5], 16.0, 0)
        return y


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("written_as", ["edgeseg", "standard"])
def test_boxes_of_a_pyramid(written_as: str, dynamic: bool) -> None:
    network = Boxes().eval()
    graph = to_onnx(network, (1, 3, HEIGHT, WIDTH), "image", "logits", dynamic, written_as)
    assert [node.op_type for node in graph.graph.node if node.domain] == (["RoIAlign"] if written_as == "edgeseg" else [])
    shapes = [(1, 3, HEIGHT, WIDTH), (2, 3, 21, 50)] if dynamic else [(1, 3, HEIGHT, WIDTH)]
    assert check_parity(graph, [torch_onnx._case(network, "image", shape, 4) for shape in shapes], 18).max_abs < 1e-4


class Labels(nn.Module):
    """A network that ends in labels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        labels: Tensor = upsample_argmax(x[:, : self.classes], [2 * HEIGHT, 3 * WIDTH], False, 0.25)
        return labels


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("written_as", ["edgeseg", "standard"])
def test_labels_are_an_output_too(written_as: str, classes: int) -> None:
    network = Labels(classes).eval()
    graph = to_onnx(network, (1, 3, HEIGHT, WIDTH), "image", "labels", False, written_as)
    assert [node.op_type for node in graph.graph.node if node.domain] == (["UpsampleArgmax"] if written_as == "edgeseg" else [])
    case = torch_onnx._case(network, "image", (1, 3, HEIGHT, WIDTH), 3)
    assert case.expected.dtype == np.uint8
    assert check_parity(graph, [case], 18).max_abs < 1e-3
    wrong = Case(case.feeds, (case.expected + 1) % 3)
    with pytest.raises(OnnxError, match="argmax agreement"):
        check_parity(graph, [wrong], 18)


def test_a_size_that_follows_from_a_dynamic_input_is_refused() -> None:
    with pytest.raises(EdgesegError, match="export failed"):
        to_onnx(Windows().eval(), (1, 3, HEIGHT, WIDTH), "image", "logits", True)


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(EdgesegError, match="one of edgeseg, standard"):
        to_onnx(Windows().eval(), (1, 3, HEIGHT, WIDTH), "image", "logits", False, "theirs")


def test_half_weights_halve_the_file_and_keep_the_names(tmp_path: Path) -> None:
    options = {**RESIDUAL, "widths": [16, 32, 32, 32]}
    folder = make_folder(tmp_path / "net", "unet", options)
    whole = export_folder(folder).files["model.onnx"].bytes
    manifest = export_folder(folder, half_weights=True)
    assert manifest.files["model.onnx"].bytes < 0.6 * whole
    assert manifest.parity is not None
    assert manifest.parity.max_abs <= manifest.parity.tolerance_abs
    stored = {item.name: item.data_type for item in onnx.load(folder.graph).graph.initializer}
    assert state_names(folder) <= set(stored)
    assert {stored[name] for name in state_names(folder) if name.endswith("conv1.0.weight")} == {onnx.TensorProto.FLOAT16}
    # The graph alone brings the network back, rounded.
    (folder.path / "model.safetensors").unlink()
    folder.update(files={"model.onnx": manifest.files["model.onnx"]})
    original = make_folder(tmp_path / "again", "unet", options)
    for (name, found), want in zip(
        load_network(folder).state_dict().items(), load_network(original).state_dict().values(), strict=True
    ):
        assert torch.equal(found, want.half().float() if want.ndim > 1 else want), name


# --- what is refused ---------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """A 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


@pytest.fixture(scope="module")
def tiny() -> tuple[onnx.ModelProto, Case]:
    torch.manual_seed(0)
    network = Tiny().eval()
    return to_onnx(network, (1, 3, 8, 8), "image", "logits", False), torch_onnx._case(network, "image", (1, 3, 8, 8), 0)


def test_parity_of_a_right_graph(tiny: tuple[onnx.ModelProto, Case]) -> None:
    model, case = tiny
    parity = check_parity(model, [case, case], 18)
    assert parity.max_abs < 1e-5
    assert parity.shapes == [(1, 3, 8, 8)] * 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda y: y + 0.01, "max abs error"),
        (lambda y: y[:, :, :4], "output of shape"),
        (lambda y: y * np.nan, "not finite"),
        (lambda y: y[:, ::-1], "argmax agreement"),
    ],
)
def test_parity_of_a_wrong_graph(tiny: tuple[onnx.ModelProto, Case], change: Any, told: str) -> None:
    model, case = tiny
    with pytest.raises(OnnxError, match=told):
        check_parity(model, [case, Case(case.feeds, np.ascontiguousarray(change(case.expected)))], 18)


def test_one_case_far_off_is_not_hidden_by_the_scale_of_another(tiny: tuple[onnx.ModelProto, Case]) -> None:
    model, case = tiny
    large = {"image": case.feeds["image"] * 1e4}
    first = Case(large, check_output(model, large))
    with pytest.raises(OnnxError, match="max abs error"):
        check_parity(model, [first, Case(case.feeds, case.expected + 0.01)], 18)


def check_output(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def test_a_graph_that_does_not_run(tiny: tuple[onnx.ModelProto, Case]) -> None:
    model, case = tiny
    with pytest.raises(OnnxError, match="cannot run the graph") as caught:
        check_parity(model, [Case({"image": np.zeros((1, 3, 9, 9), np.float32)}, case.expected)], 18)
    assert "\n" not in str(caught.value)


def test_outside_tolerance_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: tuple[onnx.ModelProto, Case]
) -> None:
    folder = make_folder(tmp_path / "net", "unet", {"widths": [4, 4]})
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name != ".lock"}
    monkeypatch.setattr(torch_onnx, "to_onnx", lambda *_: tiny[0])  # another network's graph
    with pytest.raises(EdgesegError):
        export_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name != ".lock"} == before


def test_a_network_that_cannot_be_traced() -> None:
    class Branches(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(EdgesegError, match="export failed") as caught:
        to_onnx(Branches(), (1, 3, 8, 8), "image", "logits", False)
    assert "\n" not in str(caught.value)


def test_weights_beyond_half_precision(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "net", "unet", {"widths": [4, 4]})
    state = load_network(folder).state_dict()
    state["classifier.weight"] *= 1e7
    save_file(state, folder.weights)
    folder.register("model.safetensors")
    with pytest.raises(EdgesegError, match=r"classifier\.weight.*65504"):
        export_folder(folder, half_weights=True)
    assert not folder.graph.exists()


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "net", "unet", {"widths": [4, 4]})
    folder.update(files={})
    with pytest.raises(EdgesegError, match=r"no model\.onnx"):
        export_folder(folder)


def test_a_read_only_folder_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "net", "unet", {"widths": [4, 4]})

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(torch_onnx, "load_network", lambda _: pytest.fail("worked before it looked at the folder"))
    with pytest.raises(EdgesegError, match=r"Read-only.*can be written"):
        export_folder(folder)
