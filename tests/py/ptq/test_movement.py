"""Movements: which of them leave the last axis alone, against what they do with its indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from trtcompile.ptq.movement import keeps_last_axis, only_moves

aten = torch.ops.aten
SHAPE = (6, 3, 6)  # sizes alone do not tell the first axis from the last

KEEPS = [
    (aten.clone.default, ()),
    (aten.expand.default, ([4, 6, 3, 6],)),
    (aten.repeat.default, ([2, 1, 1],)),
    (aten.reshape.default, ([-1, 6],)),
    (aten.view.default, ([9, 2, 6],)),
    (aten.permute.default, ([1, 0, 2],)),
    (aten.permute.default, ([1, 0, -1],)),
    (aten.constant_pad_nd.default, ([0, 0, 1, 2],)),
    (aten.unsqueeze.default, (0,)),
    (aten.unsqueeze.default, (-2,)),
    (aten.flip.default, ([0, 1],)),
    (aten.index_select.default, (1, torch.tensor([2, 0]))),
    (aten.roll.default, ([1, 1], [0, 1])),
    (aten.select.int, (1, 2)),
    (aten.slice.Tensor, (0, 0, 1)),
    (aten.squeeze.dim, (0,)),
    (aten.squeeze.dims, ([0, 1],)),
    (aten.transpose.int, (0, 1)),
]
MOVES = [
    (aten.repeat.default, ([1, 1, 2],)),
    (aten.reshape.default, ([6, 18],)),
    (aten.view.default, ([18, 6, 1],)),
    (aten.permute.default, ([2, 0, 1],)),
    (aten.permute.default, ([2, 1, 0],)),
    (aten.permute.default, ([0, -1, 1],)),
    (aten.constant_pad_nd.default, ([1, -1],)),
    (aten.constant_pad_nd.default, ([0, 1],)),
    (aten.unsqueeze.default, (3,)),
    (aten.unsqueeze.default, (-1,)),
    (aten.flip.default, ([2],)),
    (aten.flip.default, ([0, -1],)),
    (aten.index_select.default, (2, torch.arange(5, -1, -1))),
    (aten.roll.default, ([1], [-1])),
    (aten.roll.default, ([1],)),
    (aten.select.int, (2, 0)),
    (aten.slice.Tensor, (2, 1, 4)),
    (aten.transpose.int, (0, 2)),
    (aten.transpose.int, (-1, -2)),
]


def moved(x: Tensor, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
    """A node of a graph; its value is what the operator makes of ``x``."""
    graph = fx.Graph()
    source = graph.placeholder("x")
    source.meta["val"] = x
    node = graph.call_function(target, (source, *arguments))
    node.meta["val"] = target(x, *arguments)
    assert only_moves(node)
    return node


@pytest.mark.parametrize(("target", "arguments"), [*KEEPS, *MOVES])
def test_the_last_axis(target: Any, arguments: tuple[Any, ...]) -> None:
    """Each value is its index along the last axis, from 1; 0 is padding."""
    indices = torch.arange(1.0, 7).expand(SHAPE).contiguous()
    node = moved(indices, target, arguments)
    value = node.meta["val"]
    size = value.shape[-1]
    stays = size == 6 and bool(
        ((value == torch.arange(1.0, 7)) | (value == 0)).all() and (value != 0).any()
    )
    assert keeps_last_axis(node) == stays == ((target, arguments) in KEEPS)


def test_several_tensors() -> None:
    graph = fx.Graph()
    sources = [graph.placeholder(name) for name in "xy"]
    for source in sources:
        source.meta["val"] = torch.randn(SHAPE)
    node = graph.call_function(aten.cat.default, (sources,))
    node.meta["val"] = torch.randn(12, 3, 6)
    assert not keeps_last_axis(node)


def test_one_number() -> None:
    assert not keeps_last_axis(moved(torch.tensor(1.0), aten.clone.default, ()))
