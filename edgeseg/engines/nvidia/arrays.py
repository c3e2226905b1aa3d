"""Other libraries' arrays as what the runner binds: a device address or host memory, without a copy.

DLPack is asked first, since there the producer orders its stream before ours; ``__cuda_array_interface__`` (version 3)
names a stream to wait for, and where it names none the caller has already synchronised.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import BackendError

_CUDA, _CUDA_HOST, _CUDA_MANAGED = 2, 3, 13  # DLDeviceType
_CODES = {0: "int", 1: "uint", 2: "float", 6: "bool"}  # DLDataTypeCode


@dataclass(frozen=True)
class DeviceArray:
    """C-contiguous device memory; ``owner`` keeps it alive."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def device_array(name: str, array: Any, stream: int, wait: Callable[[int], None]) -> DeviceArray | None:
    """``array`` as device memory; None if it lies on the host.

    Args:
        name: of the tensor, for messages.
        stream: ours, before which a DLPack producer orders its work.
        wait: makes our stream wait for another.

    Raises:
        BackendError: device memory that is not C-contiguous, or of a type that numpy has not.
    """
    if isinstance(array, np.ndarray | DeviceArray):
        return array if isinstance(array, DeviceArray) else None
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        if int(array.__dlpack_device__()[0]) in (_CUDA, _CUDA_MANAGED):
            return _from_dlpack(name, array, stream)
        return None
    if hasattr(array, "__cuda_array_interface__"):
        return _from_interface(name, array, wait)
    return None


def _from_interface(name: str, array: Any, wait: Callable[[int], None]) -> DeviceArray:
    item = array.__cuda_array_interface__
    shape, dtype = tuple(item["shape"]), np.dtype(item["typestr"])
    _check_strides(name, shape, [size // dtype.itemsize for size in item["strides"]] if item.get("strides") else None)
    if item.get("stream"):
        wait(int(item["stream"]))
    return DeviceArray(int(item["data"][0] or 0), shape, dtype.name, array)


def _check_strides(name: str, shape: tuple[int, ...], strides: list[int] | None) -> None:
    if strides is None or 0 in shape:
        return
    packed = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    if any(have != want and size > 1 for have, want, size in zip(strides, packed, shape, strict=True)):
        raise BackendError(f"{name}: device memory with strides {strides}", "a C-contiguous array", "array.contiguous()")


# --- DLPack's C structures ---------------------------------------------------------------------------------------


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("dtype", _DataType), ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


def _from_dlpack(name: str, array: Any, stream: int) -> DeviceArray:
    capsule = array.__dlpack__(stream=stream)
    tensor = read_capsule(capsule)
    kind = _CODES.get(tensor.dtype.code)
    if kind is None or tensor.dtype.lanes != 1:
        raise BackendError(f"{name}: DLPack type code {tensor.dtype.code}", "a plain number type", "convert it first")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    _check_strides(name, shape, [tensor.strides[axis] for axis in range(tensor.ndim)] if tensor.strides else None)
    dtype = "bool" if kind == "bool" else f"{kind}{tensor.dtype.bits}"
    # The capsule is never consumed: it frees its view when it goes, and the memory stays its producer's.
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, dtype, (array, capsule))


def read_capsule(capsule: Any) -> Any:
    """The DLTensor inside a DLPack capsule of the unversioned form, which stays as it is."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # DLManagedTensor starts with its DLTensor.
    return _Tensor.from_address(pointer(capsule, b"dltensor"))
