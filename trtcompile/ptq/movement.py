"""Operators that move or select values without changing them: Q on either side gives the same result."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.fx import Node

aten = torch.ops.aten

_MOVEMENTS = frozenset(
    {
        aten._pad_circular.default,
        aten.cat.default,
        aten.clone.default,
        aten.expand.default,
        aten.flip.default,
        aten.index_select.default,
        aten.max_pool1d.default,
        aten.max_pool2d.default,
        aten.max_pool3d.default,
        aten.permute.default,
        aten.reflection_pad1d.default,
        aten.reflection_pad2d.default,
        aten.reflection_pad3d.default,
        aten.repeat.default,
        aten.replication_pad1d.default,
        aten.replication_pad2d.default,
        aten.replication_pad3d.default,
        aten.reshape.default,
        aten.roll.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)


#: Where the last size is as it was, they have moved nothing along the last axis.
_SIZED = frozenset(
    {
        aten.clone.default,
        aten.expand.default,
        aten.repeat.default,
        aten.reshape.default,
        aten.view.default,
    }
)
#: Of the arguments behind the tensor, the axes along which an operator does something.
_AXES: Mapping[Any, slice] = {
    aten.flip.default: slice(0, 1),
    aten.index_select.default: slice(0, 1),
    aten.roll.default: slice(1, 2),
    aten.select.int: slice(0, 1),
    aten.slice.Tensor: slice(0, 1),
    aten.squeeze.dim: slice(0, 1),
    aten.squeeze.dims: slice(0, 1),
    aten.transpose.int: slice(0, 2),
}


def only_moves(node: Node) -> bool:
    """Whether quantizing before or after the node gives the same values."""
    if node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, Node) and source.target is aten.split_with_sizes.default
    if node.target is aten.constant_pad_nd.default:
        # Zero is exact in symmetric quantization; anything else would be rounded, or clipped.
        value = node.args[2] if len(node.args) > 2 else node.kwargs.get("value", 0)
        return isinstance(value, (int, float)) and value == 0
    return node.target in _MOVEMENTS


def picks_part(node: Node) -> bool:
    """Whether a movement leaves values out, which nothing behind it will see."""
    return node.target in (aten.select.int, aten.slice.Tensor)


def moves_whole(node: Node) -> bool:
    """Whether a movement's result is all of one value, and nothing else: no part of it, and no concatenation."""
    if not only_moves(node) or picks_part(node):
        return False
    joined = [source for source in node.all_input_nodes if _is_moved(source.meta.get("val"))]
    return len(joined) == 1 and joined[0].op != "get_attr"


def keeps_last_axis(node: Node) -> bool:
    """Whether a node moves one tensor such that the last axis stays the last, with its indices in order.

    What stands along that axis, as channels do, then does so before and after. Zeros may be padded elsewhere.
    """
    args, target = node.args, node.target
    if not only_moves(node) or not isinstance(args[0], Node):
        return False
    before, after = args[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    if _last_size(before) is None or _last_size(before) != _last_size(after):
        return False
    last = before.dim() - 1
    given: Any = args[1:]
    if target in _SIZED:
        return True
    if target is aten.permute.default:
        return bool(given[0][-1] % (last + 1) == last)
    if target is aten.constant_pad_nd.default:
        return list(given[0][:2]) == [0, 0]
    if target is aten.unsqueeze.default:
        return bool(given[0] % (last + 2) != last + 1)
    axes = given[_AXES[target]] if target in _AXES else ()
    flat = [axis for one in axes for axis in (one if isinstance(one, (list, tuple)) else [one])]
    # A roll without axes is over all values.
    return bool(flat) and all(axis % (last + 1) != last for axis in flat)


def _last_size(value: torch.Tensor) -> int | None:
    """The size of the last axis; None if there is none, or it is not known when compiling."""
    size = value.shape[-1] if value.dim() else None
    return size if isinstance(size, int) else None


def moved_values(node: Node) -> Iterator[Node]:
    """What a movement moves: not the indices by which it picks."""
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        values = value if isinstance(value, (list, tuple)) else [value]
        if source.op != "get_attr" and all(_is_moved(one) for one in values):
            yield source


def _is_moved(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point
