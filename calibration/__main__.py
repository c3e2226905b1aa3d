"""python -m calibration MODEL.onnx --images DIR --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o MODEL_int8.onnx"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import onnx

from calibration import CalibrationError, Ranges, collect, prepare, quantize
from calibration.images import Folder
from calibration.methods import METHODS
from calibration.profiles import PROFILES
from calibration.ranges import write_atomic


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except CalibrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m calibration", description="INT8 for any ONNX model, as explicit Q/DQ.")
    parser.add_argument("model", type=Path, help="float ONNX model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="folder of pictures, or of .npy / .npz batches")
    source.add_argument("--ranges", type=Path, metavar="FILE", help="ranges found before, instead of images")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="INT8 model to write")
    parser.add_argument("--save-ranges", type=Path, metavar="FILE", help="also write the ranges as JSON")
    parser.add_argument("--method", choices=list(METHODS), default="entropy")
    parser.add_argument("--percentile", type=float, default=99.99, help="percent kept by --method percentile (%(default)s)")
    parser.add_argument("--profile", choices=list(PROFILES), default="x86", help="target (%(default)s)")
    parser.add_argument("--keep-float", type=_names, default=[], metavar="A,B", help="nodes that stay float")
    parser.add_argument(
        "--keep-functions", type=_names, default=[], metavar="DOMAIN,...", help="domains whose functions are not inlined"
    )
    parser.add_argument("--mean", type=_numbers, default=[0.0], help="per channel, after --scale")
    parser.add_argument("--std", type=_numbers, default=[1.0], help="per channel, after --scale")
    parser.add_argument("--scale", type=float, default=1 / 255, help="factor on pixel values (1/255)")
    parser.add_argument("--colour", choices=["rgb", "bgr", "gray"], default="rgb")
    parser.add_argument("--size", type=_size, metavar="H,W", help="for models with a free input size")
    parser.add_argument("--limit", type=int, help="read at most so many files")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _size(text: str) -> tuple[int, int]:
    height, width = (int(part) for part in text.split(","))
    return height, width


def _run(options: argparse.Namespace) -> None:
    for target in filter(None, (options.output, options.save_ranges)):
        _check_target(target, options.force)
    model = prepare(_load(options.model), options.keep_functions)
    ranges = Ranges.load(options.ranges) if options.ranges else _collect(model, options)
    for warning in ranges.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    quantised = quantize(model, ranges, options.profile, options.keep_float)
    write_atomic(options.output, quantised.SerializeToString())
    if options.save_ranges:
        ranges.save(options.save_ranges)
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node)
    print(f"{options.output}: profile {options.profile}, {ranges.method} over {ranges.images} images, {pairs} activations in INT8")


def _check_target(target: Path, force: bool) -> None:
    """Refuse, before any work, an output that exists or cannot be written."""
    if not target.parent.is_dir():
        raise CalibrationError(f"{target}: its folder does not exist", "a folder that can be written", "make it first")
    if target.is_dir() or (target.exists() and not force):
        raise CalibrationError(f"{target} exists", "a file that does not exist yet", "choose another name, or give --force")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise CalibrationError(f"{target.parent}: {error.strerror or error}", "a folder that can be written") from error


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror or error}", "an ONNX file") from error
    except onnx.checker.ValidationError as error:  # external data: missing, a link, or outside the folder
        raise CalibrationError(f"{path}: {' '.join(str(error).split())}", "weights in files beside the model") from error
    except Exception as error:  # protobuf's DecodeError has moved between modules
        raise CalibrationError(f"{path}: not an ONNX model ({type(error).__name__})", "an ONNX file") from error


def _collect(model: onnx.ModelProto, options: argparse.Namespace) -> Ranges:
    folder = Folder(model, options.images, options.mean, options.std, options.scale, options.size, options.colour, options.limit)
    total = len(folder.files())

    def progress(seen: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{seen}/{total} images", end="\n" if seen >= total else "", file=sys.stderr, flush=True)

    ranges = collect(model, folder, options.method, options.percentile, progress)
    if folder.corrupt:
        ranges.warnings.append(f"{len(folder.corrupt)} files could not be read and were left out: {', '.join(folder.corrupt[:5])}")
    return ranges


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # unwinds, so that temporary files go


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
