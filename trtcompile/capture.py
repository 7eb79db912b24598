"""From a module to one graph of functional ATen operators with flat inputs and outputs.

The caller's module comes back exactly as it was: only the ``training`` flags are touched, and they are put back
also when the capture fails.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from trtcompile.errors import TRTCompileWarning, UnsupportedGraphError
from trtcompile.inputs import Input


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
        UnsupportedGraphError: ``torch.export`` cannot trace the model, or the model writes to its buffers or inputs.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedGraphError(
            f"model is a {type(model).__name__}, not an nn.Module. Wrap a function in a module, or use "
            "torch.compile(function, backend='trt')."
        )
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
            program = torch.export.export(
                model, examples, dynamic_shapes=_dynamic_shapes(arguments), strict=False
            )
            program = program.run_decompositions(_decompositions(undecomposed))
        except Exception as error:
            raise UnsupportedGraphError(
                f"torch.export cannot trace the model: {error}\nMake the model exportable, or use "
                "torch.compile(model, backend='trt'), which leaves such code to Python."
            ) from error
    return from_exported_program(program, arguments)


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


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


def _traceable_example(spec: Input, device: torch.device) -> torch.Tensor:
    """An example whose dynamic sizes are at least 2: torch.export takes a 0 or 1 for a constant."""
    example = spec.example_tensor(device)
    if all(example.shape[d] > 1 for d in spec.dynamic_dims):
        return example
    shape = [
        max(2, size) if d in spec.dynamic_dims else size for d, size in enumerate(spec.opt_shape)
    ]
    return Input(shape, dtype=spec.dtype).example_tensor(device)


def _dynamic_shapes(arguments: tuple[Any, ...]) -> Any:
    if not any(spec.is_dynamic for spec in pytree.tree_leaves(arguments)):
        return None
    counter = iter(range(10**6))

    def dims(spec: Input) -> dict[int, Any]:
        result: dict[int, Any] = {}
        for d in spec.dynamic_dims:
            result[d] = torch.export.Dim(
                f"size_{next(counter)}", min=spec.min_shape[d], max=spec.max_shape[d]
            )
        return result

    return pytree.tree_map(dims, arguments)


def _decompositions(undecomposed: Collection[Any]) -> Any:
    table = torch.export.default_decompositions()
    for operator in undecomposed:
        if isinstance(operator, torch._ops.OpOverload) and operator in table:
            del table[operator]
    return table
