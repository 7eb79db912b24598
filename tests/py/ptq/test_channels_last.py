"""Which convolutions' weights get the channels last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import capture_for_test
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trtcompile.lowering import lower
from trtcompile.ptq.channels_last import weights_with_channels_last
from trtcompile.settings import CompileSpec


def lowered(model: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    graph = capture_for_test(model.eval(), list(inputs)).graph_module
    lower(graph, CompileSpec())
    return graph


class Branches(nn.Module):
    """Convolutions of several kinds, and an operator of the caller's choice behind them."""

    def __init__(self, then: Any = lambda x: x, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3)
        self.second = nn.Conv2d(8, 8, 1, groups=groups)
        self.third = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, dim=1)
        y = self.third(self.second(torch.cat([a.relu(), b], 1)))
        return self.then(y)


def weights(graph: fx.GraphModule) -> set[str]:
    return {
        str(node.args[1].target)
        for node in graph.graph.nodes
        if node.target is torch.ops.aten.convolution.default
    }


def test_all_weights_of_two_dimensional_convolutions() -> None:
    graph = lowered(
        Branches(lambda y: F.pad(y, (1, 1)).flatten(1).softmax(1)), torch.randn(2, 4, 8, 8)
    )
    assert len(weights(graph)) == 3
    assert weights_with_channels_last(graph) == weights(graph)


@pytest.mark.parametrize(
    ("then", "groups"),
    [
        pytest.param(lambda y: y, 2, id="groups"),
        pytest.param(lambda y: y.view(torch.int32), 1, id="view of the bits"),
        pytest.param(lambda y: torch.cond(y.sum() > 0, torch.sin, torch.cos, (y,)), 1, id="branch"),
    ],
)
def test_none_where_the_order_may_matter(then: Any, groups: int) -> None:
    graph = lowered(Branches(then, groups), torch.randn(2, 4, 8, 8))
    assert len(weights(graph)) == 3
    assert weights_with_channels_last(graph) == set()


def test_results_have_the_channels_last_and_are_the_same() -> None:
    model = Branches(lambda y: F.pad(y, (1, 1)).flatten(1).softmax(1))
    x = torch.randn(2, 4, 8, 8)
    graph = lowered(model, x)
    (expected,) = graph(x)
    for name in weights_with_channels_last(graph):
        setattr(graph, name, getattr(graph, name).contiguous(memory_format=torch.channels_last))
    orders = []

    class Orders(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            value = super().run_node(node)
            if node.target in (torch.ops.aten.convolution.default, torch.ops.aten.cat.default):
                orders.append(value.is_contiguous(memory_format=torch.channels_last))
            return value

    (result,) = Orders(graph).run(x)
    assert orders == [True] * 4
    torch.testing.assert_close(result, expected)


def test_not_of_other_dimensions() -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.Flatten(0), nn.Unflatten(0, (1, 8, 2, 3)), nn.Conv2d(8, 2, 1)
    )
    graph = lowered(model, torch.randn(1, 4, 8))
    assert len(weights(graph)) == 2
    (chosen,) = weights_with_channels_last(graph)
    assert getattr(graph, chosen).dim() == 4
    assert getattr(graph, chosen).shape[0] == 2
