"""``compile()``: the stages, in order."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import filter as filter_names
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from trtcompile import _tensorrt
from trtcompile.capture import CapturedGraph, capture, own_constants
from trtcompile.conversion import REGISTRY, convert
from trtcompile.default_device import tensors_on_cpu
from trtcompile.engine import Engine, build_engine, check_buildable, gpu_is_present
from trtcompile.errors import (
    ConversionError,
    EngineBuildError,
    PrecisionWarning,
    SettingsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.exported import argument_names, inputs_of
from trtcompile.inputs import flat_inputs, named_after, parse_inputs, parse_keyword_inputs
from trtcompile.lowering import KEPT_WHOLE, lower
from trtcompile.node_info import enclosing_modules, layer_name
from trtcompile.one_thread import one_thread_at_a_time
from trtcompile.partition import (
    PartitionedGraph,
    PartitionReport,
    judge,
    left_by_option,
    make_report,
    partition,
)
from trtcompile.partition.grouping import group
from trtcompile.precision import assign_fp16
from trtcompile.profiles import resolve_profiles
from trtcompile.ptq.fingerprint import graph_hash
from trtcompile.ptq.given import check_given, comes_quantized, dequantize_weights
from trtcompile.ptq.number_format import FORMATS
from trtcompile.ptq.quantize import Quantization, quantize
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.ptq.table import CalibrationTable
from trtcompile.ptq.unit_scales import UnitScales
from trtcompile.ptq.weight_only import quantize_weights
from trtcompile.runtime import TRTModule
from trtcompile.runtime.engine_module import EngineModule
from trtcompile.settings import QUANTIZED_PRECISIONS, CompileSpec, as_precisions
from trtcompile.simulation import simulation_of


def compile(  # noqa: A001 (the public name, as in torch.compile)
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any] = (),
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    spec: CompileSpec | None = None,
    **options: Any,
) -> TRTModule:
    """Compiles a module: supported parts become TensorRT engines, the rest stays PyTorch.

    Args:
        model: the module, which is left as it was, or a ``torch.export.ExportedProgram``; its inputs can be left out,
            and are then those it was exported with.
        inputs: an entry for each positional argument of ``forward``: ``Input``, tensor, shape, or nested lists and
            dictionaries of them. None, numbers, and strings are compiled in and expected again at each call.
        kwarg_inputs: the same for each keyword argument, by name. An ``Input`` without a name gets its keyword's, by
            which a calibration batch that is a dictionary is read.
        spec: settings; ``options`` are applied on top.
        **options: the fields of ``CompileSpec``: ``enabled_precisions``, ``calibrator``, ``device``, ...

    Returns:
        The compiled module: ``forward`` as the model's, with ``report``, ``lowered``, ``engines``.

    Raises:
        SettingsError: an option or input is unknown, malformed, or contradicts another.
        UnsupportedGraphError: the model cannot be captured, or nothing (with ``require_full_compilation``: not all)
            of it can go into TensorRT.
        CalibrationError: the calibration data or table cannot be used.
        EngineBuildError: TensorRT refused a network.
        TensorRTMissingError: no TensorRT is installed.
    """
    settings = CompileSpec.from_options(options, spec=spec)
    check_buildable(settings)
    with one_thread_at_a_time(), kept_random_state():
        captured, names = _capture(model, inputs, kwarg_inputs, settings)
        module = compile_captured(captured, settings, names=names)
    _warn_of_absent_names(module.report, settings, captured)
    if not module.engines:
        raise UnsupportedGraphError(
            f"nothing of the model went into TensorRT.\n{module.report}\nRun the model in PyTorch, or see the reasons "
            "above.",
            module.report,
        )
    return module


def dry_run(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any] = (),
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    spec: CompileSpec | None = None,
    **options: Any,
) -> PartitionReport:
    """The report that ``compile`` would give, without calibrating, converting, or building anything.

    It needs no TensorRT, no GPU, and no calibrator: Q/DQ are placed with made-up scales. What only a converter or
    TensorRT's builder can refuse is not in it.

    Args:
        model: as for ``compile``; so are the others.
        inputs: an entry for each positional argument.
        kwarg_inputs: an entry for each keyword argument.
        spec: settings; ``options`` are applied on top.
        **options: the fields of ``CompileSpec``.

    Raises:
        SettingsError: an option or input is unknown, malformed, or contradicts another.
        UnsupportedGraphError: the model cannot be captured, or not all of it can go into TensorRT and
            ``require_full_compilation`` is set.
    """
    default = getattr(spec, "enabled_precisions", CompileSpec.enabled_precisions)
    if not as_precisions(options.get("enabled_precisions", default)).isdisjoint(
        QUANTIZED_PRECISIONS
    ):
        options["calibrator"] = UnitScales()
    settings = CompileSpec.from_options(options, spec=spec)
    captured, quantization = _prepared(model, inputs, kwarg_inputs, settings)
    _, report = split(captured, settings, quantization)
    _warn_of_absent_names(report, settings, captured)
    return report


@dataclass(frozen=True)
class Simulation:
    """What a compilation would compute, in PyTorch.

    Attributes:
        lowered: the lowered graph, Q/DQ included; it takes the model's tensors flat and returns the model's output
            structure.
        arguments: the arguments with an ``Input`` for each tensor.
        calibration_table: tensor name to scale; None if nothing was quantized.
    """

    lowered: GraphModule
    arguments: tuple[Any, ...]
    calibration_table: CalibrationTable | None


def simulate(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any] = (),
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    spec: CompileSpec | None = None,
    **options: Any,
) -> Simulation:
    """The simulation that ``compile`` would keep as ``compiled.lowered``, without converting or building anything.

    It needs no TensorRT and no GPU.

    Args:
        model: as for ``compile``; so are the others.
        inputs: an entry for each positional argument.
        kwarg_inputs: an entry for each keyword argument.
        spec: settings; ``options`` are applied on top.
        **options: the fields of ``CompileSpec``.

    Raises:
        SettingsError: an option or input is unknown, malformed, or contradicts another.
        UnsupportedGraphError: the model cannot be captured.
        CalibrationError: the calibration data or table cannot be used.
    """
    settings = CompileSpec.from_options(options, spec=spec)
    captured, quantization = _prepared(model, inputs, kwarg_inputs, settings)
    placement = quantization.placement
    if settings.calibrator is not None and placement is not None and not placement.readers:
        warnings.warn(
            "the calibrator was not asked, as nothing of the model can be quantized. print(trtcompile.dry_run(...)) "
            "says why.",
            PrecisionWarning,
            stacklevel=2,
        )
    own_constants(captured, captured.graph_module)
    return _simulated(captured, quantization)


def simulate_borrowing(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    kwarg_inputs: Mapping[str, Any] | None,
    spec: CompileSpec,
) -> Simulation:
    """The same, sharing the model's memory: for as long as the model does not change."""
    return _simulated(*_prepared(model, inputs, kwarg_inputs, spec))


