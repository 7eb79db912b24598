"""From a module to one graph of functional ATen operators with flat inputs and outputs.

The caller's module comes back exactly as it was, also when the capture fails: its ``training`` flags, and the
attributes that ``forward`` sets, are put back.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.fx.traceback import preserve_node_meta
from torch.utils import _pytree as pytree

from trtcompile.errors import SettingsError, TRTCompileWarning, UnsupportedGraphError
from trtcompile.inputs import Input
from trtcompile.node_info import NotingSourceLines


@dataclass(frozen=True)
class CapturedGraph:
    """A model as one graph.

    Attributes:
        graph_module: placeholders are the tensors of ``arguments`` in pytree order, parameters and buffers are
            ``get_attr`` nodes holding copies on the CPU, the output is a flat tuple.
        arguments: the positional arguments with an ``Input`` for each tensor.
        in_spec: pytree of ``(args, kwargs)``.
        out_spec: pytree of the output.
    """

    graph_module: GraphModule
    arguments: tuple[Any, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec


def capture(
    model: Any, arguments: tuple[Any, ...], *, undecomposed: Collection[Any] = ()
) -> CapturedGraph:
    """Exports a module with ``torch.export`` and makes it functional.

    Args:
        model: an ``nn.Module``. In train mode it is captured as in eval mode, with a warning.
        arguments: positional arguments as parsed by ``inputs.parse_inputs``.
        undecomposed: operators to keep whole; every other composite operator is decomposed to core ATen.

    Raises:
        SettingsError: ``forward`` does not take that many arguments.
        UnsupportedGraphError: ``torch.export`` cannot trace the model, or the model writes to its buffers or inputs.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedGraphError(
            f"model is a {type(model).__name__}, not an nn.Module. Wrap a function in a module, or use "
            "torch.compile(function, backend='trt')."
        )
    _check_count(model, arguments)
    if any(module.training for module in model.modules()):
        warnings.warn(
            "the model is in train mode and is compiled as in eval mode. Call model.eval() first to say so.",
            TRTCompileWarning,
            stacklevel=3,
        )
    device = next((p.device for p in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    examples = pytree.tree_map(lambda i: _traceable_example(i, device), arguments)
    with _evaluating(model), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies pytree specs in a way that it warns about itself.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            with preserve_node_meta(), NotingSourceLines():
                program = _export(model, examples, arguments)
            program = program.run_decompositions(_decompositions(undecomposed))
        except UnsupportedGraphError:
            raise
        except Exception as error:
            raise UnsupportedGraphError(
                f"torch.export cannot trace the model: {error}\nMake the model exportable, or use "
                "torch.compile(model, backend='trt'), which leaves such code to Python."
            ) from error
    return from_exported_program(program, arguments)


def _check_count(model: nn.Module, arguments: tuple[Any, ...]) -> None:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise SettingsError(
            f"inputs has {len(arguments)} entries, and the model is forward{signature}: {error}. Give an entry for "
            "each positional argument."
        ) from None


def from_exported_program(
    program: torch.export.ExportedProgram, arguments: tuple[Any, ...]
) -> CapturedGraph:
    """Takes the graph out of an exported program, parameters included.

    Raises:
        UnsupportedGraphError: the program writes to buffers or inputs.
    """
    signature = program.graph_signature
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if written:
        raise UnsupportedGraphError(
            f"the model writes to {', '.join(map(repr, written))} in forward, and an engine has no state. Return the "
            "new value instead."
        )
    call_spec = program.call_spec
    assert call_spec.in_spec is not None and call_spec.out_spec is not None
    graph_module = program.module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    graph_module.graph.set_codegen(CodeGen())
    _erase_unused_attributes(graph_module)
    _own_constants(graph_module)
    graph_module.recompile()
    return CapturedGraph(graph_module, arguments, call_spec.in_spec, call_spec.out_spec)


def _erase_unused_attributes(graph_module: GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()


def _own_constants(graph_module: GraphModule) -> None:
    """Replaces parameters and buffers by copies on the CPU, under flat names, so that the model is not shared."""
    copies: dict[str, str] = {}
    for node in graph_module.graph.nodes:
        if node.op != "get_attr":
            continue
        path = str(node.target)
        if path not in copies:
            value: Any = graph_module
            for name in path.split("."):
                value = getattr(value, name)
            copies[path] = "constant_" + path.replace(".", "_")
            while hasattr(graph_module, copies[path]):
                copies[path] += "_"
            copy = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            graph_module.register_buffer(copies[path], copy)
        node.target = copies[path]
        node.meta["val"] = getattr(graph_module, copies[path])
    kept = set(copies.values())
    for name in [*graph_module._parameters, *graph_module._buffers, *graph_module._modules]:
        if name not in kept:
            delattr(graph_module, name)


_REGISTRIES = ("_parameters", "_buffers", "_modules")


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Sets eval mode; puts back each submodule's mode and attributes, such as a counter that ``forward`` increments."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    attributes = [dict(vars(module)) for module in modules]
    registries = [{name: dict(getattr(module, name)) for name in _REGISTRIES} for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode, own, registered in zip(
            modules, modes, attributes, registries, strict=True
        ):
            _restore(vars(module), own)
            for name, contents in registered.items():
                _restore(getattr(module, name), contents)
            module.training = mode


def _restore(current: dict[str, Any], saved: dict[str, Any]) -> None:
    same = list(current) == list(saved) and all(current[key] is saved[key] for key in saved)
    if not same:
        current.clear()
        current.update(saved)


def _traceable_example(spec: Input, device: torch.device) -> torch.Tensor:
    """An example whose dynamic sizes are at least 2: torch.export takes a 0 or 1 for a constant."""
    example = spec.example_tensor(device)
    if all(example.shape[d] > 1 for d in spec.dynamic_dims):
        return example
    shape = [
        max(2, size) if d in spec.dynamic_dims else size for d, size in enumerate(spec.opt_shape)
    ]
    return Input(shape, dtype=spec.dtype).example_tensor(device)


def _export(
    model: nn.Module, examples: tuple[Any, ...], arguments: tuple[Any, ...]
) -> torch.export.ExportedProgram:
    """Exports with the dynamic sizes of the inputs; sizes that the model needs to be equal become one."""
    count = sum(len(spec.dynamic_dims) for spec in pytree.tree_leaves(arguments))
    if count == 0:
        return torch.export.export(model, examples, strict=False)
    groups = list(range(count))
    try:
        shapes = _dynamic_shapes(model, arguments, groups)
        return torch.export.export(model, examples, dynamic_shapes=shapes, strict=False)
    except Exception:
        groups = _equal_sizes(model, examples, arguments)
        if len(set(groups)) == count:
            raise
    shapes = _dynamic_shapes(model, arguments, groups)
    return torch.export.export(model, examples, dynamic_shapes=shapes, strict=False)


def _equal_sizes(
    model: nn.Module, examples: tuple[Any, ...], arguments: tuple[Any, ...]
) -> list[int]:
    """For each dynamic size the number of its group; sizes in one group must be equal.

    Raises:
        UnsupportedGraphError: sizes that must be equal have different ranges.
    """
    shapes = pytree.tree_map(
        lambda spec: dict.fromkeys(spec.dynamic_dims, torch.export.Dim.AUTO), arguments
    )
    shapes = _by_parameter(model, shapes)
    program = torch.export.export(model, examples, dynamic_shapes=shapes, strict=False)
    names = set(program.graph_signature.user_inputs)
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    groups: dict[str, int] = {}
    ranges: dict[str, tuple[int, int, int]] = {}
    result: list[int] = []
    for node, spec in zip(placeholders, pytree.tree_leaves(arguments), strict=True):
        for d in spec.dynamic_dims:
            size = node.meta["val"].shape[d]
            # A number is a size that the model fixes, which torch.export will say about the size alone.
            symbol = str(size) if isinstance(size, torch.SymInt) else f"fixed {len(result)}"
            result.append(groups.setdefault(symbol, len(groups)))
            own = (spec.min_shape[d], spec.opt_shape[d], spec.max_shape[d])
            first = ranges.setdefault(symbol, own)
            if own != first:
                raise UnsupportedGraphError(
                    f"the model needs dimension {d} of {spec.describe()} to be as large as one that has min {first[0]} "
                    f"opt {first[1]} max {first[2]}. Give both Inputs the same range there."
                )
    return result


def _dynamic_shapes(
    model: nn.Module, arguments: tuple[Any, ...], groups: Sequence[int]
) -> dict[str, Any]:
    remaining = iter(groups)
    dims: dict[int, Any] = {}

    def of_input(spec: Input) -> dict[int, Any]:
        result: dict[int, Any] = {}
        for d in spec.dynamic_dims:
            group = next(remaining)
            if group not in dims:
                low, high = spec.min_shape[d], spec.max_shape[d]
                dims[group] = torch.export.Dim(f"size_{group}", min=low, max=high)
            result[d] = dims[group]
        return result

    return _by_parameter(model, pytree.tree_map(of_input, arguments))


def _by_parameter(model: nn.Module, shapes: tuple[Any, ...]) -> dict[str, Any]:
    """Dynamic shapes in the form that torch.export wants where ``forward`` takes ``*args``."""
    return inspect.signature(model.forward).bind(*shapes).arguments


def _decompositions(undecomposed: Collection[Any]) -> Any:
    table = torch.export.default_decompositions()
    for operator in undecomposed:
        if isinstance(operator, torch._ops.OpOverload) and operator in table:
            del table[operator]
    return table
