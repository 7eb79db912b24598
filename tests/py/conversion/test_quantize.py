from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from operator_case import Case, Refusal, case, each, floats, integers, refusal
from torch import nn

aten = torch.ops.aten
qd = torch.ops.quantized_decomposed

_INT8 = (-128, 127, torch.int8)
# Exact in floating point: x / 0.5 has ties at odd quarters, and saturates beyond 63.5.
TIES = torch.tensor(
    [-1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 0.0, 63.0, 63.5, 64.0, 1e6, -64.0, -64.5, -1e6]
)


def _qdq(x: torch.Tensor, scale: float = 0.5, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    q = qd.quantize_per_tensor(x, scale, 0, *_INT8)
    return qd.dequantize_per_tensor(q, scale, 0, *_INT8, out_dtype=dtype)


class _WeightThroughQDQ(nn.Module):
    """A layer whose weight is quantized per channel, as INT8 compilation writes it."""

    def __init__(self, layer: nn.Module, axis: int, limits: tuple[int, int] = (-127, 127)) -> None:
        super().__init__()
        self.layer, self.axis, self.limits = layer, axis, limits
        channels = layer.weight.shape[axis]
        self.register_buffer("scales", (torch.arange(channels) + 1) * 2.0**-7)
        self.register_buffer("zero_points", torch.zeros(channels, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        arguments = (self.scales, self.zero_points, self.axis, *self.limits, torch.int8)
        q = qd.quantize_per_channel(self.layer.weight, *arguments)
        weight = qd.dequantize_per_channel(q, *arguments)
        return torch.func.functional_call(self.layer, {"weight": weight}, (_qdq(x, 2.0**-5),))


class _PerChannel(nn.Module):
    """Q/DQ of the input, a scale for each channel."""

    def __init__(
        self, channels: int, axis: int, zero_point: int = 0, limits: tuple[int, int] = (-128, 127)
    ) -> None:
        super().__init__()
        self.arguments = (axis, *limits, torch.int8)
        self.register_buffer("scales", 2.0 ** -torch.arange(channels).float())
        self.register_buffer("zero_points", torch.full((channels,), zero_point))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = qd.quantize_per_channel(x, self.scales, self.zero_points, *self.arguments)
        return qd.dequantize_per_channel(q, self.scales, self.zero_points, *self.arguments)


def _layer(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters(), start=5):
            parameter.copy_(floats(*parameter.shape, seed=seed) * 0.5)
    return layer


def _both(form: str, function: object, x: torch.Tensor, **fields: object) -> list[Case]:
    targets = (qd.quantize_per_tensor.default, qd.dequantize_per_tensor.default)
    return [
        case(target, form, function, x, build=i == 0, **fields) for i, target in enumerate(targets)
    ]


_CHANNELS = (qd.quantize_per_channel.default, qd.dequantize_per_channel.default)

CASES = [
    *_both("ties_and_saturation", _qdq, TIES),
    *_both("signed", lambda x: _qdq(x, 0.03125), floats(2, 3, 4)),
    case(qd.quantize_per_tensor.default, "half", _qdq, floats(2, 9).half() * 4),
    case(
        qd.dequantize_per_tensor.default,
        "to_half",
        lambda x: _qdq(x, dtype=torch.float16),
        floats(2, 9) * 4,
    ),
    case(
        qd.quantize_per_tensor.default,
        "dynamic",
        _qdq,
        floats(2, 9),
        dynamic={0: {0: (1, 2, 4), 1: (2, 9, 9)}},
    ),
    *(
        case(target, f"axis_{axis}", _PerChannel(size, axis), floats(2, 3, 4) * 40, build=axis != 0)
        for target in _CHANNELS
        for axis, size in ((0, 2), (1, 3), (2, 4))
    ),
    case(_CHANNELS[0], "ties", _PerChannel(2, 0), torch.stack([TIES, TIES / 2])),
    *(
        case(
            qd.dequantize_per_channel.default,
            f"weight_of_{name}",
            _WeightThroughQDQ(_layer(layer), axis),
            x,
            tolerance=1e-4,
        )
        for name, layer, axis, x in (
            ("linear", nn.Linear(8, 4), 0, floats(3, 8)),
            ("conv1d", nn.Conv1d(4, 8, 3), 0, floats(1, 4, 9)),
            ("conv2d", nn.Conv2d(4, 8, 3), 0, floats(1, 4, 6, 6)),
            ("transposed_2d", nn.ConvTranspose2d(4, 8, 3), 1, floats(1, 4, 6, 6)),
        )
    ),
]

_SYMMETRIC = "quantizes symmetrically"
REFUSALS = [
    refusal(
        qd.quantize_per_tensor.default,
        "zero_point",
        _SYMMETRIC,
        lambda x: qd.quantize_per_tensor(x, 0.5, 3, *_INT8),
        floats(2, 3),
    ),
    refusal(
        qd.dequantize_per_tensor.default,
        "zero_point",
        _SYMMETRIC,
        lambda x: qd.dequantize_per_tensor(x, 0.5, 3, *_INT8),
        integers(2, 3, dtype=torch.int8),
    ),
    refusal(
        qd.quantize_per_tensor.default,
        "uint8",
        "to int8 here",
        lambda x: qd.quantize_per_tensor(x, 0.5, 0, 0, 255, torch.uint8),
        floats(2, 3),
    ),
    refusal(
        qd.quantize_per_tensor.default,
        "narrow_range",
        "clamps to [-128, 127]",
        lambda x: qd.quantize_per_tensor(x, 0.5, 0, -127, 127, torch.int8),
        floats(2, 3),
    ),
    refusal(
        qd.quantize_per_tensor.default,
        "no_dimension",
        "at least one dimension",
        _qdq,
        floats(),
    ),
    *(
        refusal(target, "zero_point", _SYMMETRIC, _PerChannel(2, 0, zero_point=1), floats(2, 3))
        for target in _CHANNELS
    ),
    refusal(
        qd.quantize_per_channel.default,
        "narrow_range",
        "clamps to [-128, 127]",
        _PerChannel(2, 0, limits=(-127, 127)),
        floats(2, 3),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()
