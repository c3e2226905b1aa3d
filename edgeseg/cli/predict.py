"""``edgeseg predict``: pictures to label maps, objects or segments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import (
    BackendOption,
    JsonOption,
    ModelArg,
    PrecisionOption,
    ThreadsOption,
    print_json,
    print_lines,
    progress,
    warn,
)
from edgeseg.cli.opening import open_predictor
from edgeseg.errors import DataError, PictureError

EXAMPLES = """
edgeseg predict streets photos/ -o labels --overlay
edgeseg predict runs/cells slide.tif -o out --tile 64
edgeseg predict runs/mask_rcnn photo.jpg -o out --overlay --json
"""


def command(
    model: ModelArg,
    inputs: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Pictures, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the results go.")] = Path("predictions"),
    tile: Annotated[
        int | None,
        typer.Option(
            "--tile", min=0, metavar="OVERLAP", help="Cut pictures into tiles of the model's input that share OVERLAP pixels."
        ),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw the result over each picture too.")] = False,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict pictures and write what the model's task gives: palette PNGs, COCO results, or COCO panoptic files.

    With --tile (or $.tile in model.json) pictures are cut at their own scale, and TIFF or JPEG 2000 files are read and written in
    windows, so that they may be larger than memory.
    """
    from edgeseg.engines.tiled import TiledPredictor
    from edgeseg.folder import open_folder
    from edgeseg.manifest import TileSpec
    from edgeseg.measure.predict import find_pictures, predict_file

    folder, paths = open_folder(model), find_pictures(inputs)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    skipped: list[str] = []
    with open_predictor(folder, backend, precision, threads, quiet=as_json) as predictor:
        if tile is not None:
            manifest = folder.manifest.model_copy(update={"tile": TileSpec(overlap=tile)})
            predictor = TiledPredictor(predictor.session, manifest, threads or 1)
        with progress(f"predicting with {predictor.session.backend} {predictor.session.precision}", 1, quiet=as_json) as bar:
            for path in paths:
                bar.describe(path.name)
                try:
                    written += predict_file(predictor, path, out, overlay, bar)
                except PictureError as error:
                    skipped.append(str(error))
                    warn(f"skipped {error}")
    if len(skipped) == len(paths):
        raise DataError(f"no picture could be read, the first {skipped[0]}", "pictures")
    if as_json:
        print_json({"written": written, "skipped": skipped})
        return
    told = f", {len(skipped)} skipped" if skipped else ""
    print_lines([f"{len(paths) - len(skipped)} pictures{told}: {len(written)} files in {out}"])
