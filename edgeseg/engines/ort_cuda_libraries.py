"""What ONNX Runtime's GPU providers need, asked before they are loaded: where something is missing ONNX Runtime itself prints
errors, runs on the CPU and calls that a success."""

from __future__ import annotations

import ctypes
import io
import mmap
import struct
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_HELP = {
    CUDA: "pip install 'onnxruntime-gpu[cuda,cudnn]', or CUDA and cuDNN of these versions",
    TENSORRT: "install TensorRT of that version",
}
_PT_LOAD, _PT_DYNAMIC, _DT_NEEDED, _DT_STRTAB = 1, 2, 1, 5


def wrong_package() -> str | None:
    """None, or why the installed package has no CUDA provider, and what to install."""
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(both) == 2:
        remedy = "`pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`"
        return f"onnxruntime and onnxruntime-gpu are both installed, and either overwrites the other's files: {remedy}"
    if CUDA not in onnxruntime.get_available_providers():
        remedy = "`pip uninstall -y onnxruntime`, then `pip install 'edgeseg[gpu]'` (the two cannot be installed together)"
        return f"the installed onnxruntime has no CUDA provider: {remedy}"
    return None


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


@cache
def missing_library(provider: str) -> str | None:
    """None, or which shared library a provider does not find, and how to get it.

    The provider itself is not loaded: it may be only after ONNX Runtime has made itself known to it.
    """
    if provider not in onnxruntime.get_available_providers():
        return f"this build of ONNX Runtime has no {provider}"
    if not _file(provider).is_file():
        return None  # linked in, so it was found already
    _preload()
    for name in _needed_by(provider):
        if reason := _cannot_load(name):
            return f"{reason}; {_HELP[provider]}"
    return None


def _file(provider: str) -> Path:
    return Path(onnxruntime.__file__).parent / "capi" / _LIBRARIES[provider]


def _needed_by(provider: str) -> list[str]:
    # The CUDA provider looks for cuDNN only once a convolution needs it; the TensorRT provider beside it names its version.
    others = needed(_file(TENSORRT)) if provider == CUDA and _file(TENSORRT).is_file() else []
    return [*needed(_file(provider)), *(name for name in others if name.startswith("libcudnn"))]


def needed(library: Path) -> list[str]:
    """The libraries that an ELF file of 64 bits, little-endian, names as needed (DT_NEEDED), but for ONNX Runtime's own."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [name for name in _dynamic_strings(data) if not name.startswith("libonnxruntime")]


def _dynamic_strings(data: mmap.mmap) -> Iterator[str]:
    # ELF-64: program headers say where segments lie in the file and in memory; the dynamic segment has the names' offsets.
    if data[:6] != b"\x7fELF\x02\x01":
        return
    (first,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, first + index * size) for index in range(count)]
    segments = [(kind, offset, address, length) for kind, _, offset, address, _, length, _, _ in headers]
    for _, offset, _, length in (item for item in segments if item[0] == _PT_DYNAMIC):
        entries = list(struct.iter_unpack("<qQ", data[offset : offset + length // 16 * 16]))
        table = next(value for tag, value in entries if tag == _DT_STRTAB)
        strings = next(
            table - where + at for kind, at, where, span in segments if kind == _PT_LOAD and where <= table < where + span
        )
        for tag, value in entries:
            if tag == _DT_NEEDED:
                yield data[strings + value : data.find(b"\0", strings + value)].decode()


def _cannot_load(name: str) -> str | None:
    try:
        ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
    except OSError as error:
        return " ".join(str(error).split())[:200]
    return None


@cache
def _preload() -> None:
    # pip's CUDA, cuDNN and TensorRT lie where the loader does not look; what is loaded already it finds by name.
    with redirect_stdout(io.StringIO()), suppress(Exception):
        onnxruntime.preload_dlls()
    spec = find_spec("tensorrt_libs")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).glob("libnv*.so*")):
            _cannot_load(str(path))


@cache
def tensorrt_version() -> str:
    """Version of the TensorRT that the provider runs, such as 10.16.2; "none" where it finds none."""
    if missing_library(TENSORRT):
        return "none"
    name = next((name for name in needed(_file(TENSORRT)) if name.startswith("libnvinfer.so")), "libnvinfer.so")
    number = int(ctypes.CDLL(name).getInferLibVersion())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
