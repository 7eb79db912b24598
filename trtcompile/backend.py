"""``torch.compile(model, backend="trt", options={...})``.

PyTorch finds ``trt_backend`` through the entry-point group ``torch_dynamo_backends``, so trtcompile need not be
imported first. Each graph that dynamo captures goes through the same stages as in ``compile()``; what cannot go
into TensorRT, and everything between graphs, runs in PyTorch.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.capture import capture
from trtcompile.compiler import compile_captured, undecomposed_operators
from trtcompile.engine import check_buildable
from trtcompile.errors import (
    CalibrationError,
    SettingsError,
    StaleWeightsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.inputs import Input
from trtcompile.settings import CompileSpec

_log = logging.getLogger(__name__)

# How dynamo writes the source of a parameter or buffer of a module, and of a plain argument of the function.
_WEIGHT_SOURCE = "ParamBufferSource("
_ARGUMENT_SOURCE = re.compile(r"^L\['(\w+)'\]$")


def trt_backend(
    graph_module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compiles one graph that ``torch.compile`` captured.

    Args:
        graph_module: dynamo's graph; parameters and buffers are among its placeholders.
        example_inputs: a value for each placeholder.
        options: the fields of ``CompileSpec``.
        mode: must be None; the modes of ``torch.compile`` belong to its own backend.

    Returns:
        A function that takes what the graph takes.

    Raises:
        SettingsError: an option is unknown or refused.
        CalibrationError: INT8 was asked for, and the graph is only a part of what was compiled.
    """
    if mode is not None:
        raise SettingsError(
            f"mode is {mode!r}, which the backend 'trt' does not have. Use options={{...}} with the fields of "
            "CompileSpec."
        )
    spec = CompileSpec.from_options(options or {})
    check_buildable(spec)
    graph = _DynamoGraph.read(graph_module, example_inputs)
    if spec.uses_int8:
        graph = graph.in_order_of_arguments()
    compiled = _SpecializedGraph(graph, spec)
    if not graph.has_symbolic_sizes:
        compiled.specialize(example_inputs)
    return compiled


@dataclass(frozen=True)
class _DynamoGraph:
    """Dynamo's graph with its placeholders sorted out by what they stand for."""

    graph_module: GraphModule
    weights: tuple[int, ...]
    inputs: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def read(cls, graph_module: GraphModule, example_inputs: Sequence[Any]) -> _DynamoGraph:
        weights, inputs, sizes = [], [], []
        for index, node in enumerate(_placeholders(graph_module)):
            if _WEIGHT_SOURCE in repr(getattr(node, "_dynamo_source", None)):
                weights.append(index)
            elif isinstance(example_inputs[index], torch.Tensor):
                inputs.append(index)
            else:
                sizes.append(index)
        return cls(graph_module, tuple(weights), tuple(inputs), tuple(sizes))

    @property
    def has_symbolic_sizes(self) -> bool:
        """Whether dynamo will call this graph with shapes other than the first."""
        return any(
            isinstance(size, torch.SymInt)
            for index, node in enumerate(_placeholders(self.graph_module))
            if index in self.inputs
            for size in node.meta["example_value"].shape
        )

    def in_order_of_arguments(self) -> _DynamoGraph:
        """The same graph with its inputs in the order in which a ``DataLoader`` yields them.

        Raises:
            CalibrationError: the graph is not the whole of what was compiled, or its inputs cannot be told apart.
        """
        break_reason = _graph_break(self.graph_module)
        if break_reason is not None:
            raise CalibrationError(
                f"INT8 was asked for, but {break_reason}, and the loader's batches fit only the whole model. Remove "
                "the break (torch.compile(fullgraph=True) shows where it is), or use trtcompile.compile()."
            )
        positions = _argument_positions(self.graph_module, self.inputs)
        if positions is None or sorted(positions) != list(range(len(positions))):
            raise CalibrationError(
                "INT8 was asked for, but the graph's inputs are not the leading positional arguments of the compiled "
                "function, so the loader's elements cannot be matched to them. Use trtcompile.compile() with inputs=."
            )
        in_order = [index for _, index in sorted(zip(positions, self.inputs, strict=True))]
        return _DynamoGraph(self.graph_module, self.weights, tuple(in_order), self.sizes)

    def freeze(self, values: Sequence[Any]) -> nn.Module:
        """A module that takes only the inputs; weights and sizes are constants of it."""
        graph = torch.fx.Graph()
        root = nn.Module()
        copies: dict[Node, Any] = {}
        placeholders = _placeholders(self.graph_module)
        for index in self.inputs:
            copies[placeholders[index]] = graph.placeholder(f"input_{index}")
        for index in self.weights:
            name = f"weight_{index}"
            value = values[index]
            root.register_buffer(name, value.detach() if isinstance(value, torch.Tensor) else value)
            copies[placeholders[index]] = graph.get_attr(name)
        for index in self.sizes:
            copies[placeholders[index]] = values[index]
        for node in self.graph_module.graph.nodes:
            if node.op == "get_attr":
                _copy_attribute(self.graph_module, root, str(node.target))
            if node.op != "placeholder":
                copies[node] = _copy_with_constants(graph, node, copies)
        frozen = GraphModule(root, graph)
        for name, child in self.graph_module.named_children():
            if not hasattr(frozen, name):
                frozen.add_module(name, child)
        return frozen.eval()


