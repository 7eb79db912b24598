"""Graphs that create tensors run on the device of the engines, wherever they were captured."""

from __future__ import annotations

import pytest
import torch
from checks import capture_for_test, check_pass, operators
from torch import nn
from torch.fx import Graph, GraphModule

from trtcompile import CompileSpec
from trtcompile.lowering import PIPELINE, lower
from trtcompile.lowering.fold_constants import fold_constants
from trtcompile.lowering.retarget import retarget, set_device

# Stands in for a GPU: its operators refuse tensors of the CPU just as CUDA's do.
OTHER = torch.device("meta")


def creating(x: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(x.shape[1], device=x.device)
    mask = torch.zeros(x.shape[1], device=x.device) + positions
    return x + mask + torch.full_like(x, 2.0) + x.new_ones(x.shape[1]) + torch.ones(3)


def lowered(function: object) -> GraphModule:
    graph_module = capture_for_test(function, [torch.randn(2, 3)]).graph_module  # type: ignore[arg-type]
    # Folding would leave no creation.
    passes = [one for one in PIPELINE if one is not fold_constants]
    lower(graph_module, CompileSpec(), passes)
    return graph_module


def test_a_graph_captured_on_the_cpu_moves() -> None:
    x = torch.randn(2, 3)
    graph_module = lowered(creating)
    with pytest.raises(RuntimeError):
        graph_module(x.to(OTHER))
    assert set_device(graph_module, OTHER) >= 3
    (result,) = graph_module.to(OTHER)(x.to(OTHER))
    assert result.device == OTHER and result.shape == (2, 3)
    set_device(graph_module, torch.device("cpu"))
    torch.testing.assert_close(graph_module.to_empty(device="cpu")(x)[0], creating(x))


def test_a_graph_captured_elsewhere_comes_to_the_cpu() -> None:
    graph_module = capture_for_test(creating, [torch.randn(2, 3)]).graph_module
    set_device(graph_module, OTHER)
    for node in graph_module.graph.nodes:
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op == "placeholder":
            node.meta["val"] = node.meta["val"].to(OTHER)
    lower(graph_module, CompileSpec())
    x = torch.randn(2, 3)
    torch.testing.assert_close(graph_module(x)[0], creating(x))
    values = [n.meta["val"] for n in graph_module.graph.nodes if n.op == "placeholder"]
    assert [value.device for value in values] == [torch.device("cpu")]


def test_a_creation_without_a_device_gets_one() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    made = graph.call_function(torch.ops.aten.full.default, ([3], 1.0))
    like = graph.call_function(torch.ops.aten.full_like.default, (x, 1.0))
    graph.output((graph.call_function(torch.ops.aten.add.Tensor, (made, like)),))
    graph_module = GraphModule(nn.Module(), graph)
    assert set_device(graph_module, OTHER) == 1
    assert made.kwargs == {"device": OTHER}
    assert like.kwargs == {}  # it follows its input
    assert graph_module(torch.randn(3, device=OTHER))[0].device == OTHER
    assert set_device(graph_module, OTHER) == 0


def test_a_move_becomes_a_no_op() -> None:
    def moving(x: torch.Tensor) -> torch.Tensor:
        return x.to("cpu").relu()

    assert operators(lowered(moving)) == ["aten.relu.default"]


def test_devices_among_positional_arguments() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    moved = graph.call_function(torch.ops.prims.device_put.default, (x, torch.device("cpu")))
    graph.output((moved,))
    graph_module = GraphModule(nn.Module(), graph)
    assert set_device(graph_module, OTHER) == 1
    assert moved.args == (x, OTHER)


def test_nothing_to_do_is_no_rewrite() -> None:
    check_pass(torch.relu, [torch.randn(2, 3)], retarget, rewrites=0)
