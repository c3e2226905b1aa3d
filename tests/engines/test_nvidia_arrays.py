"""Device memory of other libraries, the GPU's description, and CUDA's errors: as far as a machine without a GPU can tell."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeseg.engines.nvidia import device
from edgeseg.engines.nvidia.arrays import DeviceArray, device_array, read_capsule
from edgeseg.engines.nvidia.cuda import Cuda, StickyCudaError
from edgeseg.errors import BackendError


def take(array: Any, waits: list[int] | None = None) -> DeviceArray | None:
    return device_array("image", array, 5, (waits if waits is not None else []).append)


def interface(**changes: Any) -> Any:
    said = {"shape": (2, 3), "typestr": "<f4", "data": (512, False), "version": 3, **changes}
    return SimpleNamespace(__cuda_array_interface__=said)


class PretendsCuda:
    """A numpy array whose DLPack says that it lies on a GPU."""

    def __init__(self, array: np.ndarray, kind: int = 2) -> None:
        self.array, self.kind, self.streams = array, kind, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


def test_host_arrays_are_not_device_arrays() -> None:
    assert take(np.zeros(3)) is None
    assert take([1, 2]) is None
    assert take(PretendsCuda(np.zeros(3), kind=1)) is None


def test_cuda_array_interface() -> None:
    waits: list[int] = []
    found = take(interface(stream=9), waits)
    assert (found.address, found.shape, found.dtype, found.nbytes) == (512, (2, 3), "float32", 24)
    assert waits == [9]
    assert take(interface(strides=(12, 4))).address == 512
    assert take(interface(shape=(0, 3), data=(0, False))).nbytes == 0


@pytest.mark.parametrize("strides", [(4, 8), (24, 8), (0, 4)])
def test_device_memory_in_another_order_is_refused(strides: tuple[int, int]) -> None:
    with pytest.raises(BackendError, match=r"strides .*contiguous"):
        take(interface(strides=strides))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64", "int8"])
def test_dlpack(dtype: str) -> None:
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    pretends = PretendsCuda(array)
    found = take(pretends)
    assert (found.address, found.shape, found.dtype) == (array.ctypes.data, (2, 3, 4), dtype)
    assert pretends.streams == [5], "the producer orders its work before our stream"
    part = take(PretendsCuda(array[1:]))
    assert part.address == array[1:].ctypes.data
    with pytest.raises(BackendError, match="strides"):
        take(PretendsCuda(array[:, ::2]))
    with pytest.raises(BackendError, match="strides"):
        take(PretendsCuda(array.transpose(2, 0, 1)))


def test_dlpack_capsule_stays_usable() -> None:
    capsule = np.arange(3, dtype=np.float32).__dlpack__()
    assert read_capsule(capsule).ndim == 1
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    assert name(capsule) == b"dltensor", "a consumed capsule would be freed twice"


def test_dlpack_types_that_numpy_has_not_are_refused() -> None:
    with pytest.raises(BackendError, match="type code 5"):
        take(PretendsCuda(np.zeros(2, np.complex64)))


def test_torch_tensors_are_taken_where_torch_is() -> None:
    torch = pytest.importorskip("torch")
    assert take(torch.zeros(2)) is None  # on the host


# --- the GPU -----------------------------------------------------------------------------------------------------


def test_no_gpu_is_one_reason() -> None:
    if device.gpu() is not None:
        pytest.skip("there is a GPU here")
    reason = device.why_no_gpu()
    assert reason
    assert "\n" not in reason


def fake_driver(**changes: Any) -> Any:
    ok = SimpleNamespace(name="CUDA_SUCCESS", __int__=lambda: 0)

    class Status(int):
        name = "CUDA_ERROR_NO_DEVICE"

    attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=7)
    said = {
        "cuInit": lambda flags: (Status(0),),
        "cuDeviceGetCount": lambda: (Status(0), 1),
        "cuDeviceGet": lambda index: (ok, 0),
        "cuDeviceGetAttribute": lambda which, index: (ok, which),
        "CUdevice_attribute": attribute,
        "cuDeviceGetName": lambda size, index: (ok, b"Orin\0\0\0"),
        "cuDeviceTotalMem": lambda index: (ok, 8 << 30),
        "cuDriverGetVersion": lambda: (ok, 12060),
        **changes,
    }
    return SimpleNamespace(**said), Status


def test_the_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-python is not installed")
    import cuda.bindings

    driver, status = fake_driver()
    monkeypatch.setattr(cuda.bindings, "driver", driver, raising=False)
    found = device._ask.__wrapped__(0)
    assert (found.name, found.sm, found.memory_mb) == ("Orin", "sm87", 8192)
    assert "CUDA 12.6" in found.driver
    assert "number 3" in device._ask.__wrapped__(3)
    refusing, _ = fake_driver(cuInit=lambda flags: (status(100),))
    monkeypatch.setattr(cuda.bindings, "driver", refusing)
    assert device._ask.__wrapped__(0) == "no NVIDIA GPU (CUDA error 100, CUDA_ERROR_NO_DEVICE)"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27",
            "580.65.06, CUDA 13.0",
        ),
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081", "R36 (release), REVISION: 4.3, CUDA 13.0"),
        ("other", "", "CUDA 13.0"),
    ],
)
def test_driver_versions(tmp_path: Path, file: str, text: str, expected: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert device.driver_version(13000, tmp_path) == expected


# --- CUDA's runtime ----------------------------------------------------------------------------------------------


def test_opening_the_gpu_without_one_is_one_line() -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-python is not installed")
    if device.gpu() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match=r"CUDA error \d+ \(cuda\w+\) while opening the GPU") as caught:
        Cuda()
    assert "\n" not in str(caught.value)


def test_what_the_wrapper_asks_of_the_bindings_exists() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    source = (Path(device.__file__).parent / "cuda.py").read_text()
    used = set(re.findall(r"(?:_api|api|runtime)\.(cuda\w+)", source))
    assert [name for name in sorted(used) if not hasattr(runtime, name)] == []
    assert len(used) > 15


def test_sticky_codes_are_those_that_the_runtime_names() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    from edgeseg.engines.nvidia.cuda import STICKY, cuda_error

    names = {int(item): item.name for item in runtime.cudaError_t}
    sticky = {names.get(code, "") for code in STICKY}
    assert {"cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorAssert", "cudaErrorMisalignedAddress"} <= sticky
    assert not sticky & {"cudaErrorMemoryAllocation", "cudaErrorInvalidValue", "cudaErrorStreamCaptureInvalidated"}
    assert isinstance(cuda_error(700, "x", "y"), StickyCudaError)
