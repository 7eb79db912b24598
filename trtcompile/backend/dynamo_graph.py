"""A graph as dynamo hands it to a backend, and the module that is made of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch._dynamo.source import (
    LocalSource,
    NNModuleSource,
    ParamBufferSource,
    UnspecializedParamBufferSource,
)
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.backend.bounded_sizes import BoundedSize, bounded_sizes, symbol_of
from trtcompile.backend.origin import GraphOrigin, source_chain
from trtcompile.errors import CalibrationError

_SIZE = torch.ops.aten.sym_size.int
_WEIGHT_SOURCES = (ParamBufferSource, UnspecializedParamBufferSource)


@dataclass(frozen=True)
class DynamoGraph:
    """Dynamo's graph with its placeholders, by position, sorted out by what they stand for.

    Attributes:
        graph_module: the graph; it is not changed.
        weights: parameters and buffers.
        inputs: other tensors.
        numbers: sizes and other numbers; dynamo passes floats as tensors.
        ranges: for inputs that have sizes with an upper bound these, by dimension.
    """

    graph_module: GraphModule
    weights: tuple[int, ...]
    inputs: tuple[int, ...]
    numbers: tuple[int, ...]
    ranges: Mapping[int, Mapping[int, BoundedSize]]

    @classmethod
    def read(cls, graph_module: GraphModule, example_inputs: Sequence[Any]) -> DynamoGraph:
        """Sorts out the placeholders."""
        weights, inputs, numbers = [], [], []
        placeholders = _placeholders(graph_module)
        for index, node in enumerate(placeholders):
            if _is_number(node, example_inputs[index]):
                numbers.append(index)
            elif any(isinstance(source, _WEIGHT_SOURCES) for source in source_chain(node)):
                weights.append(index)
            else:
                inputs.append(index)
        ranges = bounded_sizes((i, placeholders[i], example_inputs[i]) for i in inputs)
        return cls(graph_module, tuple(weights), tuple(inputs), tuple(numbers), ranges)

    @property
    def operators_in_training(self) -> tuple[str, ...]:
        """The names of the functions that were captured with ``training=True``."""
        names = (_name_if_training(node) for node in self.graph_module.graph.nodes)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def in_order_of_arguments(self, origin: GraphOrigin) -> DynamoGraph:
        """The same graph with its inputs in the order in which a ``DataLoader`` yields them.

        Tensors that are not arguments, such as plain attributes of a module, become weights.

        Raises:
            CalibrationError: the graph is not the whole of what was compiled, or its inputs are not the leading
                positional arguments.
        """
        if origin.graph_break is not None:
            raise CalibrationError(
                f"Quantization was asked for, but {origin.graph_break}. The loader's batches fit only the whole model. "
                "Remove the break (torch.compile(fullgraph=True) shows where it is), or use trtcompile.compile()."
            )
        nodes = _placeholders(self.graph_module)
        constants = [i for i in self.inputs if not _is_of_argument(nodes[i])]
        arguments = [i for i in self.inputs if i not in constants]
        positions = {origin.argument_position(nodes[i]): i for i in arguments}
        inputs = [positions[p] for p in range(len(arguments)) if p in positions]
        if len(inputs) != len(arguments):
            read = [_source_name(nodes[i]) for i in arguments]
            raise CalibrationError(
                f"Quantization was asked for, but the graph reads {', '.join(read)}, which are not the first "
                "arguments of the compiled function, so the loader's elements cannot be matched to them. Use "
                "trtcompile.compile() with inputs=."
            )
        ranges = {index: sizes for index, sizes in self.ranges.items() if index in inputs}
        return replace(
            self, weights=(*self.weights, *constants), inputs=tuple(inputs), ranges=ranges
        )

    def argument_name(self, index: int) -> str | None:
        """The name of the argument that a placeholder is; None for what is only in one."""
        source = getattr(_placeholders(self.graph_module)[index], "_dynamo_source", None)
        return source.local_name if isinstance(source, LocalSource) and source.is_input else None

    def without_ranges(self) -> DynamoGraph:
        """The same graph, taken to be one of the sizes that it is called with."""
        return replace(self, ranges={})

    @cached_property
    def constant_numbers(self) -> tuple[int, ...]:
        """The numbers that are compiled in: all but those that are a size of a range."""
        return tuple(index for index in self.numbers if index not in self._places)

    @cached_property
    def _places(self) -> Mapping[int, tuple[int, int]]:
        """For each number that is a size of a range the input and the dimension that have it."""
        places = {
            size.symbol: (index, dim)
            for index, sizes in self.ranges.items()
            for dim, size in sizes.items()
        }
        nodes = _placeholders(self.graph_module)
        symbols = {i: symbol_of(nodes[i].meta.get("example_value")) for i in self.numbers}
        return {i: places[symbol] for i, symbol in symbols.items() if symbol in places}

    def freeze(self, values: Sequence[Any]) -> GraphModule:
        """A module that takes only the inputs; weights, and numbers but for sizes of a range, are constants of it.

        Args:
            values: a value for each placeholder. Weights are shared, not copied.
        """
        graph = torch.fx.Graph()
        root = nn.Module()
        copies: dict[Node, Any] = {}
        placeholders = _placeholders(self.graph_module)
        for index in self.inputs:
            copies[placeholders[index]] = graph.placeholder(f"input_{index}")
        for index in self.weights:
            name = f"weight_{index}"
            root.register_buffer(name, values[index].detach())
            copies[placeholders[index]] = graph.get_attr(name)
        for index in self.numbers:
            if index in self._places:
                source, dim = self._places[index]
                size = graph.call_function(_SIZE, (copies[placeholders[source]], dim))
                copies[placeholders[index]] = size
            else:
                copies[placeholders[index]] = number_of(values[index])
        for node in self.graph_module.graph.nodes:
            if node.op == "get_attr":
                _copy_attribute(self.graph_module, root, str(node.target))
            if node.op == "call_method" and node.target == "item":
                number = copies[node.args[0]]
                if not isinstance(number, Node):
                    copies[node] = number
                    continue
            if node.op != "placeholder":
                copies[node] = _copy_with_constants(graph, node, copies)
        frozen = GraphModule(root, graph)
        for name, child in self.graph_module.named_children():
            if not hasattr(frozen, name):
                frozen.add_module(name, child)
        return frozen


def _is_number(node: Node, example: Any) -> bool:
    if not isinstance(example, torch.Tensor):
        return True
    # Of numpy, dynamo passes arrays in the same way as it passes floats.
    return example.dim() == 0 and getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False)


def number_of(value: Any) -> Any:
    """A number, which dynamo may have passed as a tensor."""
    return value.item() if isinstance(value, torch.Tensor) else value


def _placeholders(graph_module: GraphModule) -> list[Node]:
    return [node for node in graph_module.graph.nodes if node.op == "placeholder"]


def _source_name(node: Node) -> str:
    return str(getattr(getattr(node, "_dynamo_source", None), "name", node.name))


def _is_of_argument(node: Node) -> bool:
    """Whether the placeholder is, or is in, an argument, rather than an attribute of a module or a global."""
    chain = list(source_chain(node))
    if not chain or any(isinstance(source, NNModuleSource) for source in chain):
        return False
    return isinstance(chain[-1], LocalSource) and chain[-1].is_input


def _name_if_training(node: Node) -> str | None:
    if node.op != "call_function" or not inspect.isfunction(node.target):
        return None
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):
        return None
    return node.target.__name__ if bound.arguments.get("training") is True else None


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
