"""Models whose quantization can be followed by hand."""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.densenet import _DenseLayer

qd = torch.ops.quantized_decomposed


class Chain(nn.Module):
    """Convolution, ReLU, and a linear layer: two layers, two quantized tensors."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator))
        self.weight = nn.Parameter(torch.randn(5, 4 * 6 * 6, generator=generator))
        self.bias = nn.Parameter(torch.randn(5, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(
            F.relu(F.conv2d(x, self.kernel, padding=1)).flatten(1), self.weight, self.bias
        )


class Outlier(nn.Module):
    """Three linear layers; the input of the second has one unit that dwarfs the others, and counts as much as they do.

    In floating point the factor of 1000 cancels; a scale for all units rounds the others away.
    """

    def __init__(self, factor: float = 1000.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.third = nn.Linear(16, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.first.weight[3] *= factor
            self.first.bias[3] *= factor
            self.second.weight[:, 3] /= factor

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


class Residual(nn.Module):
    """An identity shortcut, max and average pools, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.other = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.relu(self.two(F.relu(self.one(x))) + x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(x), self.other(x)


class Dense(nn.Module):
    """Two dense layers, a pool behind the last norm, and one more norm whose result is never quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = _DenseLayer(8, 4, 2, 0.0), _DenseLayer(12, 4, 2, 0.0)
        self.norm, self.other = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        first = self.one([x])
        x = torch.cat([x, first, self.two([x, first])], 1)
        pooled = F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1)
        return self.head(pooled), torch.sigmoid(self.other(x))


class GivenQuantization(nn.Module):
    """A linear layer that comes quantized, its weight as integers; its result is quantized for the output alone."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer(
            "weight", torch.randint(-127, 128, (5, 8), dtype=torch.int8, generator=generator)
        )
        self.register_buffer("scales", torch.linspace(0.001, 0.002, 5))
        self.register_buffer("zero_points", torch.zeros(5, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        weight = qd.dequantize_per_channel(
            self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
        )
        return _quantized(F.linear(_quantized(x, 0.02), weight), 0.005)


def _quantized(x: Tensor, scale: float) -> Tensor:
    arguments = (scale, 0, -128, 127, torch.int8)
    return qd.dequantize_per_tensor(qd.quantize_per_tensor(x, *arguments), *arguments)
