"""The zoo's table: a row for every recipe, a recipe for every architecture, networks of the papers' sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="networks need the train extra")

from edgeseg.errors import EdgesegError
from edgeseg.folder import recipes
from edgeseg.models import REGISTRY
from edgeseg.training.config import TrainConfig
from tools.zoo_table_lib.count import count
from tools.zoo_table_lib.rows import Row, read_rows
from tools.zoo_table_lib.table import BEGIN, END, markdown, put

ROWS = {row.recipe: row for row in read_rows()}
ABLATIONS = {"fcn_pool4", "fcn_pool5"}  # differ from fcn_pool3 by one number
# Millions of parameters that the papers or their authors' code have.
PUBLISHED = {
    "fcn8s": 134.5,
    "segnet": 29.4,
    "unet_published": 31.0,
    "deeplab_v1": 20.5,
    "deeplab_v2": 44.0,
    "deeplab_v3_os16": 58.6,
    "deeplab_v3_plus_xception": 41.0,
    "refinenet": 118.0,
    "segmenter_mask": 26.0,
    "segmenter_linear": 22.0,
    "maskformer": 41.0,
    "mask2former": 44.0,
    "mask_rcnn": 44.4,
    "faster_rcnn": 41.8,
    "panoptic_fpn": 46.0,
}


def test_every_recipe_has_a_row_and_every_architecture_a_recipe() -> None:
    assert set(ROWS) == set(recipes())
    trained = {row.settings["arch"] for row in ROWS.values()}
    assert trained | ABLATIONS == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_recipe_is_a_training_run_on_procedural_pictures(name: str) -> None:
    config = TrainConfig.from_json(ROWS[name].settings, name)
    assert config.data.split(":")[0] in ("streets", "rooms")
    assert 0 < ROWS[name].floor < 1


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_networks_have_the_published_number_of_parameters(name: str) -> None:
    import torch

    from edgeseg import models

    row = ROWS[name]
    with torch.device("meta"):
        network = models.create(row.settings["arch"], row.classes, **row.paper)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name], abs=0.1, rel=0.01)


def test_operations_are_two_for_each_multiply_add() -> None:
    parameters, gflops = count("unet", 3, {"widths": [4, 4], "depths": [1, 1]}, (16, 8))
    assert parameters > 0
    # The classifier alone, 4 -> 3 channels on 16 x 8 pixels, is this much of it.
    assert gflops > 2 * 4 * 3 * 16 * 8 / 1e9
    assert count("unet", 3, {"widths": [4, 4]}, (32, 16))[1] == pytest.approx(4 * gflops, rel=1e-6)


def figures(**changes: Any) -> dict[str, Any]:
    values = {f"{backend}_{kind}": 0.5 for backend in ("ort", "openvino") for kind in ("fp32", "int8")}
    times = {f"{name}_ms": 1.25 for name in values}
    sizes = {
        "paper_parameters": 12_340_000,
        "paper_gflops": 99.6,
        "parameters": 560_000,
        "gflops": 0.1,
        "width": 160,
        "height": 120,
    }
    return {**values, **times, **sizes, "parity": {"ort": 1e-6, "openvino": 2e-6}, "headline": "mean_iou", **changes}


def test_the_table_stands_between_its_marks(tmp_path: Path) -> None:
    table = markdown([(Row("fcn8s", "FCN-8s", 0.1), figures(openvino_int8=0.48))])
    *_, line = table.splitlines()
    assert line == "| FCN-8s | 12.3 | 100 | 512x512 | 0.56 | 1e-06 / 2e-06 | mIoU | 50.0 | 50.0 / 48.0 | 2.0 | 1.25 | 1.25 |"
    document = tmp_path / "README.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put(table, document)
    assert document.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"
    document.write_text("no place")
    with pytest.raises(EdgesegError, match="no place for the table"):
        put(table, document)
