"""Hashes that tell whether a calibration table belongs to a model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from checks import capture_for_test
from ptq.placed import conv, image
from torch import Tensor, nn

from trtcompile import CompileSpec, Input
from trtcompile.lowering import lower
from trtcompile.node_info import layer_name
from trtcompile.ptq.fingerprint import fingerprints, graph_hash


def hashes(model: Any, inputs: Sequence[Any]) -> dict[str, str]:
    """By tensor name; ``""`` is the whole graph's."""
    graph_module = capture_for_test(model, inputs).graph_module
    lower(graph_module, CompileSpec())
    found = {
        layer_name(node): value
        for node, value in fingerprints(graph_module).items()
        if node.op in ("placeholder", "call_function")
    }
    return {**found, "": graph_hash(graph_module)}


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        conv(8, 4), nn.ReLU(), conv(4, 4), nn.Flatten(), nn.Linear(256, 3), nn.Sigmoid()
    )
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def test_the_same_model_captured_twice() -> None:
    assert hashes(network(), [image()]) == hashes(network(), [image()])


def test_names_in_the_model_do_not_matter() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all_of_it = network()

        def forward(self, picture: Tensor) -> Tensor:
            return self.all_of_it(picture)

    assert hashes(Renamed(), [image()]) == hashes(network(), [image()])


def test_the_batch_size_does_not_matter() -> None:
    shapes = [[(1, 8, 8, 8)], [(7, 8, 8, 8)]]
    dynamic = Input(min_shape=(2, 8, 8, 8), opt_shape=(4, 8, 8, 8), max_shape=(8, 8, 8, 8))
    first, second = (hashes(network(), [Input(shape) for shape in s]) for s in shapes)
    third = hashes(network(), [dynamic])
    assert first == second == {name: third[name] for name in first}


def test_changed_weights_change_what_they_lead_to_and_nothing_before() -> None:
    changed = network()
    with torch.no_grad():
        changed[2].weight[0, 0, 0, 0] += 1e-6
    before, after = hashes(network(), [image()]), hashes(changed, [image()])
    same = {name for name in before if before[name] == after[name]}
    assert same == {"input_0", "convolution", "relu"}


@pytest.mark.parametrize("bias", [0, 2, 4])
def test_biases_count(bias: int) -> None:
    changed = network()
    with torch.no_grad():
        changed[bias].bias[0] += 1
    assert hashes(network(), [image()])[""] != hashes(changed, [image()])[""]


def test_an_operator_in_anothers_place_counts() -> None:
    changed = network()
    changed[5] = nn.Tanh()
    before, after = hashes(network(), [image()]), hashes(changed, [image()])
    assert before["linear"] == after["linear"] and before[""] != after[""]


def test_arguments_count() -> None:
    def pooled(kernel: int) -> nn.Module:
        return nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    assert hashes(pooled(3), [image()])[""] != hashes(pooled(5), [image()])[""]


def test_the_shape_of_a_reshape_counts() -> None:
    def rows(count: int) -> Any:
        return lambda x: x.reshape(x.shape[0], count, -1).amax(1)

    first, second = (hashes(rows(count), [torch.randn(3, 24)])[""] for count in (4, 6))
    assert first != second
    assert first == hashes(rows(4), [torch.randn(5, 24)])[""]


def test_a_norm_that_is_folded_counts() -> None:
    model = nn.Sequential(conv(8, 4), nn.BatchNorm2d(4))
    changed = copy.deepcopy(model)
    assert isinstance(changed[1].running_var, Tensor)
    changed[1].running_var.mul_(2)
    first, second = hashes(model, [image()]), hashes(changed, [image()])
    assert first["convolution"] != second["convolution"] and first["input_0"] == second["input_0"]


def test_the_order_of_operands_and_inputs_counts() -> None:
    x = [torch.randn(2, 3), torch.randn(2, 3)]
    assert hashes(lambda a, b: a - b, x)[""] != hashes(lambda a, b: b - a, x)[""]
    assert hashes(lambda a, b: (a, b), x)[""] != hashes(lambda a, b: (b, a), x)[""]


def test_a_dtype_of_an_input_counts() -> None:
    def model(x: Tensor) -> Tensor:
        return x + 1

    assert hashes(model, [torch.randn(2)])[""] != hashes(model, [torch.arange(2)])[""]
