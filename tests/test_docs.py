"""The documents point at what exists: the tests they name, and the files and headings they link to."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROBUSTNESS = ROOT / "docs" / "robustness.md"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the test functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as they are shown on GitHub."""
    titles = re.findall(r"^#+ +(.+)$", re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def missing_tests(text: str) -> list[str]:
    named = NAMED_TEST.findall(text)
    return [f"{file}::{name}" for file, name in named if not (ROOT / file).is_file() or name not in functions(ROOT / file)]


def broken_links(document: Path, text: str) -> list[str]:
    broken = []
    for link in LINK.findall(without_code(text)):
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def rows(text: str) -> list[str]:
    """The table rows, without headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("| What happens", "|---"))]


@pytest.mark.parametrize("row", rows(ROBUSTNESS.read_text(encoding="utf-8")), ids=lambda row: row.split("|")[1].strip())
def test_every_promise_names_tests_that_exist(row: str) -> None:
    happens, does, held = (cell.strip() for cell in row.strip("|").split("|"))
    assert happens
    assert does
    assert len(NAMED_TEST.findall(held)) == held.count("`") // 2 > 0
    assert missing_tests(held) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_tests_named_in_a_document_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert broken_links(document, text) == []
    assert missing_tests(text) == []


def test_what_is_missing_is_found() -> None:
    assert missing_tests("`tests/test_docs.py::test_nowhere` `tests/none.py::test_a`") == [
        "tests/test_docs.py::test_nowhere",
        "tests/none.py::test_a",
    ]
    text = "[a](none.md) [b](cli.md#nowhere) [c](cli.md) [d](https://example.org/x) `[e](none.md)`"
    assert broken_links(ROOT / "docs" / "data.md", text) == ["none.md", "cli.md#nowhere"]
