from __future__ import annotations

import torch
from checks import builds_fp8
from network_oracle.float8 import MAGNITUDES
from operator_case import Case, Refusal, case, each, floats, refusal
from torch import nn

from trtcompile import float8

E4M3 = torch.float8_e4m3fn
_OPTIONS = {"enabled_precisions": {torch.float, E4M3}}
# Every number of the format, what lies in the middle of two, and what saturates; both signs.
_NUMBERS = MAGNITUDES.float()
_HALVES = (_NUMBERS[:-1] + _NUMBERS[1:]) / 2
EDGES = torch.cat([_NUMBERS, _HALVES, torch.tensor([449.0, 464.0, 480.0, 1e6])])
EDGES = torch.cat([EDGES, -EDGES])

# Tensor cores of an H200 keep about 14 bits of a sum of FP8 products (DeepSeek-V3 technical report, 3.3.2); a step of
# FP8 is a sixteenth.
_ACCUMULATED = 2e-3


def _qdq(x: torch.Tensor, scale: float = 0.5, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    return float8.dequantize_fp8(float8.quantize_fp8(x, scale), scale, out_dtype=dtype)


class _PerChannel(nn.Module):
    """Q/DQ of the input, a scale for each channel."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scales", 2.0 ** -torch.arange(channels).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = float8.quantize_fp8_per_channel(x, self.scales, self.axis)
        return float8.dequantize_fp8_per_channel(q, self.scales, self.axis)


class _QuantizedLinear(nn.Module):
    """A linear layer as FP8 compilation writes it."""

    def __init__(self, inputs: int, outputs: int, *, per_channel: bool, bias: bool = True) -> None:
        super().__init__()
        self.per_channel = per_channel
        self.register_buffer("weight", floats(outputs, inputs, seed=5))
        self.register_buffer("bias", floats(outputs, seed=6) if bias else None)
        self.register_buffer("scales", (torch.arange(outputs) + 1) * 2.0**-9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.per_channel:
            q = float8.quantize_fp8_per_channel(self.weight, self.scales, 0)
            weight = float8.dequantize_fp8_per_channel(q, self.scales, 0)
        else:
            weight = _qdq(self.weight, 2.0**-7)
        return nn.functional.linear(_qdq(x, 2.0**-6), weight, self.bias)


def _fp8(
    target: object, form: str, function: object, *inputs: torch.Tensor, **fields: object
) -> Case:
    fields["build"] = builds_fp8() and fields.get("build", True)
    return case(target, form, function, *inputs, options=_OPTIONS, **fields)


def _both(form: str, function: object, x: torch.Tensor, **fields: object) -> list[Case]:
    targets = (float8.quantize_fp8, float8.dequantize_fp8)
    return [
        _fp8(target, form, function, x, build=i == 0, **fields) for i, target in enumerate(targets)
    ]


_CHANNELS = (float8.quantize_fp8_per_channel, float8.dequantize_fp8_per_channel)

CASES = [
    *_both("every_number_and_tie", _qdq, EDGES * 0.5),
    *_both("signed", lambda x: _qdq(x, 0.03125), floats(2, 3, 4) * 9),
    _fp8(float8.quantize_fp8, "half", _qdq, floats(2, 9).half() * 40),
    _fp8(
        float8.dequantize_fp8,
        "to_half",
        lambda x: _qdq(x, dtype=torch.float16),
        floats(2, 9) * 40,
    ),
    *_both("dynamic", _qdq, floats(2, 9), dynamic={0: {0: (1, 2, 4), 1: (2, 9, 9)}}),
    *(
        _fp8(target, f"axis_{axis}", _PerChannel(size, axis), floats(2, 3, 4) * 40, build=False)
        for target in _CHANNELS
        for axis, size in ((0, 2), (1, 3), (-1, 4))
    ),
    *(
        _fp8(
            target,
            form,
            _QuantizedLinear(32, 16, per_channel=per_channel),
            x,
            tolerance=_ACCUMULATED,
        )
        for target, per_channel in ((float8.dequantize_fp8, False), (_CHANNELS[1], True))
        for form, x in (("linear", floats(16, 32)), ("linear_3d", floats(2, 8, 32)))
    ),
    *(
        _fp8(
            target,
            "linear_dynamic",
            _QuantizedLinear(32, 16, per_channel=True),
            floats(16, 32),
            dynamic={0: {0: (1, 16, 32)}},
            build=target is _CHANNELS[0],
            tolerance=_ACCUMULATED,
        )
        for target in _CHANNELS
    ),
    _fp8(
        _CHANNELS[1],
        "linear_without_bias",
        _QuantizedLinear(32, 16, per_channel=True, bias=False),
        floats(16, 32),
        tolerance=_ACCUMULATED,
    ),
]

REFUSALS = [
    refusal(float8.quantize_fp8, "no_dimension", "at least one dimension", _qdq, floats()),
    refusal(
        torch.ops.aten._to_copy.default,
        "cast_to_fp8",
        "float8_e4m3fn for quantized values only",
        lambda x: x.to(E4M3).float(),
        floats(2, 3),
    ),
    refusal(
        torch.ops.aten.reshape.default,
        "of_fp8",
        "float8_e4m3fn tensors",
        lambda x: x.to(E4M3).reshape(3, 2).float(),
        floats(2, 3),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()
