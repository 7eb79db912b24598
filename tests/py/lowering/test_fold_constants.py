"""What depends on constants alone is computed at compile time."""

from __future__ import annotations

import pytest
import torch
from checks import capture_for_test, check_pass, operators
from torch import Tensor, nn
from torch.fx import GraphModule

from trtcompile import CompileSpec, Input
from trtcompile.lowering import run_pass
from trtcompile.lowering.fold_constants import fold_constants


class Standardized(nn.Module):
    """Weight standardization: the weight is computed from a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return torch.conv2d(x, weight)


def test_a_weight_made_of_weights_becomes_one_constant() -> None:
    graph_module = check_pass(Standardized(), [torch.randn(1, 3, 5, 5)], fold_constants, rewrites=2)
    assert operators(graph_module) == ["aten.convolution.default"]
    (weight,) = graph_module.buffers()
    assert weight.mean((1, 2, 3)).abs().max() < 1e-6 and weight.is_contiguous()


class Reading(nn.Module):
    """A function of the input and a constant."""

    def __init__(self, function: object, constant: Tensor) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.constant)  # type: ignore[operator]


def test_parts_of_a_constant_become_constants() -> None:
    """As attention over two sequences cuts its packed weight."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9, 4))

        def forward(self, x: Tensor) -> Tensor:
            first, _, third = self.weight.split(3)
            return nn.functional.linear(x, first) * nn.functional.linear(x, third)

    graph_module = check_pass(Packed(), [torch.randn(2, 4)], fold_constants, rewrites=2)
    assert operators(graph_module) == ["aten.linear.default"] * 2 + ["aten.mul.Tensor"]


def test_what_depends_on_an_input_is_not_folded() -> None:
    model = Reading(lambda x, c: (x + c) * c, torch.randn(3))
    graph_module = check_pass(model, [torch.randn(2, 3)], fold_constants, rewrites=0)
    assert operators(graph_module) == ["aten.add.Tensor", "aten.mul.Tensor"]


def test_constants_much_larger_than_what_made_them_are_not_folded() -> None:
    """16 MiB more is the limit."""
    floats = 4 * 2**20
    small = Reading(lambda x, c: x + c.expand(floats, 1)[:1] * 2, torch.randn(1))
    large = Reading(lambda x, c: x + (c.expand(floats + 2, 1) * 2)[:1], torch.randn(1))
    x = torch.randn(2, 1)
    assert operators(check_pass(small, [x], fold_constants, rewrites=3)) == ["aten.add.Tensor"]
    kept = operators(check_pass(large, [x], fold_constants, rewrites=0))
    assert "aten.expand.default" in kept and "aten.mul.Tensor" in kept


def test_random_operators_are_not_folded() -> None:
    """Of constants they give something else at each call."""
    root = nn.Module()
    root.register_buffer("chance", torch.full((100,), 0.5))
    graph = torch.fx.Graph()
    drawn = graph.call_function(torch.ops.aten.bernoulli.default, (graph.get_attr("chance"),))
    graph.output((graph.call_function(torch.ops.aten.neg.default, (drawn,)),))
    graph_module = GraphModule(root, graph)
    assert run_pass(fold_constants, graph_module, CompileSpec()) == 0
    assert operators(graph_module) == ["aten.bernoulli.default", "aten.neg.default"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_types_are_kept(dtype: torch.dtype) -> None:
    constant = torch.tensor([1, 0, 2]).to(dtype)
    model = Reading(lambda x, c: torch.where(c.flip(0) != 0, x, -x), constant)
    graph_module = check_pass(model, [torch.randn(2, 3)], fold_constants, rewrites=2)
    assert operators(graph_module)[-1] == "aten.where.self"


def test_what_nothing_reads_any_more_is_freed() -> None:
    graph_module = check_pass(Standardized(), [torch.randn(1, 3, 5, 5)], fold_constants, rewrites=2)
    assert len(list(graph_module.buffers())) == 1


def test_tensors_made_of_sizes_alone_are_constants() -> None:
    def masked(x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        mask = (positions[:, None] >= positions) & torch.ones_like(x, dtype=torch.bool)
        return torch.where(mask, x, torch.full_like(x, -1.0)) + x.new_ones(3)

    graph_module = capture_for_test(masked, [torch.randn(3, 3)]).graph_module
    run_pass(fold_constants, graph_module, CompileSpec())
    assert operators(graph_module) == ["aten.where.self", "aten.add.Tensor"]
    x = torch.randn(3, 3)
    torch.testing.assert_close(graph_module(x)[0], masked(x))


def test_sizes_that_are_not_known_are_left_alone() -> None:
    ranged = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(4, 3))
    model = lambda x: x + torch.arange(x.shape[0])[:, None] + torch.zeros_like(x)  # noqa: E731
    graph_module = capture_for_test(model, [ranged]).graph_module
    assert run_pass(fold_constants, graph_module, CompileSpec()) == 0


def test_what_was_in_memory_is_not_folded() -> None:
    def uninitialized(x: Tensor) -> Tensor:
        return torch.empty(3).fill_(1.0) + torch.empty_like(x) * 0 + x

    graph_module = capture_for_test(uninitialized, [torch.randn(2, 3)]).graph_module
    run_pass(fold_constants, graph_module, CompileSpec())
    assert any("empty" in name for name in operators(graph_module))