def _prepared(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    kwarg_inputs: Mapping[str, Any] | None,
    spec: CompileSpec,
) -> tuple[CapturedGraph, Quantization]:
    with one_thread_at_a_time(), kept_random_state():
        captured, _ = _capture(model, inputs, kwarg_inputs, spec)
        _, quantization = prepare(captured, spec)
    return captured, quantization


def _simulated(captured: CapturedGraph, quantization: Quantization) -> Simulation:
    lowered = simulation_of(captured.graph_module, captured.out_spec)
    return Simulation(lowered, captured.arguments, quantization.table)


def _capture(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    kwarg_inputs: Mapping[str, Any] | None,
    spec: CompileSpec,
) -> tuple[CapturedGraph, list[str]]:
    """The model as a graph, and the names of its arguments; the caller keeps the random state."""
    if isinstance(model, ExportedProgram) and _is_empty(inputs) and kwarg_inputs is None:
        arguments, keywords = inputs_of(model)
    else:
        keywords = parse_keyword_inputs(kwarg_inputs)
        arguments = () if keywords and _is_empty(inputs) else parse_inputs(inputs)
    names: list[str] = []
    if isinstance(model, ExportedProgram):
        names = argument_names(model)
    elif isinstance(model, nn.Module):  # of anything else, capture says what is wrong
        names = _argument_names(model, len(arguments))
        arguments = named_after(names, arguments)
    tensors = flat_inputs((*arguments, *keywords.values()))
    if not tensors:
        raise SettingsError(
            "inputs and kwarg_inputs have no tensor. Give an Input for each tensor that forward takes."
        )
    # What is wrong with the profiles shows before any work is done.
    resolve_profiles(tensors, spec.optimization_profiles)
    captured = capture(model, arguments, keywords, undecomposed=undecomposed_operators())
    return captured, [*names, *captured.keywords]


