"""Operators that move or select values without changing them: Q on either side gives the same result."""

from __future__ import annotations

import operator
from collections.abc import Iterator

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


def moved_values(node: Node) -> Iterator[Node]:
    """What a movement moves: not the indices by which it picks."""
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        values = value if isinstance(value, (list, tuple)) else [value]
        if source.op != "get_attr" and all(_is_moved(one) for one in values):
            yield source


def _is_moved(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point
