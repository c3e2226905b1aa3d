"""What the sub-commands share: consoles, JSON output, progress bars and the usual options."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console(stderr=True, highlight=False)
"""Notes to the user, on stderr: stdout is for the report."""

_PIPE_COLUMNS = 160  # a table that is piped into a file or grep must not be folded at 80
_json_descriptor: int | None = None


def note(message: str) -> None:
    """Tell the user something on stderr, without markup."""
    console.print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """A warning on stderr: one line that starts with ``warning:``."""
    console.print(f"warning: {' '.join(message.split())}", style="yellow", markup=False, soft_wrap=True)


# --- reports on stdout -------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """``value`` as JSON types: NaN and infinities become None; numpy, pydantic, dataclasses and paths are unwrapped."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def keep_stdout_for_json() -> None:
    """Point descriptor 1 at stderr, so that only ``print_json`` reaches stdout, whatever a native library prints."""
    global _json_descriptor
    if _json_descriptor is None:
        sys.stdout.flush()
        _json_descriptor = os.dup(1)
        os.dup2(2, 1)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    if _json_descriptor is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        with open(os.dup(_json_descriptor), "w", encoding="utf-8") as stream:
            stream.write(text)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> None:
    """Print a table on stdout; the columns named in ``right`` are right-aligned. Cells are shown as ``str``, None as '-'."""
    table = Table(header_style="bold")
    aligned = set(right)
    for column in columns:
        table.add_column(column, justify="right" if column in aligned else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    target = stdout_console()
    target.print(title, markup=False, soft_wrap=True, style="italic")  # rich would wrap it to the width of the table
    target.print(table, markup=False)


def print_lines(lines: Iterable[str]) -> None:
    """Print plain lines on stdout."""
    target = stdout_console()
    for line in lines:
        target.print(line, markup=False, soft_wrap=True)


def stdout_console() -> Console:
    """A rich console on today's stdout, wide enough for tables when stdout is not a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


# --- progress ----------------------------------------------------------------------------------------------------


class Bar:
    """A progress bar in use; ``bar(done)`` and ``bar.advance(n)`` move it, both harmless when it is not shown."""

    def __init__(self, progress: Progress | None, description: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total) if progress else None
        self.done: float = 0

    def __call__(self, done: float, total: float | None = None) -> None:
        """Show ``done`` items as finished, of ``total`` if it is known only now."""
        self.done = done
        if self._progress is not None and self._task is not None:
            changes: dict[str, Any] = {"completed": done} if total is None else {"completed": done, "total": total}
            self._progress.update(self._task, **changes)

    def advance(self, count: float = 1) -> None:
        """Show ``count`` more items as finished."""
        self(self.done + count)

    def describe(self, description: str) -> None:
        """Change the text before the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=description)


@contextmanager
def progress(description: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Bar]:
    """A progress bar with the time left on stderr; nothing is drawn if ``quiet`` or if stderr is not a terminal.

    ``total`` None shows a spinner and the time that passed.
    """
    if quiet or not console.is_terminal:
        yield Bar(None, description, total)
        return
    counted = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = counted if total is not None else (TimeElapsedColumn(),)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), *columns, console=console, transient=True
    ) as shown:
        yield Bar(shown, description, total)


# --- options -----------------------------------------------------------------------------------------------------


def complete_models(incomplete: str) -> list[str]:
    """Shipped model names for the shell's completion."""
    from edgeseg.folder import shipped_models

    return [name for name in shipped_models() if name.startswith(incomplete)]


ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="A model folder, or the name of a shipped model (`edgeseg zoo`).", autocompletion=complete_models
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead of a table.")]
DataOption = Annotated[
    str, typer.Option("--data", metavar="NAME:PATH", help="Data set, such as camvid:PATH, folder:PATH or streets (needs no path).")
]
ModelDataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME:PATH", help="Such as camvid:PATH or folder:PATH; streets for a model trained on it."),
]
SplitOption = Annotated[str, typer.Option("--split", metavar="SPLIT", help="Which part of the data set: train, val or test.")]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="auto, ort, openvino, tensorrt, rtx, ort-cuda or torch; auto keeps the fastest whose accuracy holds.",
    ),
]
PrecisionOption = Annotated[str, typer.Option("--precision", metavar="NAME", help="fp32, bf16, fp16 or int8; auto tries all.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads; all cores by default.")]
OutputOption = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The model folder to write.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
