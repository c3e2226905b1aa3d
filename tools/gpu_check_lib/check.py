"""One case through every check: oracle, other implementations, CPU twin, repetition, CUDA graph, guards."""

from __future__ import annotations

from typing import Any

from gpu_check_lib.case import Arrays, Case, Verdict, judge
from gpu_check_lib.device import Call, Device
from gpu_check_lib.operators import module_of

RUBBISH = (0xA5, 0x5A, 0xFF)


def run_case(case: Case, device: Device, twin: Device | None) -> dict[str, Any]:
    """The record of one case: ``problems`` is empty where all is well, ``errors`` holds the largest error of each comparison."""
    module = module_of(case.operator)
    arrays = module.inputs(case)
    record: dict[str, Any] = {"dtype": case.dtype, "format": case.format}
    if case.must_refuse(device.kind):
        return record | {"problems": _refusal(case, arrays, device)}
    return record | _comparisons(case, arrays, device, twin)


def bound(case: Case, arrays: Arrays, device: Device) -> Call:
    """The case's arguments in memory of a device."""
    call = Call(device, case.operator)
    call.args = module_of(case.operator).bind(case, arrays, call)
    return call


def _refusal(case: Case, arrays: Arrays, device: Device) -> list[str]:
    call = bound(case, arrays, device)
    call.prefill(RUBBISH[0])
    try:
        call.run()
    except ValueError as error:
        sentence = str(error)
        untouched = all((output.memory.read() == RUBBISH[0]).all() for output in call.outputs.values())
        problems = [] if untouched else [f"refused ({sentence}) and yet wrote a result"]
        return problems + call.damage()
    return ["taken, expected a refusal"]


def _comparisons(case: Case, arrays: Arrays, device: Device, twin: Device | None) -> dict[str, Any]:
    record: dict[str, Any] = {}
    module, call = module_of(case.operator), bound(case, arrays, device)
    got, problems = _repeated(case, call)
    problems = list(dict.fromkeys([*problems, *call.damage(), *call.padding_problems()]))
    wanted = module.expected(case, arrays, device.torch_device)
    verdicts = {"oracle": _compare(case, arrays, got, wanted)}
    for name, result in _rivals(case, arrays, device).items():
        verdicts[f"{name} to the oracle"] = _compare(case, arrays, result, {**wanted, **{k: wanted[k] for k in result}})
    if twin is not None and not case.must_refuse("cpu"):
        other = bound(case, arrays, twin)
        other.prefill(RUBBISH[0])
        of_twin = other.run()
        verdicts["CPU twin to the oracle"] = _compare(case, arrays, of_twin, wanted)
        record["equals_twin"] = not _differences(case, got, of_twin, "the twin")
    problems += [f"{name}: {verdict.problem}" for name, verdict in verdicts.items() if verdict.problem]
    return record | {"problems": problems, "errors": {name: verdict.error for name, verdict in verdicts.items()}}


def _compare(case: Case, arrays: Arrays, got: Arrays, wanted: Arrays) -> Verdict:
    module, got = module_of(case.operator), _selected(case, got)
    if hasattr(module, "check"):
        return module.check(case, arrays, got, wanted)
    verdicts = {name: judge(array, wanted[name], case.tolerance) for name, array in got.items()}
    problem = "; ".join(f"{name}: {verdict.problem}" for name, verdict in verdicts.items() if verdict.problem)
    return Verdict(max(verdict.error for verdict in verdicts.values()), problem)


def _rivals(case: Case, arrays: Arrays, device: Device) -> dict[str, Arrays]:
    module = module_of(case.operator)
    try:
        return module.rivals(case, arrays, device.torch_device)
    except (NotImplementedError, RuntimeError) as error:
        if "not implemented for" in str(error):  # torch lacks the type on this device
            return {}
        raise


def _selected(case: Case, got: Arrays) -> Arrays:
    module = module_of(case.operator)
    return module.selected(case, got) if hasattr(module, "selected") else got


def _repeated(case: Case, call: Call) -> tuple[Arrays, list[str]]:
    """Results of three runs over different rubbish, the last from a CUDA graph: equal bit for bit."""
    call.prefill(RUBBISH[0])
    first = call.run()
    problems = _overwritten(case, first, RUBBISH[0]) + call.damage()
    call.prefill(RUBBISH[1])
    problems += _differences(case, first, call.run(), "a second run")
    if call.device.kind == "cuda":
        problems += _differences(case, first, _from_graph(call), "a CUDA graph")
    return first, problems


def _overwritten(case: Case, got: Arrays, rubbish: int) -> list[str]:
    module = module_of(case.operator)
    untouched = module.unselected(case, got) if hasattr(module, "unselected") else {}
    return [f"{name}: wrote between the rows" for name, array in untouched.items() if (array != rubbish).any()]


def _from_graph(call: Call) -> Arrays:
    graph = call.device.capture(call.launch)
    call.prefill(RUBBISH[2])
    graph.replay()
    call.device.synchronize()
    return {name: output.values() for name, output in call.outputs.items()}


def _differences(case: Case, first: Arrays, second: Arrays, what: str) -> list[str]:
    one, other = _selected(case, first), _selected(case, second)
    return [f"{name}: {what} gave other bits" for name, array in one.items() if array.tobytes() != other[name].tobytes()]
