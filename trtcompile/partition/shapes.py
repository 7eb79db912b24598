"""The shapes that a tensor inside the model can have, given the ranges of the model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from trtcompile.errors import UnsupportedGraphError
from trtcompile.inputs import Input

ShapeRange = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
#: The ranges of all inputs of an engine.
Profile = tuple[ShapeRange, ...]
SymbolRanges = tuple[dict[Any, int], dict[Any, int], dict[Any, int]]


def symbol_ranges(graph_module: GraphModule, inputs: Sequence[Input]) -> SymbolRanges:
    """What each size symbol of the graph is at the min, opt, and max shapes of the inputs.

    Raises:
        UnsupportedGraphError: sizes that the graph takes to be equal have different ranges.
    """
    ranges: SymbolRanges = ({}, {}, {})
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, inputs, strict=True):
        shapes = (spec.min_shape, spec.opt_shape, spec.max_shape)
        for dim, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                for values, shape in zip(ranges, shapes, strict=True):
                    first = values.setdefault(size.node.expr, shape[dim])
                    if first != shape[dim]:
                        raise UnsupportedGraphError(
                            f"the model needs dimension {dim} of {spec.describe()} to be as large as one that has "
                            f"{first} where this one has {shape[dim]}. Give both Inputs the same Dim there."
                        )
    return ranges


def shape_range(value: torch.Tensor, ranges: SymbolRanges) -> ShapeRange:
    """The min, opt, and max shape of a value of the graph.

    Raises:
        UnsupportedGraphError: a size depends on data rather than on input shapes.
    """

    def at(values: dict[Any, int]) -> tuple[int, ...]:
        sizes = []
        for size in value.shape:
            result = size.node.expr.xreplace(values) if isinstance(size, torch.SymInt) else size
            if not isinstance(result, int) and not result.is_number:
                raise UnsupportedGraphError(
                    f"the size {size} of a tensor that enters an engine depends on data. Leave the operator that "
                    "computes it, and what follows, to PyTorch with torch_executed_ops."
                )
            sizes.append(int(result))
        return tuple(sizes)

    return at(ranges[0]), at(ranges[1]), at(ranges[2])
