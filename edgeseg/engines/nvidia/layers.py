"""What an engine consists of: its layers with precisions, formats, tactics and the ONNX nodes that each one fuses.

From the inspector's JSON where the engine can be opened, else from the same description that the builder prints while it
builds, which needs no GPU. Both become one list of {"name", "type", "tactic", "nodes", "inputs", "outputs"}, the tensors as
{"name", "shape", "dtype", "format"}.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgeseg.errors import BackendError

Layer = dict[str, Any]

_TYPES = {
    "Float": "float32", "Half": "float16", "Int8": "int8", "Int32": "int32", "Int64": "int64", "UInt8": "uint8", "Bool": "bool",
    "BFloat16": "bfloat16", "FP8": "float8", "Int4": "int4", "FP32": "float32", "FP16": "float16", "BF16": "bfloat16",
    "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
}  # fmt: skip
_WAITING = frozenset({"signal", "wait"})  # how streams of one engine wait for each other: no work


def describe(trt: Any, engine: bytes, log: Any, plugins: Path | None = None) -> list[Layer]:
    """The layers of a serialised engine by its inspector; opens it, so that it needs a GPU.

    Raises:
        BackendError: the library cannot open what it just built.
    """
    runtime = trt.Runtime(log.sink)
    if plugins is not None and hasattr(runtime, "get_plugin_registry"):
        runtime.get_plugin_registry().load_library(str(plugins))
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    opened = runtime.deserialize_cuda_engine(engine)
    if opened is None:
        raise BackendError(f"the engine cannot be opened again: {log.cause()}", fix="build it again")
    return from_inspector(opened.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def from_inspector(text: str) -> list[Layer]:
    """The layers in the inspector's JSON, of 10.x and 11.x alike; with little profiling verbosity they are bare names."""
    try:
        found = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [_layer({"Name": item} if isinstance(item, str) else item) for item in found]


def from_log(text: str) -> list[Layer]:
    """The layers in what the builder prints under ``Layers:``, one line each."""
    listed = text.partition("\n\n")[0]
    lines = [line for line in listed.splitlines() if line.startswith("Name: ")]
    return [_layer(_one_line(line)) for line in lines]


def _one_line(line: str) -> dict[str, Any]:
    """``Name: a, LayerType: b, Inputs: [ { Name: c, ... }, ... ], ...`` with the keys and values of the JSON form."""
    item: dict[str, Any] = _pairs(line)
    for key in ("Inputs", "Constants", "Outputs"):
        listed = _split(item.get(key, "[]").strip()[1:-1])
        item[key] = [_pairs(part.strip().strip("{}")) for part in listed if part.strip().startswith("{")]
        for tensor in item[key]:
            tensor["Dimensions"] = [int(size) for size in re.findall(r"-?\d+", tensor.get("Dimensions", ""))]
    return item


def _pairs(text: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    last = ""
    for piece in _split(text.strip()):
        key, colon, value = piece.strip().partition(": ")
        if colon and key.isalpha():
            pairs[last := key] = value
        elif last:
            pairs[last] += f", {piece.strip()}"
    return pairs


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside of all brackets."""
    pieces, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            pieces.append(text[start:index])
            start = index + 1
    return [*pieces, text[start:]]


def _layer(item: dict[str, Any]) -> Layer:
    return {
        "name": item.get("Name", ""),
        "type": item.get("LayerType", ""),
        "tactic": item.get("TacticName") or str(item.get("TacticValue", "")),
        "nodes": _nodes(str(item.get("Metadata", ""))),
        "inputs": [_tensor(tensor) for tensor in item.get("Inputs", [])],
        "outputs": [_tensor(tensor) for tensor in item.get("Outputs", [])],
    }


def _nodes(metadata: str) -> list[str]:
    return [name for name in re.findall(r"\[ONNX Layer: (.*?)\](?=\[|\x1e|,|\s|$)", metadata) if name]


def _tensor(item: dict[str, Any]) -> dict[str, Any]:
    # 10.x says type and format in one phrase, "Channel major FP16 format where C % 8 == 0"; later versions in two.
    phrase = str(item.get("Format/Datatype", ""))
    dtype = str(
        item.get("Datatype") or item.get("DataType") or next(iter(re.findall(r"\b(?:BF|FP|U?INT)\d+\b", phrase.upper())), "")
    )
    layout = str(item.get("Format") or re.sub(r"\s*\b(?:BF|FP|U?INT)\d+\b", "", phrase, flags=re.IGNORECASE))
    return {
        "name": item.get("Name", ""),
        "shape": list(item.get("Dimensions", [])),
        "dtype": _TYPES.get(dtype, dtype),
        "format": layout.strip(),
    }


def summary(found: list[Layer]) -> dict[str, Any]:
    """{"layers": those that work, "fused": chains of several nodes, "dtypes": outputs by type}."""
    working = [item for item in found if item["type"] not in _WAITING]
    dtypes: dict[str, int] = {}
    for item in working:
        for tensor in item["outputs"]:
            dtypes[tensor["dtype"] or "unknown"] = dtypes.get(tensor["dtype"] or "unknown", 0) + 1
    return {"layers": len(working), "fused": sum(len(item["nodes"]) > 1 for item in working), "dtypes": dtypes}


def rows(found: list[Layer]) -> list[tuple[str, str, str, str, str]]:
    """(layer, type, precision, format, tactic or nodes) of the layers that work, for a table."""
    return [
        (
            " + ".join(_telling(item["nodes"])) or item["name"],
            item["type"],
            _precision(item),
            " ".join(dict.fromkeys(tensor["format"] for tensor in item["outputs"])),
            item["tactic"],
        )
        for item in found
        if item["type"] not in _WAITING
    ]


def _precision(item: Layer) -> str:
    """Types in and out, such as ``int8 -> float16``; one where they are the same."""
    sides = [" ".join(dict.fromkeys(tensor["dtype"] for tensor in item[side])) for side in ("inputs", "outputs")]
    return " -> ".join(dict.fromkeys(side for side in sides if side))


def _telling(nodes: list[str]) -> list[str]:
    """Without the Q/DQ nodes around others, which the precisions tell already."""
    return [name for name in nodes if not name.endswith(("QuantizeLinear", "DequantizeLinear", "half_cast"))] or nodes
