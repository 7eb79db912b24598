"""Sizes of a dynamo graph's inputs for which the user gave dynamo an upper bound, with ``mark_dynamic``.

Dynamo also finds bounds by itself, from guards of operators; nobody asked for one engine of all those sizes, so they
do not count.

Nothing here compares a symbolic size with a number: that would add a guard to what dynamo is compiling, and make the
graph one of a single size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from trtcompile.dims import UNBOUNDED


@dataclass(frozen=True)
class BoundedSize:
    """A size that may be anything in a range.

    Attributes:
        symbol: the name of its symbol; sizes of one symbol are equal.
        low: the smallest size.
        high: the largest size.
    """

    symbol: str
    low: int
    high: int


def bounded_sizes(
    inputs: Iterable[tuple[int, Node, Any]],
) -> dict[int, Mapping[int, BoundedSize]]:
    """For each input that has sizes of a range these, by dimension.

    A size that is computed of others, such as ``2*s0``, is none. A size that has to equal one with an upper bound has
    that bound as well.

    Args:
        inputs: for each input its position, placeholder, and example.
    """
    inputs = list(inputs)
    marked = {symbol for _, node, example in inputs for symbol in _marked_symbols(node, example)}
    ranges = {index: dict(_ranges(node, marked)) for index, node, _ in inputs}
    return {index: sizes for index, sizes in ranges.items() if sizes}


def symbol_of(size: Any) -> str | None:
    """The name of the symbol that a size is; None of numbers and of what is computed of symbols."""
    is_symbol = isinstance(size, torch.SymInt) and size.node.expr.is_symbol
    return str(size.node.expr) if is_symbol else None


def _marked_symbols(node: Node, example: Any) -> Iterator[str]:
    sizes = _sizes(node)
    for mark in getattr(example, "_dynamo_dynamic_range", ()):
        symbol = symbol_of(sizes[mark.dim]) if mark.dim < len(sizes) else None
        if mark.max is not None and symbol is not None:
            yield symbol


def _ranges(node: Node, marked: set[str]) -> Iterator[tuple[int, BoundedSize]]:
    for dim, size in enumerate(_sizes(node)):
        symbol = symbol_of(size)
        if symbol not in marked:
            continue
        # Its guards may have narrowed the range that was asked for.
        allowed = size.node.shape_env.bound_sympy(size.node.expr)
        if allowed.upper < UNBOUNDED:
            yield dim, BoundedSize(str(symbol), int(allowed.lower), int(allowed.upper))


def _sizes(node: Node) -> tuple[Any, ...]:
    value = node.meta.get("example_value")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
