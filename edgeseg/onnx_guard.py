"""ONNX files from anywhere, read and written safely.

An ONNX file can name other files (external data), declare tensors larger than memory and hold graphs no runtime takes.
Everything is checked here, against the bytes that are really there, before anything is allocated or run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from edgeseg.errors import OnnxError
from edgeseg.files import atomic_path
from edgeseg.onnx_structure import LIMIT_BYTES, check_structure

_PROTOBUF_LIMIT = (1 << 31) - 1
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_BITS: dict[int, int] = {
    **dict.fromkeys((TensorProto.UINT4, TensorProto.INT4), 4),
    **dict.fromkeys((TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL), 8),
    **dict.fromkeys((TensorProto.UINT16, TensorProto.INT16, TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    **dict.fromkeys((TensorProto.UINT32, TensorProto.INT32, TensorProto.FLOAT), 32),
    **dict.fromkeys((TensorProto.UINT64, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.COMPLEX64), 64),
    TensorProto.COMPLEX128: 128,
}
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
# -Inf stands in masks on purpose; these are the operators that take one.
_MASK_OPERATORS = {"Add", "Where", "Max", "Min", "Clip", "Pad", "PadV2"}


def load_onnx(path: str | Path) -> ModelProto:
    """Read an ONNX file with its external data inlined, and check it whole.

    Nodes that are not in topological order are put in order. No other file than ``path`` and regular files with one
    name, in its folder or below, is opened.

    Raises:
        OnnxError: names the file and the tensor or node that is at fault.
    """
    path = Path(path)
    model = _parse(path)
    try:
        _inline_external(model, path.parent)
        for name, tensor in tensors_of(model):
            check_tensor(tensor, name)
        check_structure(model)
        check_finite(model)
    except OnnxError as error:
        raise OnnxError(f"{path}: {error.what}", error.expected, error.fix) from error
    return model


def save_onnx(model: ModelProto, path: str | Path) -> None:
    """Write ``model`` as one self-contained file, atomically; a link at ``path`` is replaced, never written through.

    Raises:
        OnnxError: a tensor still points into another file, or the model exceeds protobuf's 2 GiB.
    """
    for name, tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise OnnxError(f"{path}: tensor {name!r} lies in another file", "weights inside the model", "read it with load_onnx")
    try:
        data = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise OnnxError(f"{path}: the model exceeds 2 GiB", "a model below 2 GiB", "store the weights as float16") from error
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data)


def _parse(path: Path) -> ModelProto:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OnnxError(f"{path}: not a regular file", "an ONNX file")
        size = path.stat().st_size
        if size > _PROTOBUF_LIMIT:
            raise OnnxError(f"{path}: {size} bytes", "at most 2 GiB in one protobuf file", "store the weights as external data")
        data = path.read_bytes()
    except OSError as error:
        raise OnnxError(f"{path}: {error.strerror}", "an ONNX file that can be read") from error
    if not data:
        raise OnnxError(f"{path}: the file is empty", "an ONNX file", "download or export it again")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise OnnxError(f"{path}: truncated, or not an ONNX file", "an ONNX protobuf", "download or export it again") from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        missing = "ir_version" if not model.ir_version else "opset_import" if not model.opset_import else "graph.node"
        raise OnnxError(f"{path}: not an ONNX model ({missing} is missing)", "an ONNX protobuf", "download or export it again")
    return model


# --- all tensors of a model --------------------------------------------------------------------------------------


def tensors_of(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every tensor of a model with a name for messages: initialisers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from node_tensors(function.node)
    for info in model.training_info:
        yield from _graph_tensors(info.initialization)
        yield from _graph_tensors(info.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse.values
        yield f"{sparse.values.name}.indices", sparse.indices
    yield from node_tensors(graph.node)


def node_tensors(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    """Every tensor in the attributes and subgraphs of ``nodes``, with a name for messages."""
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(node, attribute)


def _attribute_tensors(node: NodeProto, attribute: AttributeProto) -> Iterator[tuple[str, TensorProto]]:
    name = f"{node.name or node.output[0] if node.output else node.op_type}.{attribute.name}"
    if attribute.HasField("t"):
        yield name, attribute.t
    for tensor in attribute.tensors:
        yield name, tensor
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for item in [*sparse, *attribute.sparse_tensors]:
        yield name, item.values
        yield f"{name}.indices", item.indices
    for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
        yield from _graph_tensors(graph)


# --- sizes -------------------------------------------------------------------------------------------------------


def declared_bytes(tensor: TensorProto, name: str) -> int:
    """Bytes that the tensor's dims and type declare; a Python integer, so nothing overflows.

    Raises:
        OnnxError: an unknown type, a negative dimension, or more than ``LIMIT_BYTES``.
    """
    bits = _type_bits(tensor.data_type)
    if bits is None:
        raise OnnxError(f"tensor {name!r} has data type {tensor.data_type}", "a number type of ONNX")
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise OnnxError(f"tensor {name!r} has dims {list(tensor.dims)}", "dims of 0 or more")
        count *= dim
    size = (count * bits + 7) // 8
    if size > LIMIT_BYTES:
        raise OnnxError(f"tensor {name!r} declares {size} bytes (dims {list(tensor.dims)})", f"at most {LIMIT_BYTES} bytes")
    return size


def _type_bits(data_type: int) -> int | None:
    if data_type in _BITS:
        return _BITS[data_type]
    try:  # float8, int2 and what later versions bring
        label = TensorProto.DataType.Name(data_type)
    except ValueError:
        return None
    return next(
        (bits for prefix, bits in (("FLOAT8", 8), ("FLOAT4", 4), ("UINT2", 2), ("INT2", 2)) if label.startswith(prefix)), None
    )


def check_tensor(tensor: TensorProto, name: str) -> None:
    """Refuse a tensor whose dims and type do not agree with the bytes that are there.

    Raises:
        OnnxError: names the tensor, the expected and the actual size.
    """
    if tensor.data_type == TensorProto.STRING:
        return
    expected = declared_bytes(tensor, name)
    typed = [field for field in _TYPED_FIELDS if len(getattr(tensor, field))]
    if len(typed) + tensor.HasField("raw_data") > 1:
        raise OnnxError(f"tensor {name!r} holds its values twice ({', '.join(typed)})", "one of raw_data and typed data")
    if typed:
        _check_typed(tensor, name, typed[0])
    elif len(tensor.raw_data) != expected:
        raise OnnxError(
            f"tensor {name!r} (dims {list(tensor.dims)}) has {len(tensor.raw_data)} bytes",
            f"{expected} bytes",
            "export the file again",
        )


def _check_typed(tensor: TensorProto, name: str, field: str) -> None:
    count = 1
    for dim in tensor.dims:
        count *= dim
    bits = _type_bits(tensor.data_type) or 8
    expected = (
        2 * count
        if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
        else -(-count * bits // 8)
        if bits < 8
        else count
    )
    found = len(getattr(tensor, field))
    if found != expected:
        raise OnnxError(f"tensor {name!r} (dims {list(tensor.dims)}) has {found} values in {field}", f"{expected} values")


# --- external data -----------------------------------------------------------------------------------------------


def _inline_external(model: ModelProto, directory: Path) -> None:
    total = 0
    for name, tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if tensor.data_type == TensorProto.STRING:
            raise OnnxError(f"tensor {name!r}: strings in external data", "numbers")
        total += declared_bytes(tensor, name)
        if total > LIMIT_BYTES:
            raise OnnxError(f"tensor {name!r}: external weights exceed {LIMIT_BYTES} bytes", f"at most {LIMIT_BYTES} bytes in all")
        data = _read_external(tensor, name, directory)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data


def _read_external(tensor: TensorProto, name: str, directory: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    offset, expected = _number(entries, "offset", name) or 0, declared_bytes(tensor, name)
    length = _number(entries, "length", name)
    if length is not None and length != expected:
        raise OnnxError(f"tensor {name!r}: external length {length} bytes", f"{expected} bytes by its dims {list(tensor.dims)}")
    descriptor = _open_beside(directory, location, name, offset + expected)
    with os.fdopen(descriptor, "rb") as stream:
        size = os.fstat(descriptor).st_size
        if size < offset + expected:
            raise OnnxError(
                f"tensor {name!r}: external file {location} has {size} bytes",
                f"at least {offset + expected} bytes (offset {offset} + {expected})",
                "copy the whole file beside the model again",
            )
        stream.seek(offset)
        return stream.read(expected)


def _number(entries: dict[str, str], key: str, name: str) -> int | None:
    text = entries.get(key, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise OnnxError(f"tensor {name!r}: external {key} {text[:40]!r}", "a whole number of bytes, 0 or more")
    return int(text)


def _open_beside(directory: Path, location: str, name: str, needed: int) -> int:
    """Descriptor of a regular file in ``directory`` or below, opened step by step so that no link can be slipped in."""
    parts = PurePosixPath(location).parts
    unsafe = not parts or location.startswith("/") or ".." in parts or "\\" in location or ":" in location or "\0" in location
    if unsafe:
        raise OnnxError(
            f"tensor {name!r}: external file {location!r}",
            "a file in the model's own folder",
            "get the file from a source you trust",
        )
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            held, previous = os.open(part, flags | os.O_DIRECTORY, dir_fd=held), held
            os.close(previous)
        found = os.open(parts[-1], flags, dir_fd=held)
    except OSError as error:
        if _has_link(directory, parts):
            raise OnnxError(
                f"tensor {name!r}: external file {location} is a symbolic link", "a regular file", "copy the file itself"
            ) from error
        raise OnnxError(
            f"tensor {name!r}: external file {location}: {error.strerror}",
            f"a file of at least {needed} bytes beside the model",
            "copy it there",
        ) from error
    finally:
        os.close(held)
    status = os.fstat(found)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(found)
        what = f"has {status.st_nlink} names (hard links)" if stat.S_ISREG(status.st_mode) else "is not a regular file"
        raise OnnxError(f"tensor {name!r}: external file {location} {what}", "a regular file with one name", "copy the file itself")
    return found


def _has_link(directory: Path, parts: tuple[str, ...]) -> bool:
    return any(directory.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))


# --- values ------------------------------------------------------------------------------------------------------


def check_finite(model: ModelProto) -> None:
    """Refuse NaN anywhere, and Inf in weights; a scalar bound and a mask of -Inf may stay.

    Raises:
        OnnxError: names the tensor and how many of its values are not finite.
    """
    consumers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, set()).add(node.op_type)
    for name, tensor in tensors_of(model):
        if tensor.data_type in _FLOATS:
            _check_values(tensor, name, consumers.get(name, set()) <= _MASK_OPERATORS)


def _check_values(tensor: TensorProto, name: str, mask: bool) -> None:
    values = np.asarray(onnx.numpy_helper.to_array(tensor))
    if values.dtype not in (np.float16, np.float32, np.float64):
        values = values.astype(np.float32)
    if np.isfinite(values).all():
        return
    nans, infinities = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if not nans and (values.size == 1 or (mask and not np.isposinf(values).any())):
        return
    raise OnnxError(
        f"tensor {name!r} holds {nans} NaN and {infinities} Inf of {values.size} values",
        "finite weights",
        "train or export it again",
    )
