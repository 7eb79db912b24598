from __future__ import annotations

import pytest
import torch
from operator_case import Case, Refusal, case, each, floats, refusal
from torch import nn

from trtcompile import int4_blocks

TARGETS = (int4_blocks.quantize_int4_blocks, int4_blocks.dequantize_int4_blocks)


class _Int4Linear(nn.Module):
    """A linear layer as weight-only compilation writes it; blocks differ in their scales a hundredfold."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        weight = floats(outputs, inputs, seed=5)
        weight[:, : inputs // 2] *= 0.01
        self.register_buffer("weight", weight)
        self.register_buffer("bias", floats(outputs, seed=6) if bias else None)
        self.register_buffer("scales", int4_blocks.block_scales(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = int4_blocks.quantize_int4_blocks(self.weight, self.scales)
        weight = int4_blocks.dequantize_int4_blocks(levels, self.scales)
        return nn.functional.linear(x, weight, self.bias)


CASES = [
    *(
        case(target, "linear", _Int4Linear(256, 8), floats(4, 256), tolerance=1e-4)
        for target in TARGETS
    ),
    case(TARGETS[1], "3d", _Int4Linear(256, 8), floats(2, 4, 256), tolerance=1e-4),
    case(
        TARGETS[1],
        "without_bias",
        _Int4Linear(256, 8, bias=False),
        floats(4, 256),
        tolerance=1e-4,
        build=False,
    ),
    *(
        case(
            target,
            "dynamic",
            _Int4Linear(256, 8),
            floats(4, 256),
            dynamic={0: {0: (1, 4, 8)}},
            build=target is TARGETS[1],
            tolerance=1e-4,
        )
        for target in TARGETS
    ),
]


REFUSALS = [
    refusal(
        target,
        "of_data",
        "for constants only",
        lambda x: int4_blocks.dequantize_int4_blocks(
            int4_blocks.quantize_int4_blocks(x, torch.ones(2, 1)), torch.ones(2, 1)
        ),
        floats(2, 128),
    )
    for target in TARGETS
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def by_loops(weight: torch.Tensor) -> tuple[list[list[int]], list[list[float]]]:
    """Levels and scales, one weight after the other."""
    levels, scales = [], []
    for row in weight.tolist():
        blocks = [row[i : i + 128] for i in range(0, len(row), 128)]
        largest = [max(abs(value) for value in block) for block in blocks]
        scales.append([max(amax / 7, 2.0**-14) for amax in largest])
        levels.append(
            [
                max(-7, min(7, round(value / scale)))
                for block, scale in zip(blocks, scales[-1], strict=True)
                for value in block
            ]
        )
    return levels, scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_blocks_against_loops(dtype: torch.dtype) -> None:
    weight = floats(3, 384, seed=1)
    weight[0, :128] = 0
    weight[1, 128:256] *= 1e-3
    levels, scales = by_loops(weight)
    actual = int4_blocks.block_scales(weight)
    torch.testing.assert_close(actual, torch.tensor(scales))
    quantized = int4_blocks.quantize_int4_blocks(weight, actual)
    assert quantized.tolist() == levels
    back = int4_blocks.dequantize_int4_blocks(quantized, actual, out_dtype=dtype)
    expected = [
        [level * float(torch.tensor(row_scales[i // 128]).to(dtype)) for i, level in enumerate(row)]
        for row, row_scales in zip(levels, scales, strict=True)
    ]
    assert back.dtype == dtype
    torch.testing.assert_close(back.float(), torch.tensor(expected).to(dtype).float())
