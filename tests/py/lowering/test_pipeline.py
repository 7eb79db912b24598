"""The runner, and the pipeline as a whole."""

from __future__ import annotations

import pytest
import torch
from checks import capture_for_test, operators, randomize
from torch import nn
from torch.fx import GraphModule

from trtcompile import CompileSpec
from trtcompile.errors import LoweringError
from trtcompile.lowering import PIPELINE, lower, run_pass
from trtcompile.node_info import source_line


def graph_of_relu() -> GraphModule:
    return capture_for_test(torch.relu, [torch.randn(2)]).graph_module


def broken_pass(graph_module: GraphModule, spec: CompileSpec) -> int:
    raise IndexError("no such thing")


def invalid_pass(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Leaves a node that refers to an attribute which is not there."""
    (output,) = graph_module.graph.find_nodes(op="output")
    with graph_module.graph.inserting_before(output):
        output.args = ((graph_module.graph.get_attr("absent"),),)
    return 1


def test_a_failure_names_the_pass() -> None:
    with pytest.raises(LoweringError, match=r"pass broken_pass failed: no such thing") as caught:
        run_pass(broken_pass, graph_of_relu(), CompileSpec())
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_failure_leaves_the_metadata_of_the_graph() -> None:
    graph_module = graph_of_relu()

    def metadata() -> list[tuple[str, int, str]]:
        nodes = [node for node in graph_module.graph.nodes if "val" in node.meta]
        return [(node.name, id(node.meta["val"]), source_line(node)) for node in nodes]

    before = metadata()
    with pytest.raises(LoweringError):
        run_pass(broken_pass, graph_module, CompileSpec())
    assert metadata() == before and before[-1][2] != "(no source line recorded)"


@pytest.mark.filterwarnings("ignore:.*does not reference:UserWarning")
def test_an_invalid_graph_is_noticed_at_the_pass_that_made_it() -> None:
    with pytest.raises(LoweringError, match="invalid_pass"):
        run_pass(invalid_pass, graph_of_relu(), CompileSpec())


def test_the_number_of_rewrites_is_returned_and_dead_nodes_are_gone() -> None:
    def replace_relu(graph_module: GraphModule, spec: CompileSpec) -> int:
        (relu,) = graph_module.graph.find_nodes(
            op="call_function", target=torch.ops.aten.relu.default
        )
        relu.replace_all_uses_with(relu.args[0])
        return 7

    graph_module = graph_of_relu()
    assert run_pass(replace_relu, graph_module, CompileSpec()) == 7
    assert operators(graph_module) == []
    x = torch.randn(2)
    assert torch.equal(graph_module(x)[0], x)  # recompiled


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout())
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.body(x)))
        return self.head(x.mean((2, 3)).clone().view(x.shape[0], 4))


def test_the_whole_pipeline() -> None:
    model = randomize(Everything(), seed=0)
    x = torch.randn(2, 3, 6, 6)
    graph_module = capture_for_test(model, [x]).graph_module
    lower(graph_module, CompileSpec())
    assert operators(graph_module) == [
        "aten.convolution.default",
        "aten.relu.default",
        "aten.addcmul.default",
        "aten.mean.dim",
        "aten.linear.default",
    ]
    with torch.no_grad():
        torch.testing.assert_close(graph_module(x)[0], model(x), rtol=1e-5, atol=1e-5)


def test_lowering_twice_is_lowering_once() -> None:
    graph_module = capture_for_test(
        randomize(Everything(), 0), [torch.randn(2, 3, 6, 6)]
    ).graph_module
    lower(graph_module, CompileSpec())
    once = operators(graph_module)
    for lowering_pass in PIPELINE[:-1]:
        assert run_pass(lowering_pass, graph_module, CompileSpec()) == 0
    assert operators(graph_module) == once


def test_every_pass_documents_what_is_given_and_what_results() -> None:
    for lowering_pass in PIPELINE:
        text = lowering_pass.__doc__ or ""
        assert ("Given::" in text and "Result" in text) or lowering_pass.__name__ == "name_tensors"
