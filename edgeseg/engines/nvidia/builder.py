"""Graph to serialised engine over ``tensorrt`` or ``tensorrt_rtx``: the network's types say the precision, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.engines.nvidia.caches import load_timing_cache, save_timing_cache
from edgeseg.engines.options import BuildOptions, ShapeRange
from edgeseg.errors import BackendError
from edgeseg.files import file_lock

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        library: "tensorrt" or "tensorrt_rtx", for messages.
        model: the serialised ONNX graph, lowered for that library.
        precision: fp32, fp16 or int8: only for the flags of old versions.
        input: name of the network's input, to which ``options.shapes`` belong.
        plugins: a plugin library to load first.
        timing_cache: file of measured tactics, read before and written after.
    """

    library: str
    model: bytes
    precision: str
    input: str
    options: BuildOptions
    plugins: Path | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Built:
    """The serialised engine, and for each layer of the network whether it was placed on the DLA (empty without one)."""

    engine: bytes
    dla: list[dict[str, Any]]


def build(trt: Any, request: Request, logger: Any, tell: Tell, cancelled: Callable[[], bool]) -> Built:
    """Parse and build.

    Args:
        logger: a ``logging.Log`` with the library's messages.
        tell: told in words what is being done.
        cancelled: asked between steps; True ends the build.

    Raises:
        BackendError: the library refuses the graph or an option; names the node where there is one.
        KeyboardInterrupt: ``cancelled`` said so.
    """
    builder = trt.Builder(logger.sink)
    load_plugins(trt, builder, request.plugins, logger)
    network = builder.create_network(network_flags(trt, request.options))
    config = builder.create_builder_config()
    parse(trt, network, config, request, logger)
    configure(trt, builder, config, network, request)
    dla = place_on_dla(trt, builder, config, network, request)
    config.progress_monitor = monitor = make_monitor(trt, tell, cancelled)
    if request.timing_cache is None:
        plan = builder.build_serialized_network(network, config)
    else:
        # Held while building: two builds that measure the same tactics would only disturb each other's timings.
        with file_lock(request.timing_cache.with_suffix(".lock")):
            load_timing_cache(config, request.timing_cache)
            plan = builder.build_serialized_network(network, config)
            if plan is not None:
                save_timing_cache(config, request.timing_cache)
    if plan is None:
        if monitor.stopped:
            raise KeyboardInterrupt
        raise BackendError(f"{request.library} cannot build the graph: {logger.cause()}", fix=advice(logger.cause()))
    return Built(bytes(plan), dla)


def network_flags(trt: Any, options: BuildOptions) -> int:
    """The creation flags: strongly typed wherever that is a choice."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    # Versions that still have precision flags take them, and not the types, for what runs on a DLA.
    if flag is None or (options.dla_core is not None and hasattr(trt.BuilderFlag, "FP16")):
        return 0
    return 1 << int(flag)


def load_plugins(trt: Any, builder: Any, library: Path | None, logger: Any) -> None:
    """Register NVIDIA's own plugins, where the library has them, and then ours.

    Raises:
        BackendError: the plugin library cannot be loaded.
    """
    if library is None:
        return
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger.sink, "")
    registry = builder.get_plugin_registry()
    if registry is None or not registry.load_library(str(library)):
        reason = logger.cause() if logger.errors else "no creators in it"
        raise BackendError(f"{library}: cannot be loaded as a plugin library ({reason})", fix="edgeseg plugins build")


def parse(trt: Any, network: Any, config: Any, request: Request, logger: Any) -> None:
    """Fill the network from the ONNX graph.

    Raises:
        BackendError: names the first node that is refused, its operator and why.
    """
    parser = trt.OnnxParser(network, logger.sink)
    flags = getattr(trt, "OnnxParserFlag", None)
    if request.options.dla_core is not None and flags is not None and hasattr(flags, "ADJUST_FOR_DLA"):
        if hasattr(parser, "set_builder_config"):
            parser.set_builder_config(config)
        parser.set_flag(flags.ADJUST_FOR_DLA)
    if parser.parse(request.model):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        raise BackendError(f"{request.library} cannot read the graph: {logger.cause()}", fix=advice(logger.cause()))
    raise refusal(request.library, errors)


def refusal(library: str, errors: list[Any]) -> BackendError:
    """The parser's first error as one line, with how many there are."""
    first = errors[0]
    # 10.3 has no node_name: its description carries the node.
    name, operator = (_ask(first, item) for item in ("node_name", "node_operator"))
    reason = " ".join(str(first.desc()).split()).removeprefix("Assertion failed: ")[:240]
    where = f"node {name!r} ({operator})" if name or operator else f"node number {first.node()}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return BackendError(f"{library} refuses {where}: {reason}{more}", fix=advice(f"{operator} {reason}"))


