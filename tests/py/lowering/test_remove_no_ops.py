"""Operators that change nothing in inference disappear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import capture_for_test, check_pass, operators
from torch import Tensor, nn

from trtcompile import CompileSpec, Input
from trtcompile.lowering import run_pass
from trtcompile.lowering.remove_no_ops import remove_no_ops
from trtcompile.lowering.reshape_views import reshape_views

NOTHING: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=False),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.permute(0, 2, 1).permute(0, 2, 1).contiguous(),
    "detach": lambda x: x.detach(),
    "same dtype": lambda x: torch.ops.aten._to_copy.default(x, dtype=torch.float32),
    "same view": lambda x: x.view(2, 3, 4),
    "same reshape": lambda x: x.reshape(2, -1, 4),
    "same expand": lambda x: x.expand(2, 3, 4),
    "concatenation of one": lambda x: torch.cat([x], 1),
    "same strides": lambda x: x.as_strided((2, 3, 4), (12, 4, 1)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_no_ops(name: str) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(NOTHING[name](torch.tanh(x)))

    graph_module = capture_for_test(model, [torch.randn(2, 3, 4)]).graph_module
    run_pass(remove_no_ops, graph_module, CompileSpec())
    kept = [op for op in operators(graph_module) if "permute" not in op]
    assert kept == ["aten.tanh.default", "aten.relu.default"]
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(graph_module(x)[0], model(x))


SOMETHING: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda x: x.to(torch.float64),
    "view": lambda x: x.view(2, 12),
    "view of equal rank": lambda x: x.view(2, 4, 3),
    "expand": lambda x: x[:, :1].expand(2, 3, 4),
    "add": lambda x: x + 0,
    "strides": lambda x: x.as_strided((2, 3, 4), (1, 2, 6)),
    "offset": lambda x: x[:, :, 1:].as_strided((2, 3, 3), (12, 4, 1), 0),
}


@pytest.mark.parametrize("name", SOMETHING)
def test_what_changes_something_stays(name: str) -> None:
    graph_module = capture_for_test(SOMETHING[name], [torch.randn(2, 3, 4)]).graph_module
    before = [op for op in operators(graph_module) if "assert" not in op]
    run_pass(remove_no_ops, graph_module, CompileSpec())
    assert operators(graph_module) == before
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(graph_module(x)[0], SOMETHING[name](x))


def test_a_chain_of_no_ops() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(x.clone().detach().view(2, 3).contiguous())

    graph_module = capture_for_test(model, [torch.randn(2, 3)]).graph_module
    assert run_pass(remove_no_ops, graph_module, CompileSpec()) >= 2
    assert operators(graph_module) == ["aten.relu.default"]


def test_a_no_op_that_is_the_output() -> None:
    graph_module = capture_for_test(lambda x: x.clone(), [torch.randn(2, 3)]).graph_module
    run_pass(remove_no_ops, graph_module, CompileSpec())
    assert operators(graph_module) == []
    x = torch.randn(2, 3)
    assert torch.equal(graph_module(x)[0], x)


def test_reshapes_with_a_dynamic_batch() -> None:
    """Equal symbols are equal sizes; a symbol and the number it was traced with are not."""
    batch = Input(min_shape=(2, 3, 4), opt_shape=(4, 3, 4), max_shape=(8, 3, 4))

    def same(x: Tensor) -> Tensor:
        return torch.relu(x.reshape(x.shape[0], 3, -1))

    def other(x: Tensor) -> Tensor:
        return torch.relu(x.reshape(x.shape[0], 4, -1))

    for model, count in ((same, 0), (other, 1)):
        graph_module = capture_for_test(model, [batch]).graph_module
        for lowering_pass in (reshape_views, remove_no_ops):
            run_pass(lowering_pass, graph_module, CompileSpec())
        assert operators(graph_module).count("aten.reshape.default") == count
        for rows in (2, 5, 8):
            x = torch.randn(rows, 3, 4)
            torch.testing.assert_close(graph_module(x)[0], model(x))


def test_strides_with_a_dynamic_batch() -> None:
    """Pooling to one place sets the strides of the sizes that are 1."""
    videos = Input(min_shape=(1, 2, 3, 4, 5), opt_shape=(2, 2, 3, 4, 5), max_shape=(4, 2, 3, 4, 5))

    def model(x: Tensor) -> Tensor:
        channels_last = torch.relu(x).permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        return nn.functional.adaptive_avg_pool3d(channels_last * 2, 1)

    graph_module = capture_for_test(model, [videos]).graph_module
    assert "aten.as_strided.default" in operators(graph_module)
    run_pass(remove_no_ops, graph_module, CompileSpec())
    assert "aten.as_strided.default" not in operators(graph_module)
    x = torch.randn(3, 2, 3, 4, 5)
    torch.testing.assert_close(graph_module(x)[0], model(x))


def test_pools_to_the_size_that_is_there() -> None:
    pool = nn.AdaptiveAvgPool2d(4)
    kept = check_pass(pool, [torch.randn(1, 2, 8, 8)], remove_no_ops, rewrites=0)
    assert operators(kept) == ["aten.adaptive_avg_pool2d.default"]
    removed = check_pass(pool, [torch.randn(1, 2, 4, 4)], remove_no_ops, rewrites=1)
    assert operators(removed) == []
