"""MATLAB's files: scipy reads versions up to 7, h5py version 7.3 (HDF5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.errors import DataError, PictureError


def read_mat(path: Path, *names: str, fix: str = "") -> dict[str, Any]:
    """The variables ``names`` of a MATLAB file; structs are objects with attributes, single elements are unwrapped.

    Raises:
        DataError: the file is missing.
        PictureError: the file is broken or has no such variable.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing", f"a MATLAB file with {', '.join(names)}", fix)
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=names, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy has no error of its own for what is broken
        raise PictureError(f"{path}: cannot read the MATLAB file ({error})", f"one with {', '.join(names)}", fix) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise PictureError(f"{path}: no variable {missing[0]!r}", f"a MATLAB file with {', '.join(names)}", fix)
    return {name: found[name] for name in names}


def open_hdf5(path: Path, *names: str, fix: str = "") -> Any:
    """An open ``h5py.File`` that has ``names``.

    Raises:
        DataError: missing, not HDF5, or without one of them.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        what = "missing" if not path.exists() else "not HDF5 (MATLAB 7.3)"
        raise DataError(f"{path}: {what}", f"a file with {', '.join(names)}", fix) from error
    missing = [name for name in names if name not in file]
    if missing:
        file.close()
        raise DataError(f"{path}: no variable {missing[0]!r}", f"a file with {', '.join(names)}", fix)
    return file
