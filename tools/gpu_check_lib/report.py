"""The JSON of a run and the Markdown table made from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

HOST_NOTE = "Host run: the CPU twins in place of the kernels. Not a GPU figure anywhere below."


def write(report: dict[str, Any], folder: Path) -> None:
    """gpu_check.json and gpu_check.md, each replaced whole; called after every stage, so that a later crash loses nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu_check.json", json.dumps(report, indent=1, default=float) + "\n"), ("gpu_check.md", markdown(report))):
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def problems(report: dict[str, Any]) -> list[str]:
    """What makes the run a failure: builds, wrong results, cases not run, what the sanitizer found. Speed makes none."""
    found = list(report.get("failures", []))
    for stage in ("correctness", "speed"):
        for name, record in report.get(stage, {}).get("records", {}).items():
            found += [f"{stage}: {name}: {text}" for text in record.get("problems", [])]
    if stopped := report.get("correctness", {}).get("stopped"):
        found.append(f"correctness: {stopped}")
    for finding in report.get("sanitizer", []):
        found += [f"{finding['tool']}: {text}" for text in finding["problems"]]
    return found + [f"plugins: {text}" for text in report.get("plugins", {}).get("problems", [])]


def markdown(report: dict[str, Any]) -> str:
    parts = ["# gpu_check", "", *_machine(report), *_verdict(report), *_correctness(report), *_sanitizer(report)]
    return "\n".join([*parts, *_plugins(report), *_speed(report), *_engines(report)]) + "\n"


