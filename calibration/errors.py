"""The error a user of this package may see: what arrived, what was expected, how to fix it."""

from __future__ import annotations


class CalibrationError(Exception):
    """A model, a set of images or a ranges file that cannot be calibrated or quantised, told in one line.

    Args:
        what: what arrived, with the file, node or tensor that is at fault.
        expected: what was expected instead.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, expected: str = "", fix: str = "") -> None:
        self.what, self.expected, self.fix = what, expected, fix
        parts = [what, f"expected {expected}" if expected else "", f"fix: {fix}" if fix else ""]
        super().__init__("; ".join(part for part in parts if part))
