"""Batch norms in front of convolutions, and the concatenations of dense blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import randomize
from ptq.placed import Placed, conv, image, placed
from torch import Tensor, nn
from torchvision.models.densenet import _DenseLayer


class DenseBlock(nn.Module):
    """Two dense layers and what reads their concatenation."""

    def __init__(self, after: nn.Module, channels: int = 32) -> None:
        super().__init__()
        self.stem = conv(channels, 8)
        self.first, self.second = _DenseLayer(8, 4, 2, 0.0), _DenseLayer(12, 4, 2, 0.0)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.first([x])
        return self.after(torch.cat([x, y, self.second([x, y])], 1))


TRANSITION = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
BLOCK = {
    "input_0": ["convolution"],
    "convolution": ["addcmul", "cat"],
    "relu": ["convolution_1"],
    "relu_1": ["convolution_2"],
    "convolution_2": ["cat"],
    "cat": ["addcmul_1", "cat_1"],
    "relu_2": ["convolution_3"],
    "relu_3": ["convolution_4"],
    "convolution_4": ["cat_1"],
}


def test_a_block_behind_a_first_layer_in_floating_point_is_int8() -> None:
    """Its Q is a kernel of its own, for the sake of the block."""
    result = placed(DenseBlock(TRANSITION, channels=3), [image(3)])
    assert result.rules == {"convolution": "concatenated first layer"}
    expected = {**BLOCK, "cat_1": ["addcmul_2"], "relu_4": ["convolution_5"]}
    del expected["input_0"]
    assert result.readers == expected


def test_a_block_behind_a_layer_that_is_excluded_is_not() -> None:
    model = DenseBlock(TRANSITION)
    options = {"enabled_precisions": {torch.int8}, "int8_excluded_nodes": {"convolution"}}
    readers = placed(model, [image(32)], **options).readers
    assert "convolution" not in readers and "cat" not in readers


def test_a_dense_block_is_int8_from_one_concatenation_to_the_next() -> None:
    result = placed(DenseBlock(TRANSITION), [image(32)])
    assert result.readers == {**BLOCK, "cat_1": ["addcmul_2"], "relu_4": ["convolution_5"]}
    assert result.shared == [("convolution", "convolution_2", "cat", "convolution_4", "cat_1")]


def test_a_norm_of_what_others_read_in_int8_reads_it_too() -> None:
    """Otherwise the whole block would be written as floats, and quantized at each norm."""
    after = nn.Sequential(nn.BatchNorm2d(16), nn.SiLU())
    assert placed(DenseBlock(after), [image(32)]).readers == {**BLOCK, "cat_1": ["addcmul_2"]}


def test_a_block_that_something_else_reads_keeps_its_floats() -> None:
    readers = placed(DenseBlock(nn.Tanh()), [image(32)]).readers
    assert readers["cat"] == ["addcmul_1"] and readers["convolution"] == ["addcmul"]
    assert "convolution_2" not in readers and "cat_1" not in readers


def test_an_average_pool_behind_a_norm_is_quantized_with_it() -> None:
    after = nn.Sequential(
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    readers = placed(DenseBlock(after), [image(32)]).readers
    assert readers["cat_1"] == ["addcmul_2"] and readers["relu_4"] == ["adaptive_avg_pool2d"]


def after_a_convolution(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(conv(8, 8), nn.Sigmoid(), *layers)


NORM = {"sigmoid": ["addcmul"]}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4)), {**NORM, "relu": ["convolution_1"]}),
        ((nn.BatchNorm2d(8), conv(8, 4)), {**NORM, "addcmul": ["convolution_1"]}),
        ((nn.BatchNorm2d(8), nn.SiLU(), conv(8, 4)), {"mul": ["convolution_1"]}),
        ((nn.BatchNorm2d(8), nn.ReLU()), {}),
    ],
    ids=["relu", "alone", "another activation", "nothing quantized"],
)
def test_norms_whose_kernel_writes_int8(
    layers: tuple[nn.Module, ...], expected: dict[str, list[str]]
) -> None:
    readers = placed(after_a_convolution(*layers), [image()]).readers
    del readers["input_0"]
    assert readers == expected


def test_a_norm_of_the_models_input_keeps_its_floats() -> None:
    """Its channels may have ranges of their own, which one scale would not fit."""
    model = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4))
    assert placed(model, [image()]).readers == {"relu": ["convolution"]}


def test_norms_of_sequences_keep_their_floats() -> None:
    """TensorRT's layer takes images and volumes; of others it would make kernels for DQ and Q."""
    layers = (nn.Conv1d(8, 8, 3), nn.Sigmoid(), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3))
    readers = placed(nn.Sequential(*layers), [torch.randn(2, 8, 16)]).readers
    assert readers == {"input_0": ["convolution"], "relu": ["convolution_1"]}


def test_a_product_by_channel_of_two_computed_values_is_no_norm() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = conv(8, 8), conv(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.before(x)
            gate = y.mean((2, 3), keepdim=True)
            return self.after(torch.addcmul(gate, y, gate))

    assert placed(Gated(), [image()]).readers == {
        "input_0": ["convolution"],
        "addcmul": ["convolution_1"],
    }


@pytest.mark.parametrize(
    "options",
    [{"int8_excluded_nodes": {"addcmul"}}, {"int8_excluded_ops": {torch.ops.aten.addcmul}}],
    ids=["node", "operator"],
)
def test_excluded_norms(options: dict[str, object]) -> None:
    model = after_a_convolution(nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4))
    result = placed(model, [image()], enabled_precisions={torch.int8}, **options)
    assert "sigmoid" not in result.readers and set(result.skipped) == {"addcmul"}


class PreActivation(nn.Module):
    """A block of a pre-activation ResNet: the residual stream is normalized where it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.convs = nn.ModuleList(conv(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, convolution in zip(self.norms, self.convs, strict=True):
            y = convolution(F.relu(norm(y)))
        return x + y


def test_a_residual_that_norms_and_additions_read_is_int8() -> None:
    model = randomize(nn.Sequential(conv(8, 8), PreActivation(), PreActivation()), seed=0)
    readers = placed(model, [image()]).readers
    assert readers["convolution"] == ["add", "addcmul"]
    assert readers["add"] == ["add_1", "addcmul_1"]


class Branches(nn.Module):
    """Two branches that are concatenated; the second is what the test makes of it."""

    def __init__(self, second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.after, self.also = conv(8, 4, 1), conv(12, 4), conv(4, 4)
        self.second = second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.first(x)
        return self.after(torch.cat([y, self.second(x)], 1)), self.also(y)


def branches(second: Callable[[Tensor], Tensor]) -> Placed:
    return placed(Branches(second), [image()])


def test_branches_that_int8_convolutions_write_are_quantized_where_they_are_computed() -> None:
    result = branches(nn.Sequential(conv(8, 8, 1), nn.ReLU()))
    assert result.readers["convolution"] == ["convolution_3", "cat"]
    assert result.readers["relu"] == ["cat"]
    assert result.shared == [("convolution", "relu", "cat")]


def test_where_one_branch_needs_a_kernel_for_q_the_concatenation_is_quantized() -> None:
    result = branches(lambda x: x.sin().cos())
    # The graph's input comes before all products; what follows them is meant here.
    assert "cat" in result.readers
    model = nn.Sequential(conv(8, 8), Branches(lambda x: F.layer_norm(x, [8, 8])))
    readers = placed(model, [image()]).readers
    assert readers["cat"] == ["convolution_2"] and readers["convolution_1"] == ["convolution_3"]
