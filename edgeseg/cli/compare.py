"""``edgeseg compare``: how far backends and precisions lie apart."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import JsonOption, ModelArg, ThreadsOption, note, print_json, print_table, progress

if TYPE_CHECKING:
    from edgeseg.folder import ModelFolder
    from edgeseg.measure.compare import Difference, Outputs

EXAMPLES = """
edgeseg compare my_model --backends torch,ort,openvino --json
edgeseg compare my_model --backends ort --precisions fp32,int8 --layers
edgeseg compare my_model --backends openvino --polygraphy golden
"""


def command(
    model: ModelArg,
    backends: Annotated[str, typer.Option("--backends", metavar="A,B", help="Comma-separated; all installed by default.")] = "",
    precisions: Annotated[
        str, typer.Option("--precisions", metavar="P,Q", help="Comma-separated; each backend runs those it has.")
    ] = "fp32",
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:PATH", help="Frames to compare on; else the model's own, or synthetic.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Part of the data set.")] = "val",
    frames: Annotated[int, typer.Option("--frames", min=1, help="How many frames.")] = 4,
    threads: ThreadsOption = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also the error of each layer of every engine against the first.")
    ] = False,
    polygraphy: Annotated[
        Path | None,
        typer.Option("--polygraphy", metavar="OUT", help="Write inputs and outputs into OUT, for `polygraphy run`."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier --polygraphy wrote into OUT.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the outputs of every two of the named engines on the same frames.

    max_abs and max_rel (of the largest magnitude) are over all values; argmax_agreement is the share of pixels whose
    class agrees. With --polygraphy one engine is enough: the other side is what Polygraphy runs.
    """
    from edgeseg.engines import default_threads
    from edgeseg.folder import open_folder
    from edgeseg.measure.compare import check_enough, differences, run_engines
    from edgeseg.measure.samples import sample_frames

    folder, threads = open_folder(model), threads or default_threads()
    kinds = _kinds(folder, _split(backends), _split(precisions))
    if polygraphy is not None:
        _check_polygraphy(polygraphy, force)
    pictures = sample_frames(folder, data, split, frames)
    check_enough(kinds, pictures, least=1 if polygraphy is not None else 2)
    with progress("comparing", quiet=as_json) as bar:
        outputs = run_engines(folder, kinds, pictures, threads=threads, progress=bar.describe)
        pairs = differences(folder, outputs)
        per_layer = _layers(folder, kinds, pictures[:2], threads) if layers else {}
        files = {} if polygraphy is None else _write_polygraphy(polygraphy, folder, pictures, outputs, threads)
    if as_json:
        report = {"pairs": [item.to_json() for item in pairs], "frames": len(pictures)}
        print_json({**report, **({"layers": per_layer} if layers else {}), **({"polygraphy": files} if files else {})})
        return
    _print(f"{folder.manifest.name} on {len(pictures)} frames", pairs, per_layer)
    if polygraphy is not None:
        note(f"compare with: {_polygraphy_command(folder, polygraphy)}")


def _print(title: str, pairs: list[Difference], per_layer: dict[str, list[dict]]) -> None:
    columns = ["a", "b", "output", "max_abs", "max_rel", "argmax_agreement"]
    rows = [(p.a, p.b, p.output, f"{p.max_abs:.3g}", f"{p.max_rel:.3g}", f"{p.argmax_agreement:.5f}") for p in pairs]
    if rows:
        print_table(title, columns, rows, right=columns[3:])
    for name, errors in per_layer.items():
        cells = [
            (
                e["tensor"],
                e["op_type"],
                f"{e['max_abs']:.3g}",
                f"{e['max_rel']:.3g}",
                "equal" if e["sqnr_db"] is None else e["sqnr_db"],
            )
            for e in errors
        ]
        print_table(name, ["tensor", "op", "max_abs", "max_rel", "sqnr_db"], cells, right=["max_abs", "max_rel", "sqnr_db"])


def _check_polygraphy(directory: Path, force: bool) -> None:
    from edgeseg.measure.polygraphy import check_directory

    check_directory(directory, force)


def _write_polygraphy(directory: Path, folder: ModelFolder, pictures: list, outputs: Outputs, threads: int) -> dict[str, Path]:
    from edgeseg.measure.compare import network_feeds
    from edgeseg.measure.polygraphy import write_files

    return write_files(directory, list(network_feeds(folder, pictures, threads)), outputs)


def _polygraphy_command(folder: ModelFolder, directory: Path) -> str:
    from edgeseg.measure.polygraphy import INPUTS, OUTPUTS

    files = ["--load-inputs", str(directory / INPUTS), "--load-outputs", str(directory / OUTPUTS)]
    return shlex.join(["polygraphy", "run", str(folder.graph), "--onnxrt", *files])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _kinds(folder: ModelFolder, backends: list[str], precisions: list[str]) -> list[tuple[str, str]]:
    from edgeseg.engines.session import PRECISIONS, get_backend, installed
    from edgeseg.errors import BackendError

    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        raise BackendError(f"--precisions {','.join(precisions)}", f"of {', '.join(PRECISIONS)}", "--precisions fp32,int8")
    adapters = [get_backend(name) for name in backends or installed()]
    if not backends and folder.manifest.architecture is None:
        adapters = [adapter for adapter in adapters if adapter.NAME != "torch"]  # an adopted graph has no PyTorch network
    kinds = [(a.NAME, kind) for a in adapters for kind in precisions if kind in a.PRECISIONS and not a.supports(kind)]
    return list(dict.fromkeys(kinds))


def _layers(folder: ModelFolder, kinds: list[tuple[str, str]], pictures: list, threads: int) -> dict[str, list[dict]]:
    from edgeseg.measure.layers import layer_errors

    able = [kind for kind in kinds if kind[0] != "torch" and kind[1] in ("fp32", "int8")]
    first, found = able[0] if able else kinds[0], {}
    for kind in able[1:] or kinds[:1]:
        errors = layer_errors(folder, first, kind, pictures, threads)
        found["/".join(first) + " vs " + "/".join(kind)] = [item.to_json() for item in errors]
    return found
