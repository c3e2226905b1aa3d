"""``edgeseg train``: a network from the registry on a data set."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.common import JsonOption, note, print_json, print_lines, progress
from edgeseg.errors import EdgesegError

if TYPE_CHECKING:
    from edgeseg.training.config import TrainConfig

EXAMPLES = """
edgeseg train unet --data camvid:CamVid -o runs/street
edgeseg train deeplab_v3_plus --set backbone=resnet50 --weights resnet50.pth --data cityscapes:PATH -o runs/city
edgeseg train unet --recipe camvid --data camvid:CamVid -o runs/camvid
edgeseg train unet --data camvid:CamVid -o runs/street --resume
edgeseg train mask_rcnn --recipe mask_rcnn -o runs/rooms
edgeseg train panoptic_fpn --data coco_panoptic:PATH --resize letterbox --size 640x480 --no-bf16 -o runs/panoptic
torchrun --nproc-per-node 2 -m edgeseg train segnet --data voc:PATH -o runs/voc
"""


def command(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="An architecture; `edgeseg zoo --architectures` lists them.")],
    data: Annotated[str | None, typer.Option("--data", metavar="NAME:PATH", help="Data set to learn from.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The model folder to write.")] = Path("model"),
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE|DIR", help="Start from a .safetensors or .pth file, or from a model's weights."),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let --weights run pickled code; only for files you made.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="Settings of a shipped model, of edgeseg/recipes, or of a training.json; options given override them.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of the network: JSON or a word, e.g. backbone=resnet50."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split to learn from (default train).")] = None,
    val_split: Annotated[str | None, typer.Option("--val-split", help="Split to choose the best weights on (default val).")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs to run (default 100).")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Frames a step and process (default 8).")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="The network's input (default 480x360).")] = None,
    crop: Annotated[str | None, typer.Option("--crop", metavar="WxH", help="Training crop (default the input size).")] = None,
    scale: Annotated[str | None, typer.Option("--scale", metavar="LOW,HIGH", help="Random zoom (default 0.5,2.0).")] = None,
    colour: Annotated[float | None, typer.Option("--colour", min=0, help="Strength of colour changes (default 0.4).")] = None,
    resize: Annotated[
        str | None, typer.Option("--resize", help="stretch, or letterbox: the aspect is kept (default stretch).")
    ] = None,
    elastic: Annotated[float | None, typer.Option("--elastic", min=0, help="Elastic deformation, px (default 0).")] = None,
    copy_paste: Annotated[
        float | None,
        typer.Option("--copy-paste", min=0, max=1, help="Share of frames with objects of another pasted in (default 0)."),
    ] = None,
    optimiser: Annotated[str | None, typer.Option("--optimiser", help="adamw or sgd (default adamw).")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate (default 0.001).")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Of convolution weights (default 0.01).")] = None,
    warmup: Annotated[float | None, typer.Option("--warmup", min=0, help="Epochs of warm-up (default 2).")] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="Terms of ce, ohem, dice joined by + (default ce).")] = None,
    balance: Annotated[float | None, typer.Option("--balance", help="Power of median-frequency balancing (default 0.5).")] = None,
    ema: Annotated[float | None, typer.Option("--ema", help="Decay of the weight average, 0 for none (default 0.998).")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="bfloat16 autocast (default on).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of initialisation, order and augmentation (default 0).")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes that prepare frames (default 1).")] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", min=1, help="Epochs between validations (default 1).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network into a model folder: the best weights on the validation split, a checkpoint, logs and pictures."""
    given: dict[str, Any] = {
        "data": data, "split": split, "val_split": val_split, "epochs": epochs, "batch": batch, "colour": colour,
        "resize": resize, "elastic": elastic, "copy_paste": copy_paste,
        "optimiser": optimiser, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "loss": loss, "balance": balance,
        "ema": ema, "bf16": bf16, "seed": seed, "workers": workers, "eval_every": eval_every,
        "size": _pair(size, "x", int, "--size"), "scale": _pair(scale, ",", float, "--scale"),
    }  # fmt: skip
    if crop_size := _pair(crop, "x", int, "--crop"):
        given["crop"] = (crop_size[1], crop_size[0])
    config = make_config(
        arch, recipe, settings or [], {key: value for key, value in given.items() if value is not None}, out, resume
    )

    _train(config, out, weights, trust, resume, as_json)


