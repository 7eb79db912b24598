"""Concatenations that begin with the same tensors are built on one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import capture_for_test, check_pass
from torch import Tensor
from torch.fx import GraphModule
from torchvision.models import DenseNet

from trtcompile import CompileSpec, Input
from trtcompile.lowering import run_pass
from trtcompile.lowering.nest_concatenations import nest_concatenations
from trtcompile.lowering.remove_no_ops import remove_no_ops

X, Y, Z = (torch.randn(2, n, 3, generator=torch.Generator().manual_seed(n)) for n in (2, 4, 5))


def joined(graph_module: GraphModule) -> list[list[str]]:
    """The names of what each concatenation joins."""
    return [
        [source.name for source in node.args[0]]
        for node in graph_module.graph.nodes
        if node.target is torch.ops.aten.cat.default
    ]


def test_a_longer_concatenation_is_built_on_a_shorter_one() -> None:
    def model(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([x, y], 1), torch.cat([x, y, z], 1)

    graph_module = check_pass(model, [X, Y, Z], nest_concatenations, rewrites=1)
    assert joined(graph_module) == [["a", "b"], ["cat", "c"]]


def test_the_longest_of_several_is_taken() -> None:
    def model(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.cat([x, y], 1), torch.cat([x, y, z], 1), torch.cat([x, y, z, x, y], -2)

    graph_module = check_pass(model, [X, Y, Z], nest_concatenations, rewrites=2)
    assert joined(graph_module) == [["a", "b"], ["cat", "c"], ["cat_1", "a", "b"]]


OTHERS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "another end": lambda x, y: (torch.cat([x, y], 1), torch.cat([y, y, x], 1)),
    "another dimension": lambda x, y: (torch.cat([x, x], 2), torch.cat([x, x, y], 1)),
    "a later one": lambda x, y: (torch.cat([x, y, x], 1), torch.cat([x, y], 1)),
    "the same one": lambda x, y: (torch.cat([x, y], 1), torch.cat([x, y], 1) + 1),
    "one tensor in front": lambda x, y: (torch.cat([x], 1), torch.cat([x, y], 1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay(name: str) -> None:
    check_pass(OTHERS[name], [X, Y], nest_concatenations, rewrites=0)


def test_parts_are_not_rounded_to_another_type_first() -> None:
    """5001 is no number of FP16, the type of the shorter concatenation."""

    def model(number: Tensor, half: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([number, half], 1), torch.cat([number, half, x], 1)

    number = torch.full_like(X, 5001, dtype=torch.int32)
    graph_module = check_pass(model, [number, Y.half(), Z], nest_concatenations, rewrites=0)
    assert graph_module(number, Y.half(), Z)[1].max() == 5001


def test_every_layer_of_a_dense_block_adds_one_tensor() -> None:
    model = DenseNet(4, (4, 3), 8).eval()
    sizes = [Input(min_shape=(1, 3, 32, 32), opt_shape=(2, 3, 32, 32), max_shape=(4, 3, 32, 32))]
    graph_module = capture_for_test(model, sizes).graph_module
    for lowering in (remove_no_ops, nest_concatenations):
        run_pass(lowering, graph_module, CompileSpec())
    assert [len(names) for names in joined(graph_module)] == [2] * 7
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(graph_module(x)[0], model(x))
