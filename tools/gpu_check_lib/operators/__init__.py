"""One module per family of operators, each with the same faces.

``cases()`` lists the cases; ``inputs(case)`` makes the arrays; ``bind(case, inputs, call)`` returns the launcher's arguments;
``expected(case, inputs, device)`` computes the results in float64 with torch; ``rivals(case, inputs, device)`` asks other
implementations; ``check(case, inputs, got, expected)``, where there is one, stands for the plain comparison, and
``selected(case, got)`` and ``unselected(case, got)`` tell what of the results is compared and what must stay untouched.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from gpu_check_lib.case import Case

MODULES = {
    "roi_align": "roi_align",
    "max_pool_argmax": "max_pool",
    "max_unpool": "max_pool",
    "max_pool_indices": "max_pool",
    "max_unpool_indices": "max_pool",
    "upsample_argmax": "upsample_argmax",
    "preprocess": "frame",
    "overlay": "frame",
}
"""Operator -> module of this package."""


def module_of(operator: str) -> ModuleType:
    return import_module(f"gpu_check_lib.operators.{MODULES[operator]}")


def all_cases(only: list[str] | None = None, quick: bool = False, sanitize: bool = False) -> list[Case]:
    """The cases of some operators (all by default), whole or the short list or the sanitizer's."""
    found = [case for name in dict.fromkeys(MODULES.values()) for case in import_module(f"gpu_check_lib.operators.{name}").cases()]
    names = [case.name for case in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two cases of one name: {sorted({name for name in names if names.count(name) > 1})}")
    return [
        case
        for case in found
        if (not only or case.operator in only) and (not quick or case.quick) and (not sanitize or case.sanitize)
    ]
