"""Who may import whom (docs/architecture.md), read from the sources with ast; and every registry's strings resolve."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOTS = {"edgeseg": ROOT / "edgeseg", "calibration": ROOT / "calibration", "edgeseg_live": ROOT / "apps" / "edgeseg_live"}
BASE = {"edgeseg", "scene", "errors", "files", "manifest", "folder", "onnx_guard", "onnx_structure", "onnx_stats"}

# A part of edgeseg -> the other parts it may import; all may import BASE. cli may import all, and nobody imports cli.
MAY_IMPORT = {
    "data": {"preprocess", "native"},
    "models": {"ops"},
    "ops": set(),
    "plugins": set(),
    "metrics": set(),
    "native": set(),
    "preprocess": {"native"},
    "postprocess": {"native"},
    "training": {"models", "ops", "data", "metrics", "preprocess", "postprocess"},
    "export": {"models", "ops", "calibration"},
    "engines": {"preprocess", "postprocess", "native", "calibration", "ops", "plugins", "models", "metrics", "data", "export"},
    "report": {"native", "postprocess"},
    "measure": {"engines", "data", "metrics", "calibration", "ops", "preprocess", "postprocess", "native"},
}
# One file may load what its layer may not: the torch backend rebuilds the network, the auto choice needs labelled frames.
ONLY_FROM = {
    ("engines", "models"): {"edgeseg.engines.torch"},
    ("engines", "export"): {"edgeseg.engines.torch"},
}
DECODERS = {"cv2", "PIL"}  # calibration reads pictures with whichever is installed, on demand
HEAVY = {
    "torch": {"edgeseg.engines.torch", "edgeseg.models", "edgeseg.ops.pytorch", "edgeseg.training", "edgeseg.export"},
    "openvino": {"edgeseg.engines.openvino"},
    "onnxruntime": {"edgeseg.engines", "edgeseg.export", "calibration"},
    "av": {"edgeseg_live", "edgeseg.cli"},
    "aiohttp": {"edgeseg_live"},
    "polygraphy": {"edgeseg.measure.polygraphy"},
    "tensorrt": {"edgeseg.engines.tensorrt"},
    "tensorrt_rtx": {"edgeseg.engines.rtx"},
    "cuda": {"edgeseg.engines.nvidia"},
}


def modules() -> dict[str, Path]:
    """Every module of the three packages by dotted name."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere in it, but for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node) for branch in ast.walk(tree) if _type_checking(branch) for node in ast.walk(branch)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def part(name: str) -> str:
    """The layer of a dotted name: the part of edgeseg, or the top package."""
    pieces = name.split(".")
    return pieces[0] if pieces[0] != "edgeseg" or len(pieces) == 1 else pieces[1]


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_layers(name: str) -> None:
    here = part(name)
    for imported in imports(name, MODULES[name]):
        top = imported.split(".")[0]
        if top not in ROOTS:
            continue
        there = part(imported)
        if here == "cli" or name == "edgeseg.__main__":
            continue
        assert there != "cli", f"{name} imports {imported}: nobody imports cli"
        if here == "calibration":
            assert top == "calibration", f"{name} imports {imported}: calibration knows nothing of edgeseg"
        elif here == "edgeseg_live":
            assert top != "calibration", f"{name} imports {imported}"
        else:
            assert top != "edgeseg_live", f"{name} imports {imported}: apps import edgeseg, never back"
            known = BASE | {here} | MAY_IMPORT.get(here, set())
            assert there in known or imported == "edgeseg.__version__", (
                f"{name} imports {imported}: {here} may import {sorted(known)}"
            )
            only = ONLY_FROM.get((here, there))
            assert only is None or name in only, f"{name} imports {imported}: only {sorted(only or ())} may"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_by_their_adapters_only(name: str) -> None:
    for imported in imports(name, MODULES[name]):
        allowed = HEAVY.get(imported.split(".")[0])
        if allowed is not None:
            assert any(name == item or name.startswith(f"{item}.") for item in allowed), f"{name} imports {imported}"


def test_every_part_of_the_package_has_a_rule() -> None:
    parts = {part(name) for name in MODULES if name.startswith("edgeseg.")} - BASE - {"cli", "__main__", "zoo"}
    assert parts <= set(MAY_IMPORT), f"no rule for {sorted(parts - set(MAY_IMPORT))}"


def test_calibration_needs_only_numpy_onnx_and_onnxruntime() -> None:
    allowed = {"calibration", "numpy", "onnx", "onnxruntime", "google"} | sys.stdlib_module_names
    for name, path in MODULES.items():
        if name.startswith("calibration"):
            extra = DECODERS if name == "calibration.images" else set()
            assert {item.split(".")[0] for item in imports(name, path)} <= allowed | extra, name
    code = "import sys, calibration\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(ast.literal_eval(done.stdout)) & {*DECODERS, "edgeseg", "torch"}


def test_import_edgeseg_is_light() -> None:
    code = "import sys, edgeseg, edgeseg.manifest, edgeseg.folder\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"torch", "openvino", "onnxruntime", "onnx", "cv2", "av", "aiohttp", "numpy"}


# --- registries --------------------------------------------------------------------------------------------------


def registries() -> dict[str, dict[str, str]]:
    """Every module-level dict whose values are dotted names of our packages, by ``module.NAME``."""
    found = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            value = getattr(node, "value", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict):
                strings = {
                    ast.unparse(key): text
                    for key, item in zip(value.keys, value.values, strict=True)
                    if key and (text := _dotted(item))
                }
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if strings:
                    found[f"{name}.{ast.unparse(target)}"] = strings
    return found


def _dotted(node: ast.expr) -> str:
    first = node.elts[0] if isinstance(node, ast.Tuple) and node.elts else node
    text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return text if text.split(".")[0] in ROOTS and "." in text and " " not in text else ""


@pytest.mark.parametrize("registry", registries())
def test_every_string_of_a_registry_resolves(registry: str) -> None:
    for key, text in registries()[registry].items():
        module, _, attribute = text.partition(":")
        assert find_spec(module) is not None, f"{registry}[{key}]: no module {module}"
        if attribute:
            assert hasattr(import_module(module), attribute), f"{registry}[{key}]: {module} has no {attribute}"
