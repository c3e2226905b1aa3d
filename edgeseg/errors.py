"""The errors a user may see: what arrived, what was expected, how to fix it."""

from __future__ import annotations


class EdgesegError(Exception):
    """A user's mistake or a missing part, told in one line; the CLI prints it and exits with ``exit_code``.

    Args:
        what: what arrived, with the file or setting that is at fault.
        expected: what was expected instead.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, expected: str = "", fix: str = "") -> None:
        self.what, self.expected, self.fix = what, expected, fix
        parts = [what, f"expected {expected}" if expected else "", f"fix: {fix}" if fix else ""]
        super().__init__("; ".join(part for part in parts if part))


class ManifestError(EdgesegError):
    """model.json is not what its schema says; ``what`` starts with the JSON path."""


class OnnxError(EdgesegError):
    """An ONNX file is malformed, unsafe or outside what edgeseg takes."""


class DataError(EdgesegError):
    """A data set is missing, malformed or used where it must not be."""


class PictureError(DataError):
    """One picture file is missing or cannot be decoded; a step over many pictures may skip it and count."""


class BackendError(EdgesegError):
    """A backend is not installed, or cannot run the model or precision asked for."""


class SourceError(EdgesegError):
    """A video source or sink cannot be opened, read or written."""
