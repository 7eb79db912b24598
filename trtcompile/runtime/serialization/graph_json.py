"""An executor's FX graph <-> JSON.

FX turns a graph into Python source and executes it. What goes into that source unquoted - names of nodes, of
attributes, and of keywords - must therefore be plain identifiers, and everything called comes from ``operators``.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_dtype,
    as_float,
    as_list,
    as_mapping,
    as_text,
    dtype_name,
    fields,
    shown,
)
from trtcompile.runtime.serialization.operators import function_name, function_named
from trtcompile.runtime.serialization.trees import (
    UnsavableError,
    tree_from_json,
    tree_to_json,
)

_MEMORY_FORMATS = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.contiguous_format,
        torch.channels_last,
        torch.channels_last_3d,
        torch.preserve_format,
    )
}
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def graph_to_json(graph: Graph) -> list[dict[str, Any]]:
    """The nodes of a graph, in order.

    Raises:
        UnsavableError: a node calls something, or has an argument, that files do not hold.
    """
    return [_node_to_json(node) for node in graph.nodes]


def _node_to_json(node: Node) -> dict[str, Any]:
    target = node.target if isinstance(node.target, str) else function_name(node.target)
    if target is None or node.op == "call_method":
        raise UnsavableError(f"a call of {node.target}")
    if node.op != "call_function" and not _is_identifier(target):
        raise UnsavableError(f"a node whose target {target!r} is no identifier")
    return {
        "op": node.op,
        "name": node.name,
        "target": target,
        "args": tree_to_json(node.args, _argument_to_json),
        "kwargs": tree_to_json(node.kwargs, _argument_to_json),
    }


def _argument_to_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype) and dtype_name(value) is not None:
        return {"dtype": dtype_name(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, torch.memory_format):
        return {"memory_format": str(value).removeprefix("torch.")}
    if value is torch.strided:
        return {"layout": "strided"}
    if isinstance(value, complex) and math.isfinite(value.real) and math.isfinite(value.imag):
        return {"complex": [value.real, value.imag]}
    raise UnsavableError(f"an argument {shown(value)} of the type {type(value).__name__}")


def graph_from_json(
    value: Any,
    *,
    constants: Mapping[str, torch.Tensor],
    engines: Mapping[str, nn.Module],
    namespaces: Collection[str],
) -> GraphModule:
    """The inverse of ``graph_to_json``, as a module.

    Args:
        value: the nodes.
        constants: the tensors that it may refer to.
        engines: the submodules that it may call.
        namespaces: the namespaces of ``torch.ops`` that it may use.

    Raises:
        MalformedError: the nodes are not those of a valid graph, or call what they may not.
    """
    reader = _GraphReader(constants, engines, namespaces)
    for node in as_list(value):
        reader.add(node)
    return reader.finish()


class _GraphReader:
    def __init__(
        self,
        constants: Mapping[str, torch.Tensor],
        engines: Mapping[str, nn.Module],
        namespaces: Collection[str],
    ) -> None:
        self._constants = constants
        self._engines = engines
        self._namespaces = namespaces
        self._graph = Graph()
        self._nodes: dict[str, Node] = {}
        self._parameters: set[str] = set()

    def add(self, value: Any) -> None:
        op, name, target, args, kwargs = fields(value, "op", "name", "target", "args", "kwargs")
        name, target = _identifier(name), as_text(target)
        if name in self._nodes:
            raise MalformedError(f"two nodes have the name {name}")
        if "output" in self._nodes:
            raise MalformedError(f"the node {name} follows the output")
        args = tree_from_json(args, self._argument)
        kwargs = tree_from_json(kwargs, self._argument)
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise MalformedError(f"the node {name} has no tuple and dictionary of arguments")
        for key in kwargs:
            _identifier(key)
        if op != "call_function" and kwargs:
            raise MalformedError(f"the node {name} has keywords, which {shown(op)} has not")
        self._nodes[name] = self._create(as_text(op), name, target, args, kwargs)

    def _create(
        self, op: str, name: str, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Node:
        called: str | Callable[..., Any] = target
        if op == "call_function":
            called = function_named(target, self._namespaces)
        elif op == "placeholder":
            self._check_parameter(target, args)
        elif op == "get_attr":
            self._check_known(target, self._constants, "constant")
        elif op == "call_module":
            self._check_known(target, self._engines, "engine")
        elif op != "output" or name != "output" or len(args) != 1 or not isinstance(args[0], tuple):
            raise MalformedError(f"the node {name} is a {shown(op)}, or an output of no tuple")
        return self._graph.create_node(op, called, args, kwargs, name=name)

    def _check_parameter(self, target: str, args: tuple[Any, ...]) -> None:
        if _identifier(target) in self._parameters or args:
            raise MalformedError(f"the placeholder {target} is there twice, or has a default")
        self._parameters.add(target)

    def _check_known(self, target: str, known: Collection[str], what: str) -> None:
        if target not in known:
            raise MalformedError(f"the graph uses the {what} {shown(target)}, which is not there")

    def _argument(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        mapping = as_mapping(value)
        if len(mapping) != 1:
            raise MalformedError(f"{shown(value)} is no argument")
        ((tag, content),) = mapping.items()
        if tag == "complex":
            real, imaginary = as_list(content)
            return complex(as_float(real), as_float(imaginary))
        text = as_text(content)
        if tag == "node" and text in self._nodes:
            return self._nodes[text]
        if tag == "dtype":
            return as_dtype(text)
        if tag == "device":
            return torch.device(text)
        if tag == "memory_format" and text in _MEMORY_FORMATS:
            return _MEMORY_FORMATS[text]
        if tag == "layout" and text == "strided":
            return torch.strided
        if tag == "float" and text in _NON_FINITE:
            return _NON_FINITE[text]
        raise MalformedError(f"{shown(value)} is no argument, or refers to no node before it")

    def finish(self) -> GraphModule:
        if "output" not in self._nodes:
            raise MalformedError("the graph has no output")
        root = nn.Module()
        for name, tensor in self._constants.items():
            root.register_buffer(_identifier(name), tensor)
        for name, engine in self._engines.items():
            root.add_module(_identifier(name), engine)
        module = GraphModule(root, self._graph, class_name="Executor")
        module.graph.lint()
        return module


def _is_identifier(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name != "self"


def _identifier(value: Any) -> str:
    if not _is_identifier(as_text(value)):
        raise MalformedError(f"{shown(value)} stands where an identifier should")
    return str(value)
