"""Writing ONNX function bodies: expressions in, nodes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from onnx import FunctionProto, NodeProto, helper, numpy_helper


class BodyWriter:
    """Collects the nodes of one function.

    ``writer.op("Add", x, 1.0)`` appends a node and returns the name of its result; arguments are names of values, or
    numbers and arrays, which become float32 or int64 constants (each once).
    """

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def op(self, op_type: str, *inputs: str | ArrayLike, **attributes: Any) -> str:
        """One node of a standard operator with one result."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = self._fresh(op_type.lower())
        self._nodes.append(helper.make_node(op_type, names, [result], **attributes))
        return result

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """A constant; of ``dtype``, else int64 where ``value`` is of integers and float32 where not."""
        array = np.asarray(value)
        if dtype is None and array.dtype != np.bool_:
            dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        array = array.astype(dtype or array.dtype)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.op("Constant", value=numpy_helper.from_array(array))
        return self._constants[key]

    def finish(self, name: str, inputs: list[str], results: dict[str, str], opset: int = 18) -> FunctionProto:
        """The function, whose outputs are named by the keys of ``results``.

        A result's own node writes the output: TensorRT-RTX takes a cast to uint8 only where it is the graph's last node.
        """
        names: dict[str, str] = {}
        for output, value in results.items():
            if value in inputs or value in names:
                self._nodes.append(helper.make_node("Identity", [value], [output]))
            else:
                names[value] = output
        for node in self._nodes:
            node.input[:] = [names.get(value, value) for value in node.input]
            node.output[:] = [names.get(value, value) for value in node.output]
        imports = [helper.make_opsetid("", opset)]
        return helper.make_function("edgeseg", name, inputs, list(results), self._nodes, imports)

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
