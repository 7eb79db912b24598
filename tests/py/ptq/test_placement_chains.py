"""Values that are moved between where they are computed and where INT8 reads them: pools, views, concatenations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from ptq.placed import conv, image, placed
from torch import Tensor, nn


def test_one_scale_through_max_pool_and_flatten() -> None:
    model = nn.Sequential(
        conv(8, 4),
        nn.ReLU(),
        conv(4, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(4, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    result = placed(model, [image()])
    assert result.readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1"],
        "max_pool2d": ["convolution_2"],
        "reshape": ["linear"],
        "relu_3": ["linear_1"],
        # At the start of each chain, too.
        "relu_1": ["max_pool2d"],
        "relu_2": ["max_pool2d_1"],
    }
    assert result.shared == [("relu_1", "max_pool2d"), ("relu_2", "reshape")]


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three, self.pooled = conv(8, 4, 1), conv(8, 4), conv(8, 2, 1)
        self.after = conv(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        branches = [self.one(x), self.three(x), self.pooled(F.max_pool2d(x, 3, 1, 1))]
        return self.after(torch.cat([torch.relu(branch) for branch in branches], 1))


def test_a_concatenation_is_quantized_as_one() -> None:
    result = placed(Inception(), [image()])
    assert result.readers == {
        "relu": ["convolution", "convolution_1"],
        "max_pool2d": ["convolution_2"],
        "cat": ["convolution_3"],
    }
    assert result.shared == [("relu", "max_pool2d")]


class ReadOnTheWay(nn.Module):
    """A branch is quantized for a convolution of its own and for the one after the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.after = conv(8, 4), conv(8, 4), conv(8, 4)
        self.own = conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
        return self.after(torch.cat([left, right], 1)), self.own(left)


def test_what_enters_a_concatenation_shares_its_scale() -> None:
    result = placed(ReadOnTheWay(), [image()])
    assert result.readers == {
        "input_0": ["convolution", "convolution_1"],
        "cat": ["convolution_2"],
        "relu": ["convolution_3"],
    }
    assert result.shared == [("relu", "cat")]


def test_average_pools_in_front_of_linear_layers_run_in_int8() -> None:
    model = nn.Sequential(
        conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    result = placed(model, [image()])
    assert result.readers == {
        "input_0": ["convolution"],
        "reshape": ["linear"],
        "relu": ["adaptive_avg_pool2d"],
        "adaptive_avg_pool2d": ["reshape"],
    }
    # An average has a smaller range than what it averages.
    assert result.shared == [("adaptive_avg_pool2d", "reshape")]


def test_average_pools_whose_result_nobody_quantizes_stay_in_floating_point() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.AvgPool2d(2), nn.Sigmoid())
    assert placed(model, [image()]).readers == {"input_0": ["convolution"]}


class TwoReaders(nn.Module):
    """The pool's result is also read in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(torch.relu(self.before(x)), 2)
        return self.after(pooled), torch.sigmoid(pooled)


def test_a_chain_that_floating_point_reads_too_is_quantized_only_for_int8() -> None:
    assert placed(TwoReaders(), [image()]).readers == {
        "input_0": ["convolution"],
        "max_pool2d": ["convolution_1"],
    }


def test_a_chain_through_pytorch_is_quantized_only_behind_it() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8))
    result = placed(model, [image()], torch_executed_ops={"aten.max_pool2d"})
    assert result.readers == {"input_0": ["convolution"], "max_pool2d": ["convolution_1"]}