def _ask(error: Any, name: str) -> str:
    return str(getattr(error, name)() or "") if hasattr(error, name) else ""


_ADVICE = (
    ("zero point", "calibrate and build with the `tensorrt` profile (symmetric ranges)"),
    ("Int32", "a float bias instead of an int32 DequantizeLinear (profile `tensorrt`)"),
    ("Plugin not found", "an operator that needs a plugin: `edgeseg plugins build`, or rewrite it in standard operators"),
    ("plugin", "an operator that needs a plugin: `edgeseg plugins build`, or rewrite it in standard operators"),
    ("workspace", "a larger --workspace-mb"),
    ("memory", "a smaller --workspace-mb, or a smaller input"),
    ("driver version", "update the NVIDIA driver, or an older library"),
    ("No such file", "install the library that it names"),
)


def advice(reason: str) -> str:
    """What to do about a refusal, by what it says."""
    return next(
        (fix for word, fix in _ADVICE if word in reason),
        "`edgeseg inspect` shows the operators; --backend ort runs any standard graph",
    )


# --- settings ----------------------------------------------------------------------------------------------------


def configure(trt: Any, builder: Any, config: Any, network: Any, request: Request) -> None:
    """Apply the options, each only where this version has it.

    Raises:
        BackendError: an option that this version lacks or refuses.
    """
    options = request.options
    if hasattr(trt, "ProfilingVerbosity"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.builder_level is not None:
        config.builder_optimization_level = options.builder_level
    if request.precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # set by default, and fp32 shall mean float32
    if options.hardware_compatible:
        config.hardware_compatibility_level = _member(trt, "HardwareCompatibilityLevel", "AMPERE_PLUS", "--hardware-compatible")
    if options.version_compatible:
        config.set_flag(_member(trt, "BuilderFlag", "VERSION_COMPATIBLE", "--version-compatible"))
        if request.plugins is not None:
            config.plugins_to_serialize = [str(request.plugins)]
    if options.refit:
        config.set_flag(_member(trt, "BuilderFlag", "REFIT", "--refit"))
    set_targets(trt, config, options.targets)
    add_profiles(builder, config, network, request)


def _member(trt: Any, enum: str, name: str, option: str) -> Any:
    found = getattr(getattr(trt, enum, None), name, None)
    if found is None:
        raise BackendError(
            f"{option}: {trt.__name__} {trt.__version__} has no {enum}.{name}", fix=f"leave {option} out, or another version"
        )
    return found


def set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Compile for these compute capabilities (sm86, ...) instead of the library's default.

    Raises:
        BackendError: the library has no such target; lists those it has.
    """
    if not targets:
        return
    known = getattr(trt, "ComputeCapability", None)
    check_targets(targets, [name.lower() for name in dir(known) if name.startswith("SM")])
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        config.set_compute_capability(getattr(known, name.upper()), index)


def check_targets(targets: tuple[str, ...], have: list[str]) -> None:
    """Refuse a target that the library has not.

    Raises:
        BackendError: names it, and those there are.
    """
    if unknown := [name for name in targets if name not in have]:
        raise BackendError(f"--target {','.join(unknown)}", f"some of {', '.join(have) or 'none'}", "choose from these")


def add_profiles(builder: Any, config: Any, network: Any, request: Request) -> None:
    """One optimisation profile per shape range; a network with free dimensions needs at least one.

    Raises:
        BackendError: the shapes do not fit the network's input.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = [item.name for item in inputs if any(size < 0 for size in item.shape)]
    if free and not request.options.shapes:
        raise BackendError(f"input {free[0]!r} has free dimensions", "their range", "--shapes MIN,OPT,MAX")
    if not free and request.options.shapes:
        fix = "leave --shapes out, or export with --dynamic"
        raise BackendError("--shapes for a network of fixed shapes", "free dimensions", fix)
    fixed = next((tuple(item.shape) for item in inputs if item.name == request.input), ())
    for shapes in request.options.shapes:
        _check_fit(request.input, fixed, shapes)
        profile = builder.create_optimization_profile()
        profile.set_shape(request.input, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"--shapes {shapes.min} to {shapes.max}: refused as a profile", fix="other shapes")


def _check_fit(name: str, sizes: tuple[int, ...], shapes: ShapeRange) -> None:
    for shape in (shapes.min, shapes.max):
        if len(shape) != len(sizes) or any(size not in (-1, want) for size, want in zip(sizes, shape, strict=True)):
            free = tuple("free" if size < 0 else size for size in sizes)
            raise BackendError(f"--shapes {shape} for input {name!r}", f"{free}", "shapes of that input")


# --- DLA ---------------------------------------------------------------------------------------------------------


def place_on_dla(trt: Any, builder: Any, config: Any, network: Any, request: Request) -> list[dict[str, Any]]:
    """Put the network on a DLA core; returns for each layer {"name", "type", "dla"}: what can run there.

    Raises:
        BackendError: there is no such core, or a layer cannot run on it and fallback was not allowed.
    """
    core, precision = request.options.dla_core, request.precision
    if core is None:
        return []
    if not core < builder.num_DLA_cores:
        have = f"{builder.num_DLA_cores} DLA cores here"
        raise BackendError(f"--dla {core}: {have}", "a Jetson with a DLA and a version that supports it", "leave --dla out")
    if precision == "fp32":
        raise BackendError("--dla with fp32", "fp16 or int8", "--precision fp16")
    for name in ("FP16", *(["INT8"] if precision == "int8" else [])):
        if hasattr(trt.BuilderFlag, name):
            config.set_flag(getattr(trt.BuilderFlag, name))
    config.default_device_type, config.DLA_core = trt.DeviceType.DLA, core
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    report = [{"name": item.name, "type": _type_name(item), "dla": bool(config.can_run_on_DLA(item))} for item in layers]
    if request.options.allow_gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        return report
    if refused := [item for item in report if not item["dla"] and item["type"] != "CONSTANT"]:
        shown = ", ".join(f"{item['name']} ({item['type']})" for item in refused[:3])
        what = f"--dla {core}: {len(refused)} of {len(report)} layers cannot run there: {shown}{', ...' * (len(refused) > 3)}"
        raise BackendError(what, fix="--allow-gpu-fallback, or rewrite them")
    return report


def _type_name(layer: Any) -> str:
    return str(layer.type).rpartition(".")[2]


# --- progress ----------------------------------------------------------------------------------------------------


def make_monitor(trt: Any, tell: Tell, cancelled: Callable[[], bool]) -> Any:
    """An ``IProgressMonitor`` that tells the phases in words and ends the build when ``cancelled``."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called from several threads; must never raise into native code."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            tell(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if cancelled():
                self.stopped = True
                return False
            total = self._steps.get(phase_name, 0)
            if total > 1:
                tell(f"{phase_name} {step + 1}/{total}")
            return True

    return Monitor()