def _is_empty(inputs: Any) -> bool:
    return isinstance(inputs, (list, tuple)) and len(inputs) == 0


def _warn_of_absent_names(
    report: PartitionReport | None, spec: CompileSpec, captured: CapturedGraph
) -> None:
    assert report is not None
    operators = {row.operator for row in report.rows}
    operators |= {name.rpartition(".")[0] for name in operators}
    modules = {m for node in captured.graph_module.graph.nodes for m in enclosing_modules(node)}
    nodes = {row.name for row in report.rows}
    absent = {}
    for kind in ("torch_executed", "int8_excluded"):
        patterns = getattr(spec, f"{kind}_modules")
        absent[f"{kind}_ops"] = getattr(spec, f"{kind}_ops") - operators
        absent[f"{kind}_nodes"] = getattr(spec, f"{kind}_nodes") - nodes
        absent[f"{kind}_modules"] = {p for p in patterns if not filter_names(modules, p)}
    for option, names in absent.items():
        if names:
            warnings.warn(
                f"{option} has {', '.join(sorted(names))}, which the lowered model does not have, so it has no effect. "
                "print(compiled.report) lists what it has.",
                TRTCompileWarning,
                stacklevel=3,
            )


def compile_captured(
    captured: CapturedGraph, spec: CompileSpec, *, names: Sequence[str] = ()
) -> TRTModule:
    """Compiles a captured graph; the result may have no engine."""
    identity, quantization = prepare(captured, spec)
    module = build_prepared(captured, spec, quantization, names=names, identity=identity)
    assert module.report is not None
    warn_of_precision(module.report, spec)
    return module


@tensors_on_cpu()
def build_prepared(
    captured: CapturedGraph,
    spec: CompileSpec,
    quantization: Quantization,
    *,
    names: Sequence[str] = (),
    identity: str = "",
) -> TRTModule:
    """Builds the engines of a prepared graph; the result may have none.

    Args:
        captured: the graph as ``prepare`` left it.
        spec: the settings.
        quantization: what was quantized.
        names: names of the arguments.
        identity: the hash of the lowered FP32 graph.
    """
    graph_module = captured.graph_module
    partitioned, report, engines = _split_and_build(captured, spec, quantization)
    for engine in engines:
        module = EngineModule(engine, spec.device.gpu_id, use_cuda_graphs=spec.use_cuda_graphs)
        setattr(partitioned.executor, engine.name, module)
    kept = graph_module if spec.keep_lowered else None
    own_constants(captured, partitioned.executor, *([] if kept is None else [kept]))
    return TRTModule(
        executor=partitioned.executor,
        arguments=captured.arguments,
        argument_names=names,
        keywords=len(captured.keywords),
        in_spec=captured.in_spec,
        out_spec=captured.out_spec,
        spec=spec,
        report=report,
        lowered=None if kept is None else simulation_of(kept, captured.out_spec),
        network_graph=kept,
        calibration_table=quantization.table,
        graph_hash=identity,
    )


@tensors_on_cpu()
def prepare(captured: CapturedGraph, spec: CompileSpec) -> tuple[str, Quantization]:
    """Lowers, quantizes, and sets precisions, in place.

    Returns:
        The hash of the lowered FP32 graph, and what was quantized.
    """
    graph_module = captured.graph_module
    lower(graph_module, spec)
    identity = graph_hash(graph_module)
    quantization = Quantization()
    if comes_quantized(graph_module):
        verdicts = judge(graph_module, spec)
        check_given(
            spec, {n: reason for n, reason in verdicts.items() if left_by_option(n, spec) is None}
        )
        dequantize_weights(graph_module)
    elif spec.quantized_dtype is not None:
        device = spec.device.torch_device if gpu_is_present(spec) else torch.device("cpu")
        quantization = quantize(
            graph_module,
            _taken(graph_module, spec),
            spec,
            captured.arguments,
            device,
            FORMATS[spec.quantized_dtype],
        )
    elif spec.weight_only is not None:
        taken = _taken(graph_module, spec)
        quantization = Quantization(None, quantize_weights(graph_module, taken, spec.weight_only))
    if spec.uses_fp16:
        assign_fp16(graph_module, _taken(graph_module, spec))
    return identity, quantization


