"""The verdict on each node: TensorRT, or PyTorch with the reason."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from trtcompile.conversion.network import has_tensorrt_dtype
from trtcompile.conversion.registry import REGISTRY, Registry
from trtcompile.node_info import enclosing_modules, is_one_of, layer_name, operator_name
from trtcompile.settings import CompileSpec

#: For each operator node None if TensorRT takes it, else the reason as a sentence.
Verdicts = dict[Node, "str | None"]


def judge(
    graph_module: GraphModule,
    spec: CompileSpec,
    registry: Registry = REGISTRY,
    *,
    demoted: Mapping[Node, str] | None = None,
) -> Verdicts:
    """Judges every operator of a lowered graph; ``demoted`` ones have a reason already."""
    known = demoted or {}
    verdicts: Verdicts = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            verdicts[node] = known.get(node) or _reason_against(node, spec, registry)
    for node, reason in list(verdicts.items()):
        # An output cannot be picked in TensorRT from an operator that runs in PyTorch.
        source = node.args[0] if node.target is operator.getitem else None
        if reason is None and isinstance(source, Node) and verdicts.get(source) is not None:
            verdicts[node] = f"it picks an output of {operator_name(source)}, which runs in PyTorch"
        # An engine computes sizes for itself, but not a number that depends on data.
        for source in node.all_input_nodes if verdicts[node] is None else ():
            if verdicts.get(source) is not None and not _has_tensors(source):
                verdicts[node] = f"it needs a number that {operator_name(source)} gives in PyTorch"
    return verdicts


def _has_tensors(node: Node) -> bool:
    return next(_tensors(node), None) is not None


def left_by_option(node: Node, spec: CompileSpec) -> str | None:
    """The option that leaves a node to PyTorch, as a sentence; None if there is none."""
    if is_one_of(node, spec.torch_executed_ops):
        return "torch_executed_ops leaves it to PyTorch"
    if layer_name(node) in spec.torch_executed_nodes:
        return "torch_executed_nodes leaves it to PyTorch"
    for pattern in spec.torch_executed_modules:
        if any(fnmatchcase(path, pattern) for path in enclosing_modules(node)):
            return f"torch_executed_modules leaves {pattern} to PyTorch"
    return None


def _reason_against(node: Node, spec: CompileSpec, registry: Registry) -> str | None:
    name = operator_name(node)
    option = left_by_option(node, spec)
    if option is not None:
        return option
    converter = registry.get(node.target)
    if converter is None:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return f"{name} runs graphs of its own, such as one of two branches, which PyTorch does"
        if any(free_unbacked_symbols(tuple(value.shape)) for value in _tensors(node)):
            return f"the shape of what {name} gives depends on data"
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return f"{name} draws random numbers, which are PyTorch's"
        return f"{name} has no converter"
    if node.target is not operator.getitem:
        for value in (*_tensors(node), *(v for n in node.all_input_nodes for v in _tensors(n))):
            if not has_tensorrt_dtype(value.dtype):
                dtype = str(value.dtype).removeprefix("torch.")
                return f"TensorRT has no {dtype} tensors"
            if free_unbacked_symbols(tuple(value.shape)):
                return "the shape of a tensor depends on data"
    return None if converter.supports is None else converter.supports(node, spec)


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    value = node.meta.get("val")
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, torch.Tensor):
            yield item
