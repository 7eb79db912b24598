"""Wider parts of INT8 concatenations: the same numbers, in whole vectors of channels."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from checks import build_device, install_oracle, randomize
from ptq.placed import conv, placed
from ptq.test_insert import Scales
from torch import Tensor, nn
from torch.fx import GraphModule
from torchvision.models import DenseNet
from torchvision.models.densenet import _DenseLayer

import trtcompile
from trtcompile import Input
from trtcompile.ptq import DataLoaderCalibrator
from trtcompile.ptq.align_channels import align_channels
from trtcompile.ptq.insert import insert_qdq

aten = torch.ops.aten


class Block(nn.Module):
    """Two dense layers of 24 channels behind a stem of 48, and what reads all of them."""

    def __init__(self, after: Callable[[Tensor], Tensor], growth: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 32), nn.ReLU(), conv(32, 48), nn.ReLU())
        self.one = _DenseLayer(48, growth, 2, 0.0)
        self.two = _DenseLayer(48 + growth, growth, 2, 0.0)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.one([x])
        return self.after(torch.cat([x, y, self.two([x, y])], 1))


def transition(channels: int = 96) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 8, 1))


def images(size: int = 8, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def quantized(model: nn.Module) -> GraphModule:
    result = placed(randomize(model, 1), [images()])
    insert_qdq(result.graph_module, result.placement, Scales())
    return result.graph_module


def concatenated(graph_module: GraphModule) -> list[int]:
    """The channels of each concatenation."""
    cats = (n for n in graph_module.graph.nodes if n.target is aten.cat.default)
    return [node.meta["val"].shape[1] for node in cats]


def aligned(model: nn.Module) -> list[int]:
    """The channels of each concatenation afterwards; what the graph computes must stay the same.

    But for the order of sums, by which now and then a value comes to another INT8 step.
    """
    graph_module = quantized(model)
    before = copy.deepcopy(graph_module)
    align_channels(graph_module)
    with torch.no_grad():
        expected, actual = before(images())[0], graph_module(images())[0]
    assert expected.std() > 0
    assert (actual - expected).std() < 1e-3 * expected.std()
    for node in graph_module.graph.nodes:  # what nodes say of themselves is what they compute
        if node.op == "get_attr":
            assert node.meta["val"].shape == getattr(graph_module, node.target).shape
    return concatenated(graph_module)


HEAD = nn.Sequential(
    nn.BatchNorm2d(96), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 5)
)


@pytest.mark.parametrize(
    "after",
    [
        transition(),
        HEAD,
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(96, 8, 3)),
    ],
    ids=["transition", "head", "average pool and 3x3"],
)
def test_parts_become_whole_vectors(after: nn.Module) -> None:
    assert aligned(Block(after)) == [96, 128]


def test_the_last_part_of_what_a_pool_reads_need_not_be_a_whole_vector() -> None:
    """The pool moves the concatenation, which has no Q of its own: nothing is behind its last part."""
    assert aligned(Block(nn.Sequential(nn.MaxPool2d(2), transition()))) == [96, 120]


def test_one_block_after_another() -> None:
    pooled = nn.Sequential(nn.BatchNorm2d(96), nn.ReLU(), nn.Conv2d(96, 48, 1), nn.AvgPool2d(2))
    second = Block(transition())
    second.stem = pooled
    assert aligned(Block(second)) == [96, 128, 96, 128]


def test_layers_that_read_wider_parts_and_make_one() -> None:
    """Dense layers without a bottleneck: one convolution is wider on both sides."""

    class Basic(nn.Sequential):
        def __init__(self, channels: int) -> None:
            super().__init__(nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, 24))

        def forward(self, parts: list[Tensor]) -> Tensor:
            return super().forward(torch.cat(parts, 1))

    model = Block(transition())
    model.one, model.two = Basic(48), Basic(72)
    assert aligned(model) == [96, 128]


def test_activations_that_make_something_of_zero() -> None:
    model = Block(transition())
    model.stem[3] = nn.Sigmoid()
    model.one.norm1.bias.data += 1
    assert aligned(model) == [96, 128]


def test_layers_that_read_a_part_alone() -> None:
    class Beside(Block):
        def __init__(self) -> None:
            super().__init__(transition())
            self.also = conv(48, 8)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.also(self.stem(x))

    assert aligned(Beside()) == [96, 128]


@pytest.mark.parametrize(
    ("after", "growth", "expected"),
    [
        (transition(112), 32, [96, 128]),
        (transition(128), 40, [128, 192]),
        (transition(126), 39, [87, 126]),
    ],
    ids=["a seventh more", "a half more", "more than half"],
)
def test_how_many_zeros_are_worth_it(after: nn.Module, growth: int, expected: list[int]) -> None:
    assert aligned(Block(after, growth)) == expected


def test_whole_vectors_stay_as_they_are() -> None:
    model = Block(transition(128), 32)
    model.stem[2] = conv(32, 64)
    model.one, model.two = _DenseLayer(64, 32, 2, 0.0), _DenseLayer(96, 32, 2, 0.0)
    graph_module = quantized(model)
    names = [node.name for node in graph_module.graph.nodes]
    align_channels(graph_module)
    assert [node.name for node in graph_module.graph.nodes] == names


@pytest.mark.parametrize(
    "after",
    [
        nn.Sequential(transition(), nn.Softmax(1)),
        nn.Sequential(nn.Softmax(1), nn.Conv2d(96, 4, 1)),
        nn.Sequential(
            nn.BatchNorm2d(96), nn.ReLU(), conv(96, 96, groups=96), nn.ReLU(), conv(96, 4)
        ),
        nn.Sequential(nn.BatchNorm2d(96), nn.ReLU(), nn.ConvTranspose2d(96, 4, 2)),
        nn.Sequential(nn.BatchNorm2d(96), nn.ReLU(), nn.Flatten(), nn.Linear(96 * 64, 4)),
        nn.Sequential(nn.BatchNorm2d(96), nn.ReLU(), nn.PixelShuffle(2), conv(24, 4)),
    ],
    ids=["softmax behind", "softmax", "depthwise", "transposed", "flattened", "shuffled"],
)
def test_what_channels_would_matter_to(after: nn.Module) -> None:
    """Only the first of them reads the concatenation through a layer that has zeros for what was added."""
    is_first = isinstance(after[0], nn.Sequential)
    sizes = aligned(Block(after))
    assert sizes == ([96, 128] if is_first else [72, 96])


def test_a_part_that_no_convolution_computes() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.own = conv(32, 24), conv(24, 4)
            self.after = conv(27, 4)
            self.stem = conv(3, 32)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.before(self.stem(x))
            return self.after(torch.cat([y, x], 1)) + self.own(y).mean()

    assert aligned(Joined()) == [27]


@pytest.mark.parametrize("precisions", [{torch.int8}, {torch.float, torch.half, torch.int8}])
def test_networks_with_wider_parts(
    precisions: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT builds them, for any batch size, and the numbers are those of the simulation."""
    install_oracle(monkeypatch)
    model = randomize(DenseNet(24, (2, 2), 48, num_classes=5), 2).eval()
    x = images(64, 4)
    compiled = trtcompile.compile(
        model,
        [Input(min_shape=(1, 3, 64, 64), opt_shape=(2, 3, 64, 64), max_shape=(4, 3, 64, 64))],
        enabled_precisions=precisions,
        calibrator=DataLoaderCalibrator([x], progress=False),
        device=build_device(disable_tf32=True),
        require_full_compilation=True,
    )
    assert concatenated(compiled.network_graph) == [96, 128, 96, 128]
    tolerance = 1e-5 if torch.half not in precisions else 3e-2
    for count in (1, 2, 4):
        with torch.no_grad():
            simulated, computed = compiled.lowered(x[:count]), compiled(x[:count])
        assert (computed - simulated).abs().max() < tolerance * simulated.std()
