"""``edgeseg doctor``: what this machine can run, what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgeseg.cli.common import JsonOption, print_json, print_lines, print_table

EXAMPLES = """
edgeseg doctor
edgeseg doctor --json
"""

CHECKS = {
    "machine": "edgeseg.cli.doctor_machine:machine",
    "backends": "edgeseg.cli.doctor_machine:backends",
    "kernels": "edgeseg.cli.doctor_machine:kernels",
    "video": "edgeseg.cli.doctor_devices:video",
    "depth": "edgeseg.cli.doctor_devices:depth",
    "nvidia": "edgeseg.cli.doctor_devices:nvidia",
}
"""Group -> function that yields its findings."""


@dataclass(frozen=True)
class Finding:
    """One thing looked for. ``present`` None is a plain fact; a missing thing says what for and how to get it."""

    name: str
    present: bool | None
    detail: str
    purpose: str = ""
    fix: str = ""


def command(as_json: JsonOption = False) -> None:
    """Show what this machine can run; for each missing thing what it is for and how to get it.

    Only the base needs to be there: everything else is optional, so the exit code is 0.
    """
    groups = {name: list(findings(name)) for name in CHECKS}
    if as_json:
        print_json(groups)
        return
    marks = {True: "yes", False: "no", None: ""}
    for name, items in groups.items():
        rows = [(item.name, marks[item.present], item.detail) for item in items]
        print_table(name.capitalize(), ["what", "there", "detail"], rows)
    missing = [item for items in groups.values() for item in items if item.present is False]
    print_lines(f"missing {item.name}: {item.purpose}; get it: {item.fix}" for item in missing)


def findings(group: str) -> Iterator[Finding]:
    """The findings of one group; a check that fails itself is a finding too."""
    from importlib import import_module

    module, _, function = CHECKS[group].partition(":")
    try:
        check: Callable[[], Iterator[Finding]] = getattr(import_module(module), function)
        yield from check()
    except Exception as error:  # a broken library must not hide what the other checks find
        yield Finding(group, False, f"{type(error).__name__}: {error}", "the check itself failed", "reinstall the library it names")