def split(
    captured: CapturedGraph,
    spec: CompileSpec,
    quantization: Quantization,
    demoted: Mapping[Node, str] | None = None,
) -> tuple[PartitionedGraph, PartitionReport]:
    """Partitions a prepared graph and reports on it; ``demoted`` nodes stay in PyTorch for the reason given."""
    graph_module = captured.graph_module
    verdicts = judge(graph_module, spec, demoted=demoted or {})
    profiles = resolve_profiles(flat_inputs(captured.arguments), spec.optimization_profiles)
    partitioned = partition(graph_module, verdicts, profiles, spec.min_block_size)
    report = make_report(graph_module, partitioned, quantization.placement)
    if spec.require_full_compilation and report.fallbacks:
        raise UnsupportedGraphError(
            f"require_full_compilation is set, but {len(report.fallbacks)} operators cannot go into TensorRT.\n"
            f"{report}\nDrop require_full_compilation, or change the model.",
            report,
        )
    return partitioned, report


def warn_of_precision(report: PartitionReport, spec: CompileSpec) -> None:
    """Warns where INT8 or FP8 was asked for and less than half of the multiply-adds have it."""
    if spec.quantized_dtype is None:
        return
    wanted = QUANTIZED_PRECISIONS[spec.quantized_dtype]
    share = report.multiply_add_share(wanted)
    if share < 0.5:
        warnings.warn(
            f"{wanted} was asked for, but only {share:.0%} of the multiply-adds got it. The report says why: "
            "print(compiled.report).",
            PrecisionWarning,
            stacklevel=4,
        )


def _split_and_build(
    captured: CapturedGraph, spec: CompileSpec, quantization: Quantization
) -> tuple[PartitionedGraph, PartitionReport, list[Engine]]:
    """Partitions and builds; operators that TensorRT turns out to refuse go to PyTorch, and all is done again."""
    demoted: dict[Node, str] = {}
    while True:
        partitioned, report = split(captured, spec, quantization, demoted)
        try:
            return partitioned, report, _build(partitioned, spec)
        except (ConversionError, EngineBuildError) as error:
            refused = _refused_nodes(error, partitioned)
            if spec.require_full_compilation or not refused:
                raise
            names = ", ".join(layer_name(node) for node in refused)
            warnings.warn(
                f"{names} goes to PyTorch, since TensorRT refused it: {error}",
                TRTCompileWarning,
                stacklevel=5,
            )
            cause, _, _ = _errors_of(error)[0].partition("\n")
            demoted.update(dict.fromkeys(refused, f"TensorRT refused it: {cause}"))


def _build(partitioned: PartitionedGraph, spec: CompileSpec) -> list[Engine]:
    if not partitioned.engines:
        return []
    with _tensorrt.builder_library_kept():
        # All are converted before the first is built: what cannot be converted shows at once.
        networks = [convert(part.graph_module) for part in partitioned.engines]
        return [
            build_engine(part.name, network, part.profiles, spec)
            for part, network in zip(partitioned.engines, networks, strict=True)
        ]


def _refused_nodes(
    error: ConversionError | EngineBuildError, partitioned: PartitionedGraph
) -> list[Node]:
    """The operators that an error names: layers are named after them."""
    nodes = {layer_name(node): node for part in partitioned.engines for node in part.nodes}
    if isinstance(error, ConversionError):
        return [nodes[error.node]] if error.node in nodes else []
    named = {name for line in _errors_of(error) for name in re.findall(r"([\w.]+)/", line)}
    return [node for name, node in nodes.items() if name in named]


def _errors_of(error: ConversionError | EngineBuildError) -> list[str]:
    """What went wrong, without what else an error's message has."""
    if isinstance(error, EngineBuildError):
        return list(error.log) or [str(error)]
    cause = error.__cause__ or error
    return [str(cause) or type(cause).__name__]


def undecomposed_operators() -> list[Any]:
    """Composite operators that stay whole: those with a converter, and those that lowering looks for."""
    return [*KEPT_WHOLE, *(converter.target for converter in REGISTRY)]


def _taken(graph_module: GraphModule, spec: CompileSpec) -> set[torch.fx.Node]:
    """The operators that will be in engines; blocks that are too small are left out."""
    verdicts = judge(graph_module, spec)
    group(graph_module, verdicts, spec.min_block_size)
    return {node for node, reason in verdicts.items() if reason is None}


def _argument_names(model: nn.Module, count: int) -> list[str]:
    """The names of the first ``count`` positional parameters of ``forward``; fewer if it takes ``*args``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind in kinds][:count]
