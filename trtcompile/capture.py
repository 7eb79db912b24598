"""From a module to one graph of functional ATen operators with flat inputs and outputs.

The caller's module comes back exactly as it was, also when the capture fails: its ``training`` flags, and the
attributes that ``forward`` sets, are put back.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.fx.traceback import preserve_node_meta
from torch.utils import _pytree as pytree

from trtcompile.errors import SettingsError, TRTCompileWarning, UnsupportedGraphError
from trtcompile.export_repairs import export_repairs
from trtcompile.exported import check_inputs
from trtcompile.inputs import Input, flat_inputs, is_constant
from trtcompile.node_info import NotingSourceLines


@dataclass(frozen=True)
class CapturedGraph:
    """A model as one graph.

    Attributes:
        graph_module: placeholders are the tensors of ``arguments`` in pytree order, parameters and buffers are
            ``get_attr`` nodes holding copies on the CPU, the output is a flat tuple.
        arguments: the arguments with an ``Input`` for each tensor: first the positional ones.
        keywords: the names of the others, which follow.
        out_spec: pytree of the output.
    """

    graph_module: GraphModule
    arguments: tuple[Any, ...]
    keywords: tuple[str, ...]
    out_spec: pytree.TreeSpec

    @property
    def in_spec(self) -> pytree.TreeSpec:
        """Pytree of ``(arguments, {})``."""
        return pytree.tree_structure((self.arguments, {}))


def capture(
    model: Any,
    arguments: tuple[Any, ...],
    keywords: Mapping[str, Any] | None = None,
    *,
    undecomposed: Collection[Any] = (),
) -> CapturedGraph:
    """Exports a module with ``torch.export`` and makes it functional.

    Args:
        model: an ``nn.Module``, captured as in eval mode (with a warning if it is in train mode), or an
            ``ExportedProgram``.
        arguments: positional arguments as parsed by ``inputs.parse_inputs``.
        keywords: keyword arguments as parsed by ``inputs.parse_keyword_inputs``.
        undecomposed: operators to keep whole; every other composite operator is decomposed to core ATen.

    Raises:
        SettingsError: ``forward`` does not take that many arguments.
        UnsupportedGraphError: ``torch.export`` cannot trace the model, or the model writes to its buffers or inputs.
    """
    if isinstance(model, torch.export.ExportedProgram):
        check_inputs(model, arguments, keywords or {})
        program = model.run_decompositions(_decompositions(undecomposed))
        return from_exported_program(program, _Inputs(arguments, dict(keywords or {})))
    if not isinstance(model, nn.Module):
        raise UnsupportedGraphError(
            f"model is a {type(model).__name__}, not an nn.Module. Wrap a function in a module, or use "
            "torch.compile(function, backend='trt')."
        )
    inputs = _in_order(model, arguments, keywords or {})
    if any(module.training for module in model.modules()):
        warnings.warn(
            "the model is in train mode and is compiled as in eval mode. Call model.eval() first to say so.",
            TRTCompileWarning,
            stacklevel=3,
        )
    device = next((p.device for p in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    with _evaluating(model), torch.no_grad(), export_repairs(), warnings.catch_warnings():
        # torch.export copies pytree specs in a way that it warns about itself.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            with preserve_node_meta(), NotingSourceLines():
                program = _export(model, inputs, device)
            program = program.run_decompositions(_decompositions(undecomposed))
        except UnsupportedGraphError:
            raise
        except Exception as error:
            raise UnsupportedGraphError(
                f"torch.export cannot trace the model: {error}\nMake the model exportable, or use "
                "torch.compile(model, backend='trt'), which leaves such code to Python."
            ) from error
    return from_exported_program(program, inputs)


@dataclass(frozen=True)
class _Inputs:
    """Parsed arguments; keywords in the order of ``forward``, in which torch.export takes them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def leaves(self) -> list[Any]:
        return pytree.tree_leaves((self.args, self.kwargs))

    @property
    def tensors(self) -> tuple[Input, ...]:
        return flat_inputs((self.args, self.kwargs))

    def mapped(self, function: Callable[[Input], Any]) -> _Inputs:
        """The same with ``function`` applied to each ``Input``."""

        def apply(leaf: Any) -> Any:
            return function(leaf) if isinstance(leaf, Input) else leaf

        return _Inputs(*pytree.tree_map(apply, (self.args, self.kwargs)))


