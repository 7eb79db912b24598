"""Copies of graphs for another device; ``meta`` stands for one that is not there."""

from __future__ import annotations

from typing import Any

import torch
from checks import capture_for_test
from torch import Tensor, fx, nn

from trtcompile.lowering import lower
from trtcompile.ptq.graph_copy import copied_to
from trtcompile.ptq.interpreter import DeviceInterpreter
from trtcompile.settings import CompileSpec

CPU, META = torch.device("cpu"), torch.device("meta")


class Creates(nn.Module):
    """Creates a tensor, also in a branch, and has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + torch.ones(4, device=x.device)
        return torch.cond(x.mean() > 0, lambda y: y - torch.ones(4), lambda y: y * 2, (y,))


def graph() -> fx.GraphModule:
    captured = capture_for_test(Creates().eval(), [torch.randn(2, 4)]).graph_module
    lower(captured, CompileSpec())
    return captured


def devices(graph_module: fx.GraphModule) -> set[Any]:
    """Where weights are, and where operators create tensors."""
    created = {
        node.kwargs["device"]
        for one in graph_module.modules()
        if isinstance(one, fx.GraphModule)
        for node in one.graph.nodes
        if "device" in node.kwargs
    }
    return created | {tensor.device for tensor in graph_module.state_dict().values()}


def test_branches_create_their_tensors_on_the_device_as_well() -> None:
    original = graph()
    copied, _ = copied_to(original, META)
    assert devices(copied) == {META}
    assert devices(original) == {CPU}


def test_an_interpreter_gets_such_branches() -> None:
    original = graph()
    interpreter = DeviceInterpreter(original, META)
    branches = [
        interpreter.fetch_attr(str(node.target))
        for node in original.graph.nodes
        if node.op == "get_attr" and isinstance(getattr(original, node.target), fx.GraphModule)
    ]
    assert len(branches) == 2
    assert set().union(*map(devices, branches)) == {META}
    assert devices(original) == {CPU}


def test_weights_that_are_there_are_not_copied() -> None:
    original = graph()
    copied, _ = copied_to(original, CPU)
    pairs = zip(copied.state_dict().values(), original.state_dict().values(), strict=True)
    assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)
    x = torch.randn(2, 4)
    assert torch.equal(copied(x)[0], original(x)[0])
