"""The sliding-window classifier: one run over the picture gives what one run a window would give."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the train extra")
import torch

from edgeseg.errors import EdgesegError
from edgeseg.export.parity import check_parity
from edgeseg.export.torch_onnx import _case, to_onnx
from edgeseg.models.patch_classifier import PatchClassifier, draw_pixels, mirror
from edgeseg.models.targets import Target


def small(**options: object) -> PatchClassifier:
    torch.manual_seed(0)
    return PatchClassifier(5, (6, 6, 8), (4, 3, 3), 16, **options).eval()  # type: ignore[arg-type]


def test_the_published_window_and_size() -> None:
    with torch.device("meta"):
        network = PatchClassifier(2)
    assert network.patch == 95
    # 3*48*16+48, 48*48*25+48, twice 48*48*16+48, 48*200*9+200, 200*2+2
    assert sum(p.numel() for p in network.parameters()) == 2352 + 57_648 + 2 * 36_912 + 86_600 + 402


@torch.inference_mode()
def test_scores_are_those_of_the_sliding_window() -> None:
    network = small()
    x = torch.randn(1, 3, 23, 31)
    whole = network(x)
    assert whole.shape == (1, 5, 23, 31)
    side = network.patch
    padded = mirror(x, side // 2, side - 1 - side // 2)
    expected = np.pad(x[0].numpy(), ((0, 0), (side // 2, side - 1 - side // 2), (side // 2, side - 1 - side // 2)), "reflect")
    assert np.array_equal(padded[0].numpy(), expected)
    for y, z in ((0, 0), (5, 7), (22, 30), (11, 0)):
        window = network.scan(padded[:, :, y : y + side, z : z + side], 8)
        assert window.shape == (1, 5, 1, 1)
        torch.testing.assert_close(window[0, :, 0, 0], whole[0, :, y, z], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_larger_stride_skips_windows(stride: int) -> None:
    network = small()
    x = torch.randn(1, 3, 21, 26)
    whole = network(x)
    network.stride = stride
    torch.testing.assert_close(network(x), whole[:, :, ::stride, ::stride], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_picture_smaller_than_the_window_is_mirrored_again() -> None:
    assert small()(torch.randn(1, 3, 3, 2)).shape == (1, 5, 3, 2)
    assert mirror(torch.arange(3.0).view(1, 1, 1, 3), 5, 4)[0, 0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_agrees(dynamic: bool) -> None:
    network = small()
    graph = to_onnx(network, (1, 3, 24, 32), "image", "logits", dynamic)
    shapes = [(1, 3, 24, 32), *([(2, 3, 41, 57)] if dynamic else [])]
    assert check_parity(graph, [_case(network, "image", shape, 1) for shape in shapes], 18).argmax_agreement == 1


def test_training_draws_classes_in_turns_and_learns() -> None:
    labels = torch.full((12, 16), 255)
    labels[:6, :8], labels[6:, 8:] = 0, 3
    rows, columns = draw_pixels(labels, 50)
    assert labels[rows, columns].tolist() == [0, 3] * 25
    network = PatchClassifier(4, (8,), (3,), 8, dropout=0).train()
    x = torch.where(labels == 3, 1.0, -1.0).expand(1, 3, -1, -1)
    empty = torch.zeros(0)
    target = Target(torch.zeros(0, 4), empty.long(), torch.zeros(0, 12, 16), empty.bool(), labels)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(40):
        (loss,) = network(x, [target]).values()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_nothing_labelled_is_no_loss() -> None:
    empty, labels = torch.zeros(0), torch.full((8, 8), 255)
    target = Target(torch.zeros(0, 4), empty.long(), torch.zeros(0, 8, 8), empty.bool(), labels)
    (loss,) = small().train()(torch.randn(1, 3, 8, 8), [target]).values()
    assert float(loss) == 0
    loss.backward()


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 16}, {"widths": (4, 4)}])
def test_refuses_options_that_do_not_fit(options: dict[str, object]) -> None:
    with pytest.raises(EdgesegError):
        PatchClassifier(2, **{"widths": (4, 4, 4), "kernels": (3, 3, 3), **options})  # type: ignore[arg-type]
