"""Names by which calibration tables know values."""

from __future__ import annotations

import torch
from checks import capture_for_test
from torch import Tensor, nn

from trtcompile import CompileSpec
from trtcompile.lowering import lower
from trtcompile.lowering.name_tensors import name_tensors
from trtcompile.node_info import layer_name


def names(model: object, *inputs: Tensor) -> list[str]:
    graph_module = capture_for_test(model, inputs).graph_module
    lower(graph_module, CompileSpec())
    return [
        layer_name(node)
        for node in graph_module.graph.nodes
        if node.op in ("placeholder", "call_function")
    ]


def test_names_count_by_kind_in_the_order_of_the_graph() -> None:
    def model(first: Tensor, second: Tensor) -> Tensor:
        return torch.relu(torch.relu(first) + second) + 1

    assert names(model, torch.randn(2, 3), torch.randn(2, 3)) == [
        "input_0",
        "input_1",
        "relu",
        "add",
        "relu_1",
        "add_1",
    ]


class Named(nn.Module):
    """The same computation; attributes and arguments have other names."""

    def __init__(self) -> None:
        super().__init__()
        self.some_layer = nn.Conv2d(3, 4, 1)

    def forward(self, picture: Tensor) -> Tensor:
        convolved = self.some_layer(picture)
        return torch.relu(convolved)


def test_names_do_not_depend_on_the_names_in_the_model() -> None:
    x = torch.randn(1, 3, 4, 4)
    sequential = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert names(Named(), x) == names(sequential, x) == ["input_0", "convolution", "relu"]


def test_names_are_the_same_with_and_without_what_lowering_removes() -> None:
    x = torch.randn(1, 3, 4, 4)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with_norm = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 4, 1)
    )
    assert names(plain, x) == names(with_norm, x)


def test_naming_again_changes_nothing() -> None:
    graph_module = capture_for_test(lambda x: torch.relu(x) + 1, [torch.randn(2)]).graph_module
    spec = CompileSpec()
    assert name_tensors(graph_module, spec) == name_tensors(graph_module, spec) == 3
    assert [layer_name(n) for n in graph_module.graph.nodes][:3] == ["input_0", "relu", "add"]
