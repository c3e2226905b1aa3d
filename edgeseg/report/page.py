"""The HTML report of ``edgeseg demo``: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from edgeseg.files import write_bytes
from edgeseg.manifest import ClassInfo

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#f3f5f7;--line:#d7dce1;--mark:#0b6bcb}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--paper:#14171a;--soft:#1d2126;--line:#333a41;--mark:#6cb2f7}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem}
h2{font-size:1.1rem;margin:2rem 0 .6rem}
p.note{color:color-mix(in srgb,var(--ink) 70%,transparent)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
tr.best td{background:var(--soft);font-weight:600}
img{max-width:100%;border:1px solid var(--line);margin:.3rem 0;display:block}
.bar{display:inline-block;height:.6rem;background:var(--mark);vertical-align:middle}
.chip{display:inline-block;width:.8rem;height:.8rem;border:1px solid var(--line);vertical-align:-.1rem;margin-right:.4rem}
code{background:var(--soft);padding:.1rem .3rem}
"""


@dataclass(frozen=True)
class Table:
    """Column heads and rows of text; ``best`` is the row to mark, or None."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None


@dataclass
class Page:
    """A report in the making: ``title`` and ``subtitle``, then sections in the order they are added."""

    title: str
    subtitle: str
    _parts: list[str] = field(default_factory=list)

    def heading(self, text: str, note: str = "") -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")
        if note:
            self._parts.append(f'<p class="note">{escape(note)}</p>')

    def table(self, table: Table) -> None:
        """Add a table."""
        head = "".join(f"<th>{escape(text)}</th>" for text in table.heads)
        rows = "".join(
            f"<tr{' class=best' if index == table.best else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for index, row in enumerate(table.rows)
        )
        self._parts.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')

    def class_scores(self, classes: Sequence[ClassInfo], columns: dict[str, dict[str, float | None]]) -> None:
        """Add the IoU of each class under each column's name, the last also as a bar."""
        rows = []
        for item in classes:
            colour = "#{:02x}{:02x}{:02x}".format(*item.colour)
            cells = "".join(f"<td>{_percent(scores.get(item.name))}</td>" for scores in columns.values())
            last = next(reversed(columns.values())).get(item.name) or 0.0
            bar = f'<span class="bar" style="width:{last * 12:.2f}rem"></span>'
            rows.append(
                f'<tr><td><span class="chip" style="background:{colour}"></span>{escape(item.name)}</td>'
                f'<td style="width:13rem">{bar}</td>{cells}</tr>'
            )
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        self._parts.append(f'<div class="wide"><table><tr><th>class</th><th>IoU</th>{head}</tr>{"".join(rows)}</table></div>')

    def picture(self, uri: str, alt: str) -> None:
        """Add a picture given as a data: URI."""
        self._parts.append(f'<img src="{escape(uri)}" alt="{escape(alt)}">')

    def commands(self, lines: Sequence[str]) -> None:
        """Add command lines to copy."""
        self._parts.append("".join(f"<p><code>{escape(line)}</code></p>" for line in lines))

    def write(self, path: Path) -> None:
        """Write the page atomically."""
        text = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
            f'<h1>{escape(self.title)}</h1><p class="note">{escape(self.subtitle)}</p>{"".join(self._parts)}</body></html>\n'
        )
        write_bytes(path, text.encode())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
