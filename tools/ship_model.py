"""Make a shipped model of a finished training run: export, calibrate, measure once on the test split, write the zoo folder.

    python tools/ship_model.py RUN NAME --data camvid:PATH

What lands in edgeseg/zoo/NAME: model.json, model.onnx (FP16-stored weights), ranges.json, training.json (the settings, for
``edgeseg train --recipe NAME``) and training.csv (the log).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from edgeseg.engines import load_segmenter
from edgeseg.export.torch_onnx import export_folder
from edgeseg.files import atomic_directory, write_json
from edgeseg.folder import GRAPH, MANIFEST, RANGES, WEIGHTS, ModelFolder, zoo_directory
from edgeseg.measure.calibrate import calibrate
from edgeseg.measure.evaluate import evaluate
from edgeseg.models.weights import load_network

ENGINES = (("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _prepare(arguments.run, Path(scratch) / arguments.name, arguments.name, arguments.data, arguments.start)
        if arguments.notes:
            folder.update(provenance=folder.manifest.provenance.model_copy(update={"notes": arguments.notes}))
        export_folder(folder, half_weights=True)
        folder.update(files={name: info for name, info in folder.manifest.files.items() if name != WEIGHTS})
        load_network(folder)  # the weights must come back from the graph alone
        calibrate(folder, arguments.data, "train", arguments.method, arguments.images)
        for backend, precision in ENGINES:
            with load_segmenter(folder, backend, precision) as segmenter:
                result = evaluate(folder, segmenter, arguments.data, "test")
            print(f"{backend} {precision}: {result.headline} {result.value:.4f} on {result.images} test frames", flush=True)
        _write(folder, arguments.run, zoo_directory() / arguments.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder that `edgeseg train` wrote")
    parser.add_argument("name", help="name in the zoo")
    parser.add_argument("--data", required=True, help="data set to calibrate (train) and to measure (test) on")
    parser.add_argument("--start", default="", help="shipped model whose weights the run started from")
    parser.add_argument("--method", default="entropy")
    parser.add_argument("--images", type=int, default=200, help="pictures to calibrate on")
    parser.add_argument("--notes", default="", help="kept in $.provenance.notes")
    return parser.parse_args()


def _prepare(run: Path, target: Path, name: str, data: str, start: str) -> ModelFolder:
    """A copy of the run's manifest and weights under the new name, with the command that repeats it."""
    target.mkdir()
    for file in (MANIFEST, WEIGHTS):
        shutil.copy(run / file, target)
    folder = ModelFolder(target)
    manifest = folder.manifest
    assert manifest.architecture is not None
    source = data.partition(":")[0] + (":PATH" if ":" in data else "")
    weights = f" --weights {start}" if start else ""
    command = f"edgeseg train {manifest.architecture.name} --recipe {name}{weights} --data {source} -o DIR"
    folder.update(name=name, provenance=manifest.provenance.model_copy(update={"command": command}))
    return folder


def _write(folder: ModelFolder, run: Path, target: Path) -> None:
    settings = json.loads((run / "training" / "config.json").read_text())
    if ":" in settings["data"]:
        settings["data"] = ""  # the user's own path comes with --data
    with atomic_directory(target) as temporary:
        for file in (MANIFEST, GRAPH, RANGES):
            shutil.copy(folder.path / file, temporary)
        write_json(temporary / "training.json", settings)
        shutil.copy(run / "training" / "metrics.csv", temporary / "training.csv")


if __name__ == "__main__":
    main()
