"""Where Q/DQ pairs go: which activations and weights of a prepared graph a profile quantises, and which share a scale."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calibration.graph import STANDARD_DOMAINS, Index, attributes, element_types, index, operator, ranks, static_shapes
from calibration.profiles import PROFILES, Profile

_CLAMPS = {"Relu", "Clip"}
_NONNEGATIVE = {"Relu", "Clip", "Sigmoid", "Softmax", "HardSigmoid"}  # Clip: in networks, ReLU6


@dataclass
class Weight:
    """A constant input of a compute node: its position and its output-channel axis (None: one scale for all)."""

    node: NodeProto
    place: int
    axis: int | None


@dataclass
class Placement:
    """What one profile quantises in one graph.

    Attributes:
        groups: tensor -> name of its group; tensors of a group share one scale. In graph order.
        weights: constant inputs that become int8.
        nodes: the compute nodes that run in INT8.
        source: input tensor of a compute node -> the quantised tensor whose codes it reads.
    """

    groups: dict[str, str] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)


def place(model: ModelProto, profile: Profile, skip: Collection[str] = ()) -> Placement:
    """Decide the Q/DQ pairs of ``model`` (prepared) for ``profile``; nodes named in ``skip`` stay float."""
    return _Planner(model, profile, frozenset(skip)).run()


def observed(model: ModelProto) -> list[str]:
    """Every tensor that some profile could quantise, in graph order: what calibration has to look at."""
    found: set[str] = set()
    for profile in PROFILES.values():
        found |= set(place(model, profile).groups)
    return sorted(found, key=_graph_order(index(model.graph)))


def _graph_order(known: Index) -> Callable[[str], tuple[int, str]]:
    return lambda name: (known.order.get(name, -1), name)


class _Planner:
    """Demand travels backwards: a compute node asks for 8-bit inputs, and operators that move values pass it on."""

    def __init__(self, model: ModelProto, profile: Profile, skip: frozenset[str]) -> None:
        self.graph, self.profile, self.skip = model.graph, profile, skip
        self.known = index(model.graph)
        self.types = element_types(model.graph)
        self.shapes = static_shapes(model.graph)
        self.ranks = ranks(model.graph)
        self.parent: dict[str, str] = {}
        self.chosen: set[str] = set()
        self.sources: dict[str, str] = {}
        self.placement = Placement()
        self.depth = self._depths()

    def run(self) -> Placement:
        for node in self.graph.node:
            if self._is_compute(node):
                self._add_compute(node)
        for node in self.graph.node:
            self._add_reader(node)
        if self.profile.quantise_outputs:
            for node in self.placement.nodes:
                self._add_output(node)
        for node in self.graph.node:
            if node.op_type == "Add" and node.name not in self.skip:
                self._add_residual(node)
        ordered = sorted(self.chosen, key=_graph_order(self.known))
        self.placement.groups = {name: self._root(name) for name in ordered}
        return self.placement

    def _is_float(self, tensor: str) -> bool:
        return self.types.get(tensor) == TensorProto.FLOAT

    def _is_compute(self, node: NodeProto) -> bool:
        if node.domain not in STANDARD_DOMAINS or node.op_type not in self.profile.compute or node.name in self.skip:
            return False
        if self.known.is_constant(node.input[0]) or not all(self._is_float(name) for name in node.input[:2]):
            return False
        if not self.profile.joined_tokens and any(self._is_joined(name) for name in node.input[:2]):
            return False
        if node.op_type == "Gemm":
            options = attributes(node)
            return not options.get("transA", 0) and options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0
        return node.op_type == "MatMul" or self.known.is_constant(node.input[1])

    def _is_joined(self, tensor: str) -> bool:
        """Whether ``tensor`` only moves the values of a Concat of tokens, (N, L, channels)."""
        node = self.known.producer.get(tensor)
        if node is not None and node.op_type == "Concat" and self.ranks.get(tensor) == 3:
            return True
        return any(self._is_joined(name) for name in self._moved_inputs(tensor))

    def _add_compute(self, node: NodeProto) -> None:
        self.placement.nodes.append(node)
        for place, name in enumerate(node.input[:2]):
            if self.known.is_constant(name):
                self.placement.weights.append(Weight(node, place, self._channel_axis(node, name)))
            else:
                self.placement.source[name] = self._demand(name)

    def _add_reader(self, node: NodeProto) -> None:
        places = self.profile.reads.get(operator(node))
        if places is not None and node.name not in self.skip:
            for name in node.input[places]:
                if self._is_float(name) and not self.known.is_constant(name):
                    self._demand(name)

    def _channel_axis(self, node: NodeProto, weight: str) -> int | None:
        shape = tuple(self.known.initializers[weight].dims)
        if node.op_type == "Conv":
            return 0
        if node.op_type == "ConvTranspose":
            # (C_in, C_out / groups, ...): one axis tells output channels apart only when dense or depthwise.
            return 1 if attributes(node).get("group", 1) == 1 else 0 if shape[1] == 1 else None
        if node.op_type == "Gemm":
            return 0 if attributes(node).get("transB", 0) else 1
        return len(shape) - 1 if len(shape) > 1 else None

    def _add_output(self, node: NodeProto) -> None:
        name = node.output[0]
        if node.op_type == "MatMul":
            # Not behind a ReLU: the Gemm has a Reshape behind it, which would stand between.
            if (bias := self._bias(node)) is not None and self._is_float(bias.output[0]):
                self.chosen.add(bias.output[0])
            return
        reader = self.known.only_user(name)
        if reader is not None and reader.op_type in _CLAMPS and reader.name not in self.skip:
            name = reader.output[0]
        if self._is_float(name):
            self.chosen.add(name)

    def _bias(self, node: NodeProto) -> NodeProto | None:
        """The Add of a linear layer: ONNX Runtime makes a Gemm of MatMul and Add before it looks for Q/DQ around them."""
        reader = self.known.only_user(node.output[0])
        if not self.known.is_constant(node.input[1]) or reader is None or reader.op_type != "Add" or reader.name in self.skip:
            return None
        other = next((name for name in reader.input if name != node.output[0]), "")
        constant = self.known.initializers.get(other)
        return reader if constant is not None and len(constant.dims) == 1 else None

    def _demand(self, tensor: str) -> str:
        """Have ``tensor`` arrive as 8-bit codes; returns the tensor that is quantised for it."""
        if tensor in self.sources:
            return self.sources[tensor]
        inputs = self._moved_inputs(tensor)
        sources = [self._demand(name) for name in inputs]
        if not self._may_share(inputs):
            inputs = sources = []
        for source in sources:
            self._tie(tensor, source)
        if not inputs or operator(self.known.producer[tensor]) in self.profile.restate:
            self.chosen.add(tensor)
        self.sources[tensor] = self.sources[inputs[0]] if inputs else tensor
        return self.sources[tensor]

    def _moved_inputs(self, tensor: str) -> list[str]:
        """The tensors whose values ``tensor`` only moves; empty where it is computed."""
        node = self.known.producer.get(tensor)
        if node is None or node.name in self.skip or not self._is_float(tensor):
            return []
        places = self.profile.moves.get(operator(node))
        moved = [] if places is None else list(dict.fromkeys(node.input[places]))
        if any(self.known.is_constant(name) or not self._is_float(name) for name in moved):
            return []
        if node.op_type == "Resize" and not _resize_interpolates(node):
            return []
        if node.op_type == "Pad" and not self._pads_zero(node):
            return []
        return moved

    def _may_share(self, tensors: list[str]) -> bool:
        return self.profile.share_mixed or len({self._is_nonnegative(name) for name in tensors}) == 1

    def _is_nonnegative(self, tensor: str) -> bool:
        node = self.known.producer.get(tensor)
        inputs = self._moved_inputs(tensor)
        if inputs:
            return all(self._is_nonnegative(name) for name in inputs)
        return node is not None and node.op_type in _NONNEGATIVE

    def _pads_zero(self, node: NodeProto) -> bool:
        """Zero is a code of every scale; another constant may lie outside the range."""
        if attributes(node).get("mode", "constant") != "constant" or len(node.input) < 3 or not node.input[2]:
            return True
        value = self.known.initializers.get(node.input[2])
        return value is not None and float(numpy_helper.to_array(value)) == 0.0

    def _add_residual(self, node: NodeProto) -> None:
        left, right = node.input
        if any(self.known.is_constant(name) or not self._is_float(name) for name in node.input):
            return
        if self.shapes.get(left) != self.shapes.get(right) or left == right:
            return
        fused = [name for name in node.input if self._fuses(name)]
        if not fused:
            return
        if self.profile.add == "both":
            self._demand(left)
            self._demand(right)
            reader = self.known.only_user(node.output[0])
            self.chosen.add(reader.output[0] if reader is not None and reader.op_type in _CLAMPS else node.output[0])
            return
        # The Add runs inside the convolution that finishes last; the other branch is the shortcut.
        last = max(fused, key=lambda name: self.depth.get(name, 0))
        self._demand(right if last == left else left)

    def _fuses(self, tensor: str) -> bool:
        node = self.known.producer.get(tensor)
        quantised = node is not None and any(node is other for other in self.placement.nodes)
        return quantised and self.known.only_user(tensor) is not None

    def _depths(self) -> dict[str, int]:
        """Compute nodes on the longest path from an input to each tensor."""
        depth: dict[str, int] = {}
        for node in self.graph.node:
            here = max((depth.get(name, 0) for name in node.input), default=0)
            here += node.op_type in self.profile.compute
            depth.update((name, here) for name in node.output)
        return depth

    def _root(self, tensor: str) -> str:
        while self.parent.get(tensor, tensor) != tensor:
            tensor = self.parent[tensor]
        return tensor

    def _tie(self, one: str, other: str) -> None:
        first, second = sorted((self._root(one), self._root(other)), key=_graph_order(self.known))
        self.parent[second] = first


def _resize_interpolates(node: NodeProto) -> bool:
    options = attributes(node)
    crops = options.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return options.get("mode", "nearest") in ("nearest", "linear") and not crops
