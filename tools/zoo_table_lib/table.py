"""The table as Markdown, and its place in a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError
from edgeseg.files import write_bytes
from edgeseg.metrics import TITLES
from tools.zoo_table_lib.rows import Row

BEGIN, END = "<!-- zoo table: written by tools/zoo_table.py -->", "<!-- end of the zoo table -->"
_HEAD = (
    "| network | params M | GFLOPs | at | trained: params M | parity ORT / OpenVINO | figure | float | INT8 ORT / OpenVINO "
    "| drop | FP32 ms | INT8 ms |"
)


def markdown(rows: list[tuple[Row, dict[str, Any]]]) -> str:
    """One line a row; figures in percent, the drop in points on the faster INT8 engine, latencies of OpenVINO's engines."""
    lines = [_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|"]
    return "\n".join([*lines, *(_line(row, figures) for row, figures in rows)])


def _line(row: Row, f: dict[str, Any]) -> str:
    best = max(f["ort_fp32"], f["openvino_fp32"])
    drop = 100 * (f["openvino_fp32"] - f["openvino_int8"])
    cells = [
        row.title,
        f"{f['paper_parameters'] / 1e6:.1f}",
        f"{f['paper_gflops']:.0f}",
        f"{row.size[0]}x{row.size[1]}",
        f"{f['parameters'] / 1e6:.2f}",
        f"{f['parity']['ort']:.0e} / {f['parity']['openvino']:.0e}",
        TITLES[f["headline"]],
        f"{100 * best:.1f}",
        f"{100 * f['ort_int8']:.1f} / {100 * f['openvino_int8']:.1f}",
        f"{drop:.1f}",
        f"{f['openvino_fp32_ms']:.2f}",
        f"{f['openvino_int8_ms']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def put(text: str, document: Path) -> None:
    """Replace what stands between the two marks of ``document``.

    Raises:
        EdgesegError: a mark is missing.
    """
    whole = document.read_text("utf-8")
    if BEGIN not in whole or END not in whole:
        raise EdgesegError(f"{document}: no place for the table", f"the lines {BEGIN} and {END}", "put them where it belongs")
    head, _, rest = whole.partition(BEGIN)
    write_bytes(document, f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}".encode())
