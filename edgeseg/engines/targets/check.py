"""Before any build: what of a graph a target would refuse, run by a plugin or not run where it should, and what to do.

The graph is looked at after the lowering that a build would do, so what the lowering mends is not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onnx import ModelProto

from calibration.graph import STANDARD_DOMAINS, opset, static_shapes
from edgeseg.engines.lowering import lower_for_openvino, to_plugins, to_primitive, to_standard
from edgeseg.engines.nvidia.rules import refusals
from edgeseg.engines.passes.half import halve
from edgeseg.engines.targets import Target
from edgeseg.engines.targets.dla import off_the_dla
from edgeseg.engines.targets.nodes import Facts, Problem, in_tensorrt
from edgeseg.errors import BackendError, OnnxError
from edgeseg.ops.functions import DOMAIN, base_name, infer, walk

REFUSED, FALLBACK, PLUGIN, NOTE = "refused", "fallback", "plugin", "note"
_LOWER: dict[str, Callable[[ModelProto], ModelProto]] = {
    "tensorrt": to_plugins,
    "rtx": to_primitive,
    "openvino": lower_for_openvino,
    "ort": to_standard,
}


@dataclass
class Finding:
    """What is said of all nodes of one operator that share a reason.

    Attributes:
        verdict: refused (no engine), fallback (runs elsewhere), plugin (needs our library), or note.
        nodes: their names, in the graph's order.
    """

    operator: str
    verdict: str
    reason: str
    fix: str
    nodes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All findings, the worst first, and how many nodes there are after lowering."""

    findings: list[Finding]
    nodes: int

    @property
    def refused(self) -> bool:
        return any(finding.verdict == REFUSED for finding in self.findings)


def check_graph(
    model: ModelProto, target: Target, precision: str = "fp16", *, dla: bool = False, allow_gpu_fallback: bool = False
) -> Report:
    """Look at a prepared graph as ``target`` would.

    Args:
        precision: fp32, fp16 or int8; an int8 graph has its Q/DQ already.
        dla: the deep learning accelerator is to run it.
        allow_gpu_fallback: what that cannot run may run on the GPU.

    Raises:
        BackendError: the target has no such accelerator, or it does not compute in this precision.
    """
    if dla:
        _check_dla(target, precision)
    findings = _Findings()
    _look_at_model(model, target, findings)
    try:
        lowered = _LOWER[target.backend](model)
    except OnnxError as error:
        findings.add("model", REFUSED, Problem(error.what, error.fix), "")
        return Report(findings.sorted(), len(model.graph.node))
    if target.backend == "tensorrt":
        _look_at_tensorrt(lowered, target, findings)
    elif target.backend == "rtx":
        for item in refusals(lowered):
            findings.add(item.operator, REFUSED, Problem(item.reason, item.fix), item.node)
    else:
        _ask(lowered, target, findings)
    if precision in ("fp16", "int8") and target.backend in ("tensorrt", "rtx"):
        _look_at_half(lowered, findings)
    if dla:
        for operator, problem, node in off_the_dla(Facts.of(infer(lowered)), target):
            findings.add(operator, FALLBACK if allow_gpu_fallback else REFUSED, problem, node)
    return Report(findings.sorted(), len(lowered.graph.node))


class _Findings:
    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str], Finding] = {}

    def add(self, operator: str, verdict: str, problem: Problem, node: str) -> None:
        key = (operator, verdict, problem.reason)
        finding = self.found.setdefault(key, Finding(operator, verdict, problem.reason, problem.fix))
        if node:
            finding.nodes.append(node)

    def sorted(self) -> list[Finding]:
        order = (REFUSED, FALLBACK, PLUGIN, NOTE)
        return sorted(self.found.values(), key=lambda finding: order.index(finding.verdict))


def _check_dla(target: Target, precision: str) -> None:
    if target.no_dla:
        raise BackendError(f"--dla: {target.no_dla}", fix="leave --dla out, or another --target")
    if precision == "fp32":
        raise BackendError("--dla with fp32", "fp16 or int8, in which the DLA computes", "--precision fp16")


def _look_at_model(model: ModelProto, target: Target, findings: _Findings) -> None:
    low, high = target.opsets
    version = opset(model)
    if not low <= version <= high:
        fix = f"export with an opset of {low} to {high}"
        findings.add("model", REFUSED, Problem(f"opset {version}; {target.what} reads {low} to {high}", fix), "")
    free = [value.name for value in model.graph.input if value.name not in static_shapes(model.graph)]
    if free and target.backend in ("tensorrt", "rtx"):
        said = f"input {free[0]!r} has free sizes: engines are built for ranges of shapes"
        findings.add("model", NOTE, Problem(said, "build with --shapes MIN,OPT,MAX, or export fixed sizes"), "")


def _look_at_tensorrt(lowered: ModelProto, target: Target, findings: _Findings) -> None:
    facts = Facts.of(infer(lowered))
    for node in walk(lowered.graph):
        name = node.name or (node.output[0] if node.output else "?")
        if node.domain == DOMAIN:
            fix = "`edgeseg plugins build` on that machine"
            findings.add(f"{DOMAIN}::{base_name(node.op_type)}", PLUGIN, Problem("runs in our plugin library", fix), name)
        elif node.domain not in STANDARD_DOMAINS:
            problem = Problem(
                "an operator that neither TensorRT nor our plugins have", "register a plugin of that name, or rewrite it"
            )
            findings.add(f"{node.domain}::{node.op_type}", REFUSED, problem, name)
        for refused, problem in in_tensorrt(node, facts, target):
            findings.add(node.op_type, REFUSED if refused else NOTE, problem, name)


def _look_at_half(lowered: ModelProto, findings: _Findings) -> None:
    for weight, count in halve(lowered).large.items():
        said = f"{count} values of {weight} exceed FP16's 65504: what reads them stays float32"
        findings.add("weights", NOTE, Problem(said, "smaller weights run faster"), "")


def _ask(lowered: ModelProto, target: Target, findings: _Findings) -> None:
    """Have the runtime itself open the graph, where it is installed."""
    from edgeseg.engines.session import get_backend

    try:
        get_backend(target.backend)
    except BackendError as error:
        findings.add("model", NOTE, Problem(f"not asked: {error.what}", error.fix), "")
        return
    try:
        _open(lowered, target.backend)
    except (BackendError, RuntimeError) as error:  # OpenVINO's exceptions are RuntimeErrors
        findings.add("model", REFUSED, Problem(_cause(error), "rewrite the operator that it names, or another --target"), "")


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line.lstrip("- ") for line in lines if line.startswith("--")), lines[0] if lines else type(error).__name__)


def _open(lowered: ModelProto, backend: str) -> None:
    if backend == "ort":
        from edgeseg.engines.ort import open_graph

        open_graph(lowered).close()
    else:
        from edgeseg.engines.openvino import open_graph as open_openvino

        open_openvino(lowered).close()
