"""Batch norms become part of the layer in front; what is left becomes a scale and a shift."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import capture_for_test, check_pass, operators, randomize
from torch import Tensor, nn

from trtcompile import CompileSpec
from trtcompile.lowering import run_pass
from trtcompile.lowering.decompose_batch_norm import decompose_batch_norm
from trtcompile.lowering.fold_batch_norm import fold_batch_norm

NORM = "aten._native_batch_norm_legit_no_training.default"

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], nn.Module]] = {
    "1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9), nn.BatchNorm1d(6)),
    "2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 7, 7), nn.BatchNorm2d(6)),
    "3d": (lambda: nn.Conv3d(4, 6, 2), (2, 4, 4, 4, 4), nn.BatchNorm3d(6)),
    "no bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), (2, 4, 7, 7), nn.BatchNorm2d(6)),
    "no affine": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 7, 7), nn.BatchNorm2d(6, affine=False)),
    "eps": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 7, 7), nn.BatchNorm2d(6, eps=0.5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 7), nn.BatchNorm2d(6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 7), nn.BatchNorm2d(8)),
    # As many inputs as outputs, so that the wrong axis would have the right size.
    "square": (lambda: nn.Conv2d(6, 6, 3), (2, 6, 7, 7), nn.BatchNorm2d(6)),
    "transposed": (lambda: nn.ConvTranspose2d(6, 6, 3), (2, 6, 5, 5), nn.BatchNorm2d(6)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 5), nn.BatchNorm1d(6)),
    "transposed grouped": (
        lambda: nn.ConvTranspose2d(6, 4, 3, groups=2, stride=2),
        (2, 6, 5, 5),
        nn.BatchNorm2d(4),
    ),
    "linear": (lambda: nn.Linear(6, 6), (5, 6), nn.BatchNorm1d(6)),
    "linear, no bias": (lambda: nn.Linear(4, 6, bias=False), (5, 4), nn.BatchNorm1d(6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_norm_behind_a_layer_is_folded(name: str) -> None:
    make, shape, norm = LAYERS[name]
    model = randomize(nn.Sequential(make(), norm), seed=len(name))
    graph_module = check_pass(model, [torch.randn(shape)], fold_batch_norm, rewrites=1)
    assert len(operators(graph_module)) == 1 and NORM not in operators(graph_module)
    assert sorted(str(name).split("_folded")[-1] for name, _ in graph_module.named_buffers()) == [
        "",
        "_bias",
    ]


def test_the_folded_weight_is_the_one_that_fp64_gives() -> None:
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), seed=3)
    graph_module = check_pass(model, [torch.randn(1, 3, 2, 2)], fold_batch_norm, rewrites=1)
    convolution, norm = model
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = (convolution.weight.double() * scale[:, None, None, None]).float()
    bias = (
        (convolution.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    ).float()
    folded = {name.split("_folded")[-1]: value for name, value in graph_module.named_buffers()}
    assert torch.equal(folded[""], weight) and torch.equal(folded["_bias"], bias)


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.norm(y) + y


def test_a_convolution_with_other_readers_keeps_its_weights() -> None:
    model = randomize(ReadTwice(), seed=0)
    graph_module = check_pass(model, [torch.randn(1, 3, 4, 4)], fold_batch_norm, rewrites=0)
    assert NORM in operators(graph_module)


class Shared(nn.Module):
    """One convolution, called twice, with two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.layer(self.first(self.layer(x))))


def test_each_call_of_a_shared_convolution_gets_weights_of_its_own() -> None:
    graph_module = check_pass(
        randomize(Shared(), seed=0), [torch.randn(1, 3, 4, 4)], fold_batch_norm, rewrites=2
    )
    assert operators(graph_module) == ["aten.convolution.default"] * 2
    weights = {
        node.args[1].target for node in graph_module.graph.nodes if node.op == "call_function"
    }
    assert len(weights) == 2


class LinearOverSequence(nn.Module):
    """The norm's channels are not the linear layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x))


def test_a_norm_over_another_axis_than_the_outputs_is_not_folded() -> None:
    model = randomize(LinearOverSequence(), seed=0)
    x = torch.randn(2, 5, 4)
    check_pass(model, [x], fold_batch_norm, rewrites=0)
    graph_module = check_pass(model, [x], decompose_batch_norm, rewrites=1)
    assert operators(graph_module) == ["aten.linear.default", "aten.addcmul.default"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(4), (3, 4)),
        (nn.BatchNorm1d(4), (3, 4, 5)),
        (nn.BatchNorm2d(4), (3, 4, 5, 5)),
        (nn.BatchNorm2d(4, affine=False), (3, 4, 5, 5)),
        (nn.BatchNorm3d(4, eps=0.3), (2, 4, 3, 3, 3)),
    ],
)
def test_norms_without_a_layer_in_front_become_scale_and_shift(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    model = randomize(nn.Sequential(nn.ReLU(), layer), seed=1)
    graph_module = check_pass(model, [torch.randn(shape)], decompose_batch_norm, rewrites=1)
    assert operators(graph_module) == ["aten.relu.default", "aten.addcmul.default"]
    relu, norm = (node for node in graph_module.graph.nodes if node.op == "call_function")
    shift, value, scale = norm.args
    assert value is relu
    for factor in (shift, scale):
        assert tuple(factor.meta["val"].shape) == (4, *[1] * (len(shape) - 2))
    assert norm.meta["val"].shape == torch.Size(shape)


def test_new_nodes_keep_where_they_came_from() -> None:
    model = randomize(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), seed=1)
    graph_module = capture_for_test(model, [torch.randn(1, 4, 2, 2)]).graph_module
    (norm,) = [node for node in graph_module.graph.nodes if str(node.target) == NORM]
    stack, modules = norm.meta["stack_trace"], norm.meta["nn_module_stack"]
    run_pass(decompose_batch_norm, graph_module, CompileSpec())
    (added,) = (n for n in graph_module.graph.nodes if str(n.target) == "aten.addcmul.default")
    assert added.meta["stack_trace"] == stack and added.meta["nn_module_stack"] == modules
