"""The machine a figure was measured on, in one line."""

from __future__ import annotations

from datetime import date

from edgeseg.engines.keys import device
from edgeseg.engines.session import default_threads
from edgeseg.manifest import Measurement

_TELLING = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512f", "avx2", "i8mm", "asimddp", "asimd")


def machine_line() -> str:
    """CPU, usable cores, architecture and the instruction sets that decide inference speed."""
    fields = device()
    flags = fields["isa"].split()
    telling = [flag for flag in _TELLING if flag in flags][:3]
    cores = default_threads()
    return f"{fields['cpu']}, {cores} core{'s' if cores > 1 else ''}, {fields['arch']} {' '.join(telling)}".rstrip()


def measurement(what: str, backend: str, precision: str, data: str, values: dict[str, float]) -> Measurement:
    """A figure of today on this machine, for ``ModelFolder.add_measurement``."""
    today = date.today().isoformat()
    return Measurement(
        what=what, backend=backend, precision=precision, machine=machine_line(), date=today, data=data, values=values
    )