class _SpecializedGraph:
    """A graph compiled once for each set of input shapes that it is called with."""

    def __init__(self, graph: _DynamoGraph, spec: CompileSpec) -> None:
        self._graph = graph
        self._spec = spec
        self._by_shape: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._weight_state: tuple[tuple[int, int], ...] | None = None

    def __call__(self, *values: Any) -> Any:
        if self._weight_state is not None and self._state_of_weights(values) != self._weight_state:
            raise StaleWeightsError(
                "the model's parameters changed after they had become constants of an engine. Call "
                "torch._dynamo.reset() and run the compiled model again to build it with the new ones."
            )
        compiled = self._by_shape.get(self._key(values))
        if compiled is None:
            compiled = self.specialize(values)
        return compiled(*(values[index] for index in self._graph.inputs))

    def specialize(self, values: Sequence[Any]) -> Callable[..., Any]:
        """Compiles the graph for the shapes of ``values``."""
        frozen = self._graph.freeze(values)
        inputs = tuple(
            Input(tuple(values[i].shape), dtype=values[i].dtype) for i in self._graph.inputs
        )
        compiled = _compile_or_keep(frozen, inputs, self._spec)
        self._by_shape[self._key(values)] = compiled
        self._weight_state = self._state_of_weights(values)
        return compiled

    def _key(self, values: Sequence[Any]) -> tuple[Any, ...]:
        shapes = tuple(tuple(values[i].shape) for i in self._graph.inputs)
        return (shapes, tuple(values[i] for i in self._graph.sizes))

    def _state_of_weights(self, values: Sequence[Any]) -> tuple[tuple[int, int], ...]:
        tensors = (values[i] for i in self._graph.weights)
        return tuple((t.data_ptr(), t._version) for t in tensors if isinstance(t, torch.Tensor))


def _compile_or_keep(
    frozen: nn.Module, inputs: tuple[Input, ...], spec: CompileSpec
) -> Callable[..., Any]:
    if not inputs:
        return frozen
    # Dynamo is tracing; torch.export must not take its context for its own.
    with torch._guards.tracing(None), torch._dynamo.utils.preserve_rng_state():
        try:
            captured = capture(_TracedGraph(frozen), inputs, undecomposed=undecomposed_operators())
        except UnsupportedGraphError as error:
            if spec.require_full_compilation or spec.uses_int8:
                raise
            warnings.warn(f"a graph stays in PyTorch: {error}", TRTCompileWarning, stacklevel=2)
            return frozen
        module = compile_captured(captured, spec)
    _log.info("%s", module.report)
    return module if module.engines else frozen


class _TracedGraph(nn.Module):
    """Runs a graph node by node, so that traced operators inherit the user's source lines."""

    def __init__(self, graph_module: nn.Module) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.training = False

    def forward(self, *inputs: torch.Tensor) -> Any:
        assert isinstance(self.graph_module, GraphModule)
        with torch.fx.traceback.preserve_node_meta():
            return torch.fx.Interpreter(self.graph_module).run(*inputs)


def _placeholders(graph_module: GraphModule) -> list[Node]:
    return [node for node in graph_module.graph.nodes if node.op == "placeholder"]


def _copy_attribute(source: nn.Module, target: nn.Module, path: str) -> None:
    if "." in path or hasattr(target, path):
        return
    value = getattr(source, path)
    if isinstance(value, torch.Tensor):
        target.register_buffer(path, value.detach())
    else:
        setattr(target, path, value)


def _copy_with_constants(graph: torch.fx.Graph, node: Node, copies: dict[Node, Any]) -> Node:
    """Copies a node whose inputs may have become numbers, which ``Graph.node_copy`` does not allow."""
    args, kwargs = pytree.tree_map_only(Node, lambda n: copies[n], (node.args, node.kwargs))
    copy = graph.create_node(node.op, node.target, tuple(args), dict(kwargs), node.name, node.type)
    copy.meta = dict(node.meta)
    return copy


def _graph_break(graph_module: GraphModule) -> str | None:
    """Why the graph is only a part of the compiled function, or None."""
    reason = getattr(graph_module, "compile_subgraph_reason", None)
    if reason is not None and reason.graph_break:
        where = reason.user_stack[-1] if reason.user_stack else None
        at = f" at {where.filename}:{where.lineno} ({where.line})" if where is not None else ""
        return f"dynamo broke the model into several graphs{at}: {reason.reason}"
    # Code of the user between here and the compiled function's entry means that dynamo was called back from it.
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "compile_wrapper":
        path = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/" not in path and "/trtcompile/" not in path and "importlib" not in path:
            return f"dynamo broke the model into several graphs in {path}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _argument_positions(graph_module: GraphModule, inputs: Sequence[int]) -> list[int] | None:
    """The positions of the graph's inputs among the function's arguments, ``self`` left out."""
    names = []
    placeholders = _placeholders(graph_module)
    for index in inputs:
        source = getattr(placeholders[index], "_dynamo_source", None)
        match = (
            _ARGUMENT_SOURCE.match(source.name if isinstance(source.name, str) else source.name())
            if source
            else None
        )
        if match is None:
            return None
        names.append(match.group(1))
    if len(names) == 1 and _compiled_code() is None:
        return None
    code = _compiled_code()
    if code is None:
        return None
    parameters = [n for n in code.co_varnames[: code.co_argcount] if n != _self_name(graph_module)]
    return [parameters.index(name) for name in names] if set(names) <= set(parameters) else None


def _self_name(graph_module: GraphModule) -> str | None:
    """The name of the argument that holds the module, read off the parameters' sources."""
    for node in _placeholders(graph_module):
        match = re.search(
            r"LocalSource\(local_name='(\w+)'", repr(getattr(node, "_dynamo_source", ""))
        )
        if match and _WEIGHT_SOURCE in repr(getattr(node, "_dynamo_source", "")):
            return match.group(1)
    return None


def _compiled_code() -> Any:
    """The code object that dynamo is compiling."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_compile" and frame.f_code.co_filename.endswith(
            "convert_frame.py"
        ):
            return frame.f_locals.get("code")
        frame = frame.f_back
    return None
