"""Views become reshapes, which take any strides."""

from __future__ import annotations

import torch
from checks import capture_for_test, check_pass, operators

from trtcompile import CompileSpec
from trtcompile.lowering import lower
from trtcompile.lowering.reshape_views import reshape_views


def test_golden() -> None:
    graph_module = check_pass(
        lambda x: x.view(6, 4).relu().view(-1), [torch.randn(2, 3, 4)], reshape_views, rewrites=2
    )
    assert operators(graph_module) == [
        "aten.reshape.default",
        "aten.relu.default",
        "aten.reshape.default",
    ]


def test_a_view_of_a_copy_survives_the_loss_of_the_copy() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 1).contiguous().view(2, -1)

    x = torch.randn(2, 3, 4)
    graph_module = capture_for_test(function, [x]).graph_module
    lower(graph_module, CompileSpec())
    assert operators(graph_module) == ["aten.permute.default", "aten.reshape.default"]
    assert torch.equal(graph_module(x)[0], function(x))
    strided = torch.randn(2, 4, 3).transpose(1, 2)
    assert torch.equal(graph_module(strided)[0], function(strided))
