"""First layers whose result is concatenated: no INT8 kernel may write it there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from ptq.placed import conv, image, placed
from torch import Tensor, nn

RULE = "concatenated first layer"


class Joined(nn.Module):
    """What two layers make of the model's input, concatenated; ``behind`` is between the first one and there."""

    def __init__(self, first: nn.Module, behind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.behind = first, behind
        self.other, self.after = conv(8, 4, 1), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.cat([self.behind(self.first(x)), self.other(x)], 1))


@pytest.mark.parametrize(
    "behind",
    [lambda x: x, torch.relu, F.silu, lambda x: x + x.sigmoid()],
    ids=["nothing", "relu", "silu", "sum"],
)
def test_what_a_kernel_may_compute_on_the_way(behind: Callable[[Tensor], Tensor]) -> None:
    assert placed(Joined(conv(8, 4), behind), [image()]).rules == {"convolution": RULE}


def test_the_reason_has_the_numbers() -> None:
    result = placed(Joined(conv(8, 4), torch.relu), [image()])
    assert result.skipped == {"convolution": "it reads 8 channels, and cat takes its result"}
    assert result.readers == {"input_0": ["convolution_1"], "cat": ["convolution_2"]}


@pytest.mark.parametrize(
    "first",
    [
        conv(8, 4, 1),
        nn.Sequential(conv(8, 8), conv(8, 4)),
        nn.Sequential(conv(8, 4), nn.ReLU(), nn.MaxPool2d(3, 1, 1)),
        nn.Sequential(conv(8, 4), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(conv(8, 4), nn.Softmax(1)),
    ],
    ids=["one pixel", "product in front", "pool behind", "norm behind", "kernel behind"],
)
def test_other_kernels_write_to_concatenations(first: nn.Module) -> None:
    assert placed(Joined(first, torch.relu), [image()]).rules == {}


@pytest.mark.parametrize(("channels", "rules"), [(31, {"convolution": RULE}), (32, {})])
def test_kernels_for_more_channels_write_to_concatenations(
    channels: int, rules: dict[str, str]
) -> None:
    model = Joined(conv(channels, 4), torch.relu)
    model.other = conv(channels, 4, 1)
    assert placed(model, [image(channels)]).rules == rules


def test_of_volumes_too() -> None:
    model = Joined(nn.Conv3d(8, 4, 3, padding=1), torch.relu)
    model.other, model.after = nn.Conv3d(8, 4, 1), nn.Conv3d(8, 4, 1)
    assert placed(model, [torch.randn(2, 8, 4, 4, 4)]).rules == {"convolution": RULE}
