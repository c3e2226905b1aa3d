"""A run's settings from the command line, from recipes and from a killed run; wrong ones are told with their path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from edgeseg.cli.app import main
from edgeseg.cli.train import make_config
from edgeseg.errors import EdgesegError
from edgeseg.training.config import TrainConfig


def config(tmp_path: Path, recipe: Any = None, settings: tuple[str, ...] = (), resume: bool = False, **given: Any) -> TrainConfig:
    if recipe is not None:
        (tmp_path / "recipe.json").write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    name = str(tmp_path / "recipe.json") if recipe is not None else None
    return make_config("unet", name, list(settings), given, tmp_path / "out", resume)


def test_given_options_override_the_recipe_which_overrides_the_defaults(tmp_path: Path) -> None:
    recipe = {
        "arch": "unet",
        "data": "streets",
        "epochs": 7,
        "lr": 1,
        "options": {"widths": [8, 8], "dropout": 0.1},
        "crop": [24, 32],
    }
    found = config(tmp_path, recipe, ("dropout=0.2", "block=residual"), epochs=9)
    assert (found.data, found.epochs, found.lr, found.batch, found.crop) == ("streets", 9, 1.0, 8, (24, 32))
    assert found.options == {"widths": [8, 8], "dropout": 0.2, "block": "residual"}


def test_settings_travel_through_json(tmp_path: Path) -> None:
    first = config(tmp_path, data="streets", size=(64, 48), scale=(0.5, 1.5))
    assert TrainConfig.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_resume_takes_the_runs_own_settings(tmp_path: Path) -> None:
    (tmp_path / "out" / "training").mkdir(parents=True)
    own = TrainConfig("unet", "streets", epochs=3, seed=9)
    (tmp_path / "out" / "training" / "config.json").write_text(json.dumps(own.to_json()))
    assert config(tmp_path, resume=True) == own
    assert config(tmp_path, resume=True, workers=0).workers == 0


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"data": "streets", "batchsize": 8}, r"recipe\.json \$\.batchsize: unknown key"),
        ({"data": "streets", "epochs": "many"}, r"recipe\.json \$\.epochs: .*'many'"),
        ({"data": "streets", "epochs": 2.5}, r"\$\.epochs"),
        ({"data": "streets", "bf16": 1}, r"\$\.bf16"),
        ({"data": "streets", "size": [480]}, r"\$\.size"),
        ({"data": "streets", "size": [480, "x"]}, r"\$\.size\.1"),
        ({"data": "streets", "options": [1]}, r"\$\.options"),
        ({"data": "streets", "arch": "segnet"}, "edgeseg train segnet"),
        ({"arch": "unet"}, "--data"),
        ([], r"recipe\.json \$: a list"),
        ("{", "cannot read the settings"),
    ],
)
def test_bad_recipes(tmp_path: Path, recipe: Any, told: str) -> None:
    with pytest.raises(EdgesegError, match=told):
        config(tmp_path, recipe)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0.0), ("lr", float("nan")), ("epochs", 0), ("batch", -1), ("seed", -1), ("seed", 2**31), ("ema", 1.0),
        ("warmup", -1.0), ("clip", 0.0), ("size", (0, 32)), ("scale", (0.0, 1.0)), ("std", (1.0, 0.0, 1.0)), ("workers", -1),
        ("optimiser", "adam"),
    ],
)  # fmt: skip
def test_values_no_run_can_use(key: str, value: Any) -> None:
    with pytest.raises(EdgesegError, match=key):
        TrainConfig("unet", "streets", **{key: value})


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--size", "480"], 1, "for example --size 480x360"),
        (["--size", "4.5x3"], 1, "--size 4.5x3"),
        (["--crop", "axb"], 1, "--crop axb"),
        (["--scale", "1"], 1, "for example --scale 0.5,2.0"),
        (["--scale", "2.0,0.5"], 1, "low <= high"),
        (["--lr", "fast"], 2, "--lr"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--set", "backbone"], 1, "KEY=VALUE"),
        (["--set", "=3"], 1, "KEY=VALUE"),
        (["--set", "colour=3"], 1, "colour"),
        (["--loss", "focal"], 1, "ce, ohem, dice"),
        (["--recipe", "nowhere"], 1, "no such recipe"),
        (["--weights", "missing.pth"], 1, "no such file"),
        (["--data", "streets:32x32:x"], 1, "streets"),
        (["--resume"], 1, "no checkpoint"),
    ],
)
def test_wrong_options_end_in_one_line_and_leave_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    out = tmp_path / "out"
    data = [] if "--data" in arguments else ["--data", "streets"]
    assert main(["train", "unet", "--set", "widths=[4,4]", *data, "-o", str(out), *arguments]) == code
    errors = capfd.readouterr().err.strip()
    assert told in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    assert not out.exists()


def test_the_help_keeps_the_defaults(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    shown = capfd.readouterr().out
    for text in ("(default 100)", "(default 480x360)", "(default 0.998)"):
        assert text in shown