def _in_order(model: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Inputs:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        given = f"inputs has {len(arguments)} entries"
        given += f" and kwarg_inputs {list(keywords)}" if keywords else ""
        raise SettingsError(
            f"{given}, and the model is forward{signature}: {error}. Give an entry for each argument that has no "
            "default."
        ) from None
    order = [name for name in signature.parameters if name in keywords]
    order += [name for name in keywords if name not in order]  # those that **kwargs takes
    return _Inputs(arguments, {name: keywords[name] for name in order})


def from_exported_program(program: torch.export.ExportedProgram, inputs: _Inputs) -> CapturedGraph:
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
    assert call_spec.out_spec is not None
    graph_module = program.module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    graph_module.graph.set_codegen(CodeGen())
    _erase_unused_attributes(graph_module)
    _erase_constant_inputs(graph_module, inputs)
    _own_constants(graph_module)
    graph_module.recompile()
    arguments = (*inputs.args, *inputs.kwargs.values())
    return CapturedGraph(graph_module, arguments, tuple(inputs.kwargs), call_spec.out_spec)


def _erase_constant_inputs(graph_module: GraphModule, inputs: _Inputs) -> None:
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for node, leaf in zip(placeholders, inputs.leaves, strict=True):
        if is_constant(leaf):
            graph_module.graph.erase_node(node)


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
    model: nn.Module, inputs: _Inputs, device: torch.device
) -> torch.export.ExportedProgram:
    """Exports with the dynamic sizes of the inputs; sizes that the model needs to be equal become one."""
    examples = inputs.mapped(lambda spec: _traceable_example(spec, device))

    def export(shapes: dict[str, Any] | None) -> torch.export.ExportedProgram:
        return torch.export.export(
            model, examples.args, examples.kwargs, dynamic_shapes=shapes, strict=False
        )

    count = sum(len(spec.dynamic_dims) for spec in inputs.tensors)
    if count == 0:
        return export(None)
    groups = list(range(count))
    try:
        return export(_dynamic_shapes(model, inputs, groups))
    except Exception:
        groups = _equal_sizes(model, inputs, export)
        if len(set(groups)) == count:
            raise
    return export(_dynamic_shapes(model, inputs, groups))


def _equal_sizes(
    model: nn.Module,
    inputs: _Inputs,
    export: Callable[[dict[str, Any] | None], torch.export.ExportedProgram],
) -> list[int]:
    """For each dynamic size the number of its group; sizes in one group must be equal.

    Raises:
        UnsupportedGraphError: sizes that must be equal have different ranges.
    """
    automatic = inputs.mapped(lambda spec: dict.fromkeys(spec.dynamic_dims, torch.export.Dim.AUTO))
    program = export(_by_parameter(model, automatic))
    names = set(program.graph_signature.user_inputs)
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    groups: dict[str, int] = {}
    ranges: dict[str, tuple[int, int, int]] = {}
    result: list[int] = []
    for node, spec in zip(placeholders, inputs.tensors, strict=True):
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


def _dynamic_shapes(model: nn.Module, inputs: _Inputs, groups: Sequence[int]) -> dict[str, Any]:
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

    return _by_parameter(model, inputs.mapped(of_input))


def _by_parameter(model: nn.Module, shapes: _Inputs) -> dict[str, Any]:
    """Dynamic shapes in the form that torch.export wants where ``forward`` takes ``*args``; constants have none."""
    args, kwargs = pytree.tree_map(
        lambda leaf: None if is_constant(leaf) else leaf,
        (shapes.args, shapes.kwargs),
        is_leaf=lambda value: is_constant(value) or _is_shape(value),
    )
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def _is_shape(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, int) for key in value)


def _decompositions(undecomposed: Collection[Any]) -> Any:
    table = torch.export.default_decompositions()
    for operator in undecomposed:
        if isinstance(operator, torch._ops.OpOverload) and operator in table:
            del table[operator]
    return table