def _machine(report: dict[str, Any]) -> list[str]:
    machine, gpu, build = report["machine"], report.get("gpu", {}), report.get("build", {})
    smi = machine.get("nvidia_smi", {})
    rows = [
        ("card", gpu.get("name") or "none"),
        ("compute capability", gpu.get("capability")),
        ("L2 cache", f"{gpu['l2_bytes'] / 2**20:.0f} MiB" if gpu.get("l2_bytes") else None),
        ("driver", smi.get("driver")),
        ("graphics clock now / most, MHz", _pair(smi, "graphics_clock_mhz", "graphics_clock_max_mhz")),
        ("memory clock now / most, MHz", _pair(smi, "memory_clock_mhz", "memory_clock_max_mhz")),
        ("nvcc", build.get("nvcc_version")),
        ("torch", f"{gpu['torch']} (CUDA {gpu.get('torch_cuda')})" if gpu.get("torch") else None),
        ("torchvision", gpu.get("torchvision") or gpu.get("torchvision_problem")),
        ("commit", machine.get("commit")),
        ("date", machine.get("date")),
    ]
    note = [HOST_NOTE, ""] if report.get("mode") == "host" else []
    return [*note, "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows if value), ""]


def _pair(smi: dict[str, Any], now: str, most: str) -> str | None:
    return f"{smi.get(now) or '?'} / {smi.get(most) or '?'}" if smi.get(now) or smi.get(most) else None


def _verdict(report: dict[str, Any]) -> list[str]:
    found = problems(report)
    if not found:
        return ["No check failed." if report.get("finished") else "Not finished.", ""]
    return [f"**{len(found)} problems:**", "", *(f"- {text}".replace("\n", " ")[:400] for text in found[:40]), ""]


def _correctness(report: dict[str, Any]) -> list[str]:
    records = report.get("correctness", {}).get("records", {})
    if not records:
        return []
    lines = [
        "## Correctness",
        "",
        "| operator | cases | failed | skipped | largest error, float32 | float16 | int8 |",
        "|" + "---|" * 7,
    ]
    by_operator: dict[str, list[dict[str, Any]]] = {}
    for name, record in records.items():
        by_operator.setdefault(name.partition(":")[0], []).append(record)
    for operator, group in by_operator.items():
        failed, skipped = sum(bool(record.get("problems")) for record in group), sum("skipped" in record for record in group)
        errors = [_largest(group, dtype) for dtype in ("float32", "float16", "int8")]
        lines.append(f"| {operator} | {len(group)} | {failed} | {skipped} | {' | '.join(errors)} |")
    compared = Counter(name for record in records.values() for name in record.get("errors", {}))
    said = ", ".join(f"{name} ({count})" for name, count in sorted(compared.items()))
    alike = [record["equals_twin"] for record in records.values() if "equals_twin" in record]
    bits = f" Kernel and CPU twin give the same bits in {sum(alike)} of {len(alike)} cases." if alike else ""
    return [*lines, "", f"Compared: {said}.{bits}", ""]


def _largest(group: list[dict[str, Any]], dtype: str) -> str:
    found = [
        record["errors"]["oracle"] for record in group if record.get("dtype") == dtype and "oracle" in record.get("errors", {})
    ]
    return f"{max(found):.2g}" if found else ""


def _sanitizer(report: dict[str, Any]) -> list[str]:
    if not report.get("sanitizer"):
        return []
    rows = []
    for finding in report["sanitizer"]:
        result = f"{len(finding['problems'])} problems" if finding["problems"] else finding["skipped"] or "clean"
        rows.append(f"| {finding['tool']} | {finding['cases']} | {result} |")
    return ["## compute-sanitizer", "", "| tool | cases | result |", "|---|---|---|", *rows, ""]


def _plugins(report: dict[str, Any]) -> list[str]:
    plugins = report.get("plugins")
    if not plugins:
        return []
    return ["## Plugins", "", plugins.get("skipped") or plugins.get("summary") or "failed", ""]


def _speed(report: dict[str, Any]) -> list[str]:
    speed = report.get("speed", {})
    records = {name: record for name, record in speed.get("records", {}).items() if "contestants" in record}
    if not records:
        return []
    host = report.get("mode") == "host"
    copy = next(iter(records.values()))["copy_gb_s"]
    lines = [
        "## Speed",
        "",
        *([HOST_NOTE, ""] if host else []),
        f"Copy bandwidth of this run: {copy:.0f} GB/s, read plus written.",
        "",
    ]
    lines += [
        "| workload | contestant | median ms | 10% | 90% | how | over ours | share of copy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        lines += _rows(name, record)
    lines += ["", "| goal | workload | wanted | got | reached |", "|---|---|---|---|---|"]
    for name, record in records.items():
        lines += [_goal_row(name, goal, record, host) for goal in record["goals"]]
    return [*lines, "", *([f"Not all was timed: {speed['stopped']}.", ""] if speed.get("stopped") else [])]


def _rows(name: str, record: dict[str, Any]) -> list[str]:
    times = record["contestants"]
    rows = [
        f"| {name} | {who} | {row['ms']:.4f} | {row['p10_ms']:.4f} | {row['p90_ms']:.4f} | {row['mode']} "
        f"| {row['ms'] / times['ours']['ms']:.2f} | {row['share_of_copy']:.0%} |"
        for who, row in times.items()
    ]
    rows += [f"| {name} | {who} | not here: {why} | | | | | |" for who, why in record["absent"].items()]
    return [
        *rows,
        f"| {name} | limit: {record['minimum_bytes'] / 1e6:.1f} MB at copy bandwidth | {record['limit_ms']:.4f} | | | | | |",
    ]


def _goal_row(name: str, goal: dict[str, Any], record: dict[str, Any], host: bool) -> str:
    got = "not measured" if goal["got"] is None else f"{goal['got']:.2f}"
    reached = "not measured" if goal["reached"] is None else "yes" if goal["reached"] else "**no**"
    return f"| {goal['goal']} | {name} | {goal['wanted']:g} | {got} | {'host run' if host else reached} |"


def _engines(report: dict[str, Any]) -> list[str]:
    engines = report.get("engines")
    if not engines:
        return []
    if "skipped" in engines:
        return ["## TensorRT engines", "", engines["skipped"], ""]
    lines = ["## TensorRT engines", "", "| model | precision | engine ms | end to end ms |", "|---|---|---|---|"]
    for record in engines["records"]:
        why = record.get("problem") or record.get("skipped")
        bench = record.get("bench", {})
        cells = why if why else f"{bench['engine_ms']['p50']:.3f} | {bench['end_to_end_ms']['p50']:.3f}"
        lines.append(f"| {record['model']} | {record['precision']} | {cells} |" + (" |" if why else ""))
    return [*lines, ""]
