"""The ``edgeseg`` entry point: a lazy list of sub-commands, and errors as one line with an exit code."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from edgeseg import __version__
from edgeseg.errors import EdgesegError

COMMANDS: dict[str, tuple[str, str]] = {
    "zoo": ("edgeseg.cli.zoo", "List the models shipped in the package."),
    "data": ("edgeseg.cli.data", "Look at a data set: decode all of it, count it, list what is wrong, draw samples."),
    "train": ("edgeseg.cli.train", "Train a network on a data set into a model folder."),
    "export": ("edgeseg.cli.export", "Export the trained weights of a model folder to ONNX and check it against PyTorch."),
    "import": ("edgeseg.cli.import_", "Adopt an ONNX file from anywhere as a model folder."),
    "calibrate": ("edgeseg.cli.calibrate", "Find the INT8 ranges of a model on sample images."),
    "check": ("edgeseg.cli.check", "Tell what a target would refuse in a model, before any build."),
    "build": ("edgeseg.cli.build", "Build an engine for this machine."),
    "tune-crf": ("edgeseg.cli.tune_crf", "Search the parameters of a dense CRF behind a network."),
    "eval": ("edgeseg.cli.eval", "Measure the accuracy of a built engine on labelled images."),
    "bench": ("edgeseg.cli.bench", "Measure the latency of a built engine, alone and end to end."),
    "compare": ("edgeseg.cli.compare", "Compare the outputs of backends or precisions."),
    "predict": ("edgeseg.cli.predict", "Predict pictures of any size into files."),
    "live": ("edgeseg.cli.live", "Run a model on a camera, clip or stream."),
    "inspect": ("edgeseg.cli.inspect", "Show what a model folder holds and verify its files."),
    "cache": ("edgeseg.cli.cache", "List, explain or clear the built engines."),
    "plugins": ("edgeseg.cli.plugins", "Build or check the TensorRT plugin library."),
    "doctor": ("edgeseg.cli.doctor", "Show what this machine can run, what is missing and how to get it."),
    "demo": ("edgeseg.cli.demo", "Calibrate, build, evaluate and stream a shipped model; end with a report."),
}
"""Name -> module and one-line help. The module has ``command`` (a function, or a Typer with sub-commands of its own)
and may have ``EXAMPLES`` (one command line per text line, shown below its help)."""

EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "scipy": "train",
    "pycocotools": "train",
    "h5py": "train",
    "onnxscript": "train",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "nncf": "openvino",
    "av": "live",
    "aiohttp": "live",
    "polygraphy": "polygraphy",
    "rasterio": "large",
}
"""Import name -> the extra of this package that brings it."""

EXAMPLES = """
edgeseg demo
edgeseg import model.onnx --classes road,car --mean 0,0,0 --std 1,1,1 -o my_model
edgeseg calibrate my_model --data folder:photos --split train
edgeseg build my_model --precision int8
edgeseg live my_model --source /dev/video0 --sink http://127.0.0.1:8080
"""

EXIT_INTERNAL, EXIT_INTERRUPT, EXIT_TERMINATED = 70, 130, 143
_UsageError: Any = typer.BadParameter.__mro__[1]  # Typer brings its own Click or uses Click's, by version


def _epilog(examples: str) -> str:
    lines = [line.strip() for line in examples.strip().splitlines() if line.strip()]
    return "\n".join(["[bold]Examples[/bold]", *(f"  [cyan]{escape(line)}[/cyan]" for line in lines)]) if lines else ""


def load_command(name: str) -> Any:
    """The Click command of sub-command ``name``; imports its module."""
    module_name, help_line = COMMANDS[name]
    module: ModuleType = importlib.import_module(module_name)
    entry, epilog = module.command, _epilog(getattr(module, "EXAMPLES", ""))
    if isinstance(entry, typer.Typer):
        group = typer.main.get_command(entry)
        group.name, group.epilog, group.help = name, group.epilog or epilog, group.help or help_line
        return group
    holder = typer.Typer(add_completion=False, rich_markup_mode="rich")
    holder.command(name, epilog=epilog, help=None if entry.__doc__ else help_line)(entry)
    return typer.main.get_command(holder)


class LazyGroup(TyperGroup):
    """A group whose help comes from ``COMMANDS``; the module of a sub-command is imported when that sub-command runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, stub, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else stub, rest


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode="rich",
    epilog=_epilog(EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _stub() -> None:
    """Stands in for a sub-command in the list of commands."""


for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_stub)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeseg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (also EDGESEG_DEBUG=1).")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Take a segmentation network to an optimised INT8 engine on this device, and run it live.

    Every step reads and writes one [bold]model folder[/bold]: train, export or import, calibrate, build, eval, bench, live.
    """
    if debug:
        os.environ["EDGESEG_DEBUG"] = "1"


def _terminate(signum: int, frame: FrameType | None) -> None:
    # A second signal must still end a process that hangs while it cleans up.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise SystemExit(EXIT_TERMINATED)


def report_error(message: str) -> None:
    """One line on stderr that starts with ``error:``."""
    line = f"error: {' '.join(message.split())}"
    with contextlib.suppress(OSError):  # nobody may be left to read it
        print(f"\x1b[31m{line}\x1b[0m" if sys.stderr.isatty() else line, file=sys.stderr)


def _origin(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "edgeseg" in Path(frame.filename).parts]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"


def _missing_module(error: ModuleNotFoundError) -> str:
    top = (error.name or "").split(".")[0]
    if extra := EXTRAS.get(top):
        return f"{top} is not installed; fix: pip install 'edgeseg[{extra}]'"
    return f"{error}; fix: install it, or install edgeseg again"


def explain(error: BaseException) -> tuple[str, int]:
    """The line to show for ``error`` and the exit code."""
    # CalibrationError is of a package that knows nothing of edgeseg and may not be imported yet: told by its shape.
    if isinstance(error, EdgesegError) or type(error).__name__ == "CalibrationError":
        return str(error), getattr(error, "exit_code", 1)
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "edgeseg"
        return f"{error.format_message().rstrip('.')}; fix: see `{where} --help`", 2
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error), 1
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return "out of memory; fix: a smaller input, batch or number of threads", 1
    summary = f"unexpected {type(error).__name__}: {error} (at {_origin(error)})"
    return f"{summary}; fix: run again with EDGESEG_DEBUG=1 and report the traceback", EXIT_INTERNAL


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code and lets no exception of a command through."""
    try:
        code = app(args=arguments or ["--help"], prog_name="edgeseg", standalone_mode=False)
        if code == EXIT_INTERRUPT:
            report_error("interrupted")  # newer Typers turn Ctrl-C into this exit code themselves
        return code if isinstance(code, int) and not isinstance(code, bool) else 0
    except (KeyboardInterrupt, typer.Abort):
        report_error("interrupted")
        return EXIT_INTERRUPT
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        return _silence_stdout()
    except Exception as error:
        if os.environ.get("EDGESEG_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(error)
        message, code = explain(error)
        report_error(message)
        return code


def _silence_stdout() -> int:
    # The reader went away (`edgeseg zoo | head`): Python would complain again when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def main(arguments: list[str] | None = None) -> int:
    """The ``edgeseg`` script. 0 well, 1 a user's error, 2 wrong usage, 70 a bug, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    script = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--json" in arguments:
        from edgeseg.cli.common import keep_stdout_for_json

        keep_stdout_for_json()
    code = run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _silence_stdout()
    if script:
        _leave_daemons(code)
    return code


def _leave_daemons(code: int) -> None:
    """End now if daemon threads remain, such as a capture that hangs.

    One that returns from native code while the interpreter is torn down is unwound through C++ frames that forbid it,
    and the process would abort after all its work was done.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
