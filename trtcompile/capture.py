"""From a module to one graph of functional ATen operators with flat inputs and outputs.

The caller's module comes back exactly as it was, also when the capture fails: its ``training`` flags, and the
attributes that ``forward`` sets, are put back.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Collection, Iterator, Mapping
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
from trtcompile.fake_quantizers import fix_fake_quantizers
from trtcompile.inputs import is_constant
from trtcompile.node_info import NotingSourceLines
from trtcompile.ranged_export import ModelInputs, export_with_ranges


@dataclass(frozen=True)
class CapturedGraph:
    """A model as one graph.

    Attributes:
        graph_module: placeholders are the tensors of ``arguments`` in pytree order, parameters and buffers are
            ``get_attr`` nodes on the CPU, the output is a flat tuple. They share the model's memory where it has them
            there, since a copy during the build would be one more copy of the weights; see ``own_constants``.
        arguments: the arguments with an ``Input`` for each tensor: first the positional ones.
        keywords: the names of the others, which follow.
        out_spec: pytree of the output.
        borrowed: addresses of the model's memory that ``graph_module`` shares.
    """

    graph_module: GraphModule
    arguments: tuple[Any, ...]
    keywords: tuple[str, ...]
    out_spec: pytree.TreeSpec
    borrowed: frozenset[int] = frozenset()

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
        UnsupportedGraphError: ``torch.export`` cannot trace the model, its weights have no values yet, or the model
            writes to its buffers or inputs.
    """
    if isinstance(model, torch.export.ExportedProgram):
        check_inputs(model, arguments, keywords or {})
        program = model.run_decompositions(_decompositions(undecomposed))
        return from_exported_program(program, ModelInputs(arguments, dict(keywords or {})))
    if not isinstance(model, nn.Module):
        raise UnsupportedGraphError(
            f"model is a {type(model).__name__}, not an nn.Module. Wrap a function in a module, or use "
            "torch.compile(function, backend='trt')."
        )
    _check_weights(model)
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
        fix_fake_quantizers(model)
        try:
            with preserve_node_meta(), NotingSourceLines():
                program, inputs = export_with_ranges(model, inputs, device)
            program = program.run_decompositions(_decompositions(undecomposed))
        except UnsupportedGraphError:
            raise
        except Exception as error:
            raise UnsupportedGraphError(
                f"torch.export cannot trace the model: {error}\nGive inputs of the shapes and dtypes that "
                "forward takes, make the model exportable, or use torch.compile(model, backend='trt'), which leaves "
                "such code to Python."
            ) from error
    return from_exported_program(program, inputs)


def _check_weights(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedGraphError(
                f"{f'module {name!r}' if name else 'the model'} is a {type(module).__name__}, which torch.export does "
                "not take. Give the module that it was made of."
            )
        if isinstance(getattr(module, "_packed_params", None), torch.ScriptObject):
            raise UnsupportedGraphError(
                f"{f'module {name!r}' if name else 'the model'} has weights that torch.ao packed for its own INT8 "
                "kernels, which torch.export does not take. Give the model as it was before "
                "torch.ao.quantization.convert: with fake quantization or Q/DQ it compiles as it is."
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise UnsupportedGraphError(
                f"{name!r} is on the meta device, where tensors have no values. Load the weights first."
            )


def _in_order(
    model: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> ModelInputs:
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
    return ModelInputs(arguments, {name: keywords[name] for name in order})


def from_exported_program(
    program: torch.export.ExportedProgram, inputs: ModelInputs
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
    assert call_spec.out_spec is not None
    graph_module = program.module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    graph_module.graph.set_codegen(CodeGen())
    _erase_unused_attributes(graph_module)
    _erase_constant_inputs(graph_module, inputs)
    borrowed = _flatten_constants(graph_module)
    graph_module.recompile()
    arguments = (*inputs.args, *inputs.kwargs.values())
    return CapturedGraph(
        graph_module, arguments, tuple(inputs.kwargs), call_spec.out_spec, frozenset(borrowed)
    )


def _erase_constant_inputs(graph_module: GraphModule, inputs: ModelInputs) -> None:
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for node, leaf in zip(placeholders, inputs.leaves, strict=True):
        if is_constant(leaf):
            graph_module.graph.erase_node(node)


def _erase_unused_attributes(graph_module: GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph_module.graph.erase_node(node)


def _flatten_constants(graph_module: GraphModule) -> set[int]:
    """Puts parameters and buffers under flat names, on the CPU.

    Returns:
        The addresses of the memory that they share with the model.
    """
    flat: dict[str, str] = {}
    borrowed: set[int] = set()
    kept: set[str] = set()
    for node in graph_module.graph.nodes:
        if node.op != "get_attr":
            continue
        path = str(node.target)
        if path not in flat:
            value: Any = graph_module
            for name in path.split("."):
                value = getattr(value, name)
            if isinstance(
                value, nn.Module
            ):  # a branch of torch.cond, which gets its tensors as arguments
                kept.add(path)
                continue
            flat[path] = "constant_" + path.replace(".", "_")
            while hasattr(graph_module, flat[path]):
                flat[path] += "_"
            constant = value.detach().cpu().contiguous()
            if _address(constant) == _address(value):
                borrowed.add(_address(constant))
            graph_module.register_buffer(flat[path], constant)
        node.target = flat[path]
        node.meta["val"] = getattr(graph_module, flat[path])
    kept.update(flat.values())
    for name in [*graph_module._parameters, *graph_module._buffers, *graph_module._modules]:
        if name not in kept:
            delattr(graph_module, name)
    return borrowed


def own_constants(captured: CapturedGraph, *graph_modules: GraphModule) -> None:
    """Gives graphs copies of the constants that they share with the model, which may change later.

    Args:
        captured: where the graphs come from.
        graph_modules: what outlives the compilation; what several of them share, they go on sharing.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    for graph_module in graph_modules:
        for name, value in list(graph_module.named_buffers(recurse=False, remove_duplicate=False)):
            if _address(value) in captured.borrowed:
                view = (
                    _address(value),
                    value.storage_offset(),
                    value.shape,
                    value.stride(),
                    value.dtype,
                )
                if view not in copies:
                    copies[view] = value.clone()
                setattr(graph_module, name, copies[view])
        for node in graph_module.graph.find_nodes(op="get_attr"):
            constant = getattr(graph_module, str(node.target), None)
            if isinstance(constant, torch.Tensor):
                node.meta["val"] = constant


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


#: What a module keeps in dictionaries: parameters, buffers, submodules, and hooks.
_REGISTRIES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Sets eval mode; puts back each submodule's mode and attributes, such as a counter that ``forward`` increments.

    Hooks as well: Transformers registers some at the first call, and would do so again, for it notes that in an
    attribute.
    """
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


def _decompositions(undecomposed: Collection[Any]) -> Any:
    table = torch.export.default_decompositions()
    for operator in undecomposed:
        if isinstance(operator, torch._ops.OpOverload) and operator in table:
            del table[operator]
    return table
