"""``edgeseg import``: adopt an ONNX file from anywhere as a model folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import ForceOption, JsonOption, OutputOption, note, print_json, progress
from edgeseg.errors import EdgesegError

EXAMPLES = """
edgeseg import model.onnx --classes road,car --mean 0,0,0 --std 1,1,1 -o my_model
edgeseg import net.onnx --classes @names.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --size 640x480 -o net
edgeseg import caffe.onnx --classes @names.txt --scale 1 --mean 104,117,123 --std 1,1,1 --colour-order bgr -o caffe
"""

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The ONNX file; opset 7 or newer.")],
    out: OutputOption,
    classes: Annotated[
        str, typer.Option(metavar="A,B|@FILE", help="Class names in label order, or @ and a file with one on each line.")
    ],
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="Mean per channel, in units of pixel * scale.")] = "0,0,0",
    std: Annotated[str, typer.Option(metavar="R,G,B", help="Standard deviation per channel, in the same units.")] = "1,1,1",
    scale: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Factor on the 0..255 pixel: 1/255 by default, 1 for integer inputs.")
    ] = None,
    colour_order: Annotated[str, typer.Option(metavar="rgb|bgr|grey", help="Order of the channels.")] = "rgb",
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Input size, if the file leaves it open.")] = None,
    layout: Annotated[str, typer.Option(metavar="auto|nchw|nhwc", help="Axes of the input, if their sizes do not tell.")] = "auto",
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Which output, if there are several.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="logits|softmax|sigmoid|labels", help="What the output is, if the graph does not tell.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="For one channel: the probability from which a pixel counts.")
    ] = 0.5,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model; the folder's by default.")] = None,
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the model, for the manifest.")] = "",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adopt an ONNX file from anywhere as a model folder.

    It is checked, converted to one float32 NCHW image input and one output, run once against the file as it came, and
    from then on calibrate, build, eval, bench, compare and live work on it as on our own.
    """
    check_output(out, force)
    names = read_classes(classes)
    settings = {
        "mean": numbers(mean, "--mean"),
        "std": numbers(std, "--std"),
        "scale": None if scale is None else number(scale, "--scale"),
        "colour_order": choice(colour_order, ("rgb", "bgr", "grey"), "--colour-order"),
        "size": None if size is None else parse_size(size),
        "layout": choice(layout, ("auto", "nchw", "nhwc"), "--layout"),
        "kind": None if kind is None else choice(kind, ("logits", "softmax", "sigmoid", "labels"), "--kind"),
    }
    label = model_name(name, out)
    from edgeseg.export.adopt import AdoptOptions, adopt, write_folder

    options = AdoptOptions(classes=names, output=output, threshold=threshold, **settings)  # type: ignore[arg-type]
    with progress(f"importing {file.name}", quiet=as_json) as bar:
        adopted = adopt(file, options, bar.describe)
        write_folder(out, label, adopted, names, source=file.name, licence=licence)
    report(out, adopted, as_json)


def report(directory: Path, adopted: Any, as_json: bool) -> None:
    """Tell what was adopted: JSON on stdout, or a few lines on stderr."""
    width, height = adopted.input.width, adopted.input.height
    if as_json:
        print_json(
            {"model": directory, "input": adopted.input, "output": adopted.output, "parity": adopted.parity, "notes": adopted.notes}
        )
        return
    for item in adopted.notes:
        note(f"note: {item}")
    agreement = 100 * adopted.parity.argmax_agreement
    note(
        f"{directory}: input {width}x{height} {adopted.input.colour_order}, output {adopted.output.name!r} ({adopted.output.kind})"
    )
    note(f"ran in ONNX Runtime; labels agree with the original file on {agreement:.2f}% of the pixels of a random frame")


# --- the command line's words --------------------------------------------------------------------------------------


def check_output(directory: Path, force: bool) -> None:
    """Refuse, before any work, an output that exists or cannot be written."""
    from edgeseg.files import check_writable
    from edgeseg.folder import MANIFEST

    if directory.exists() and not force:
        raise EdgesegError(f"{directory} exists", "a folder that does not exist yet", "choose another -o, or give --force")
    if directory.exists() and not (directory / MANIFEST).is_file() and (not directory.is_dir() or any(directory.iterdir())):
        raise EdgesegError(f"{directory} is not a model folder", "a model folder to replace", "choose another -o")
    check_writable(directory.absolute().parent)


def read_classes(text: str) -> list[str]:
    """Class names from ``a,b,c`` or ``@file`` with one on each line."""
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise EdgesegError(f"--classes {text}: {error}", "a text file with one class on each line") from error
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = [item.strip() for item in text.split(",")]
    if not names or not all(names) or len(set(names)) != len(names):
        raise EdgesegError(f"--classes {text}: empty or repeated names", "distinct names separated by commas")
    if len(names) > 256:
        raise EdgesegError(f"--classes: {len(names)} names", "at most 256")
    return names


def number(text: str, option: str) -> float:
    """A number, or a fraction such as ``1/255``."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise EdgesegError(f"{option} {text!r}", "a number, or a fraction such as 1/255") from error


def numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas."""
    return [number(item, option) for item in text.split(",")]


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of ``640x480``."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if match is None or not all(1 <= int(item) <= 16384 for item in match.groups()):
        raise EdgesegError(f"--size {text!r}", "WIDTHxHEIGHT such as 640x480, each from 1 to 16384")
    return int(match[1]), int(match[2])


def choice(text: str, allowed: tuple[str, ...], option: str) -> str:
    """``text`` if it is one of ``allowed``."""
    if text.lower() not in allowed:
        raise EdgesegError(f"{option} {text!r}", f"one of {', '.join(allowed)}")
    return text.lower()


def model_name(name: str | None, directory: Path) -> str:
    """The model's name: ``name`` as it is, else the folder's name in the letters a manifest allows."""
    if name is None:
        return _NAME.sub("-", directory.absolute().name).strip("-._") or "model"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise EdgesegError(f"--name {name!r}", "letters, digits, '.', '_' and '-', starting with a letter or digit")
    return name
