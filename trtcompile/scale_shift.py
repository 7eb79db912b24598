"""Batch norms that no layer could absorb: ``x * scale + shift`` with one number for each channel."""

from __future__ import annotations

import torch
from torch.fx import Node

aten = torch.ops.aten

#: ``addcmul(shift, x, scale)``
SCALE_SHIFT = aten.addcmul.default
#: The ranks of what TensorRT's layer takes: images and volumes.
SCALED_RANKS = (4, 5)


def scaled_value(node: Node) -> Node | None:
    """What a node scales and shifts by channel; None if it does something else.

    Example: ``x`` of ``addcmul(shift, x, scale)`` with constants of shape (C, 1, 1) and an ``x`` of shape (N, C, H, W).
    """
    if node.target is not SCALE_SHIFT or node.kwargs:
        return None
    shift, value, scale = node.args
    if not isinstance(value, Node) or value.op == "get_attr":
        return None
    shape = value.meta["val"].shape
    if len(shape) not in SCALED_RANKS or len(shape) != node.meta["val"].dim():
        return None
    by_channel = (shape[1], *[1] * (len(shape) - 2))
    constants = [n for n in (shift, scale) if isinstance(n, Node) and _is_constant(n)]
    if [tuple(n.meta["val"].shape) for n in constants] != [by_channel] * 2:
        return None
    return value


def written_value(scaled: Node) -> Node:
    """What the kernel writes that scales and shifts: behind a ReLU if nothing else reads the result."""
    readers = list(scaled.users)
    return readers[0] if len(readers) == 1 and readers[0].target is aten.relu.default else scaled


def _is_constant(node: Node) -> bool:
    """Whether a node is a constant, or one that is cast to another type."""
    source = node.args[0] if node.target is aten._to_copy.default else node
    return isinstance(source, Node) and source.op == "get_attr"