def _train(config: TrainConfig, out: Path, weights: str | None, trust: bool, resume: bool, as_json: bool) -> None:
    from edgeseg.metrics import TITLES
    from edgeseg.training.loop import train

    command_line = shlex.join(["edgeseg", *sys.argv[1:]])
    leads = os.environ.get("RANK", "0") == "0"  # torchrun's other processes are silent
    with progress(f"training {config.arch}", 1, quiet=as_json or not leads) as bar:

        def report(done: int, total: int, text: str) -> None:
            bar(done, total)
            bar.describe(text)
            if "frames/s" in text:
                note(text)

        folder = train(config, out, weights, trust, resume, command_line, report)
    if not leads:
        return
    best = json.loads((out / "training" / "summary.json").read_text())
    if as_json:
        print_json({"directory": folder.path, **best})
        return
    figure = best["figure"]
    told = f"{folder.path}: best val {TITLES[figure]} {best[f'val_{figure}']:.4f} at epoch {best['epoch']}"
    print_lines([told, f"next: edgeseg export {folder.path}"])


def make_config(arch: str, recipe: str | None, settings: list[str], given: dict[str, Any], out: Path, resume: bool) -> TrainConfig:
    """The run's settings: defaults, then the recipe's (or, on resume, the run's own), then what was given."""
    from edgeseg.training.config import TrainConfig

    values: dict[str, Any] = {}
    own, origin = out / "training" / "config.json", "settings"
    if resume and own.is_file():
        values, origin = _read_recipe(own), str(own)
    elif recipe is not None:
        path = _find_recipe(recipe)
        values, origin = _read_recipe(path), str(path)
    if values.get("arch", arch) != arch:
        raise EdgesegError(
            f"ARCH {arch} with settings for {values['arch']}", "the same architecture", f"edgeseg train {values['arch']} ..."
        )
    options = values.get("options") or {}
    if isinstance(options, dict):
        options = {**options, **dict(_setting(text) for text in settings)}
    values |= {**given, "arch": arch, "options": options}
    if not values.get("data"):
        raise EdgesegError("no data set", "--data NAME:PATH", "--data camvid:PATH, or --data streets, which needs no download")
    return TrainConfig.from_json(values, origin)


def _find_recipe(recipe: str) -> Path:
    from edgeseg.folder import recipes, recipes_directory, shipped_models, zoo_directory

    if Path(recipe).is_file():
        return Path(recipe)
    shipped = zoo_directory() / recipe / "training.json"
    if recipe in shipped_models() and shipped.is_file():
        return shipped
    if (path := recipes_directory() / f"{recipe}.json").is_file():
        return path
    known = ", ".join([*shipped_models(), *recipes()])
    raise EdgesegError(f"--recipe {recipe}: no such recipe", f"a training.json, or one of {known}")


def _read_recipe(path: Path) -> dict[str, Any]:
    expected = "a training.json that `edgeseg train` wrote"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EdgesegError(f"{path}: cannot read the settings ({error})", expected) from error
    if not isinstance(values, dict):
        raise EdgesegError(f"{path} $: a {type(values).__name__}", expected)
    return values


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise EdgesegError(f"--set {text}", "KEY=VALUE", "for example --set backbone=resnet50")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _pair(text: str | None, mark: str, kind: type, option: str) -> tuple[Any, Any] | None:
    if text is None:
        return None
    try:
        first, second = (kind(part) for part in text.lower().split(mark))
    except ValueError as error:
        example = "480x360" if mark == "x" else "0.5,2.0"
        raise EdgesegError(f"{option} {text}", f"two numbers joined by {mark!r}", f"for example {option} {example}") from error
    return first, second
