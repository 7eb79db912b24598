"""Ratios over batches against the formulas on all values at once."""

from __future__ import annotations

import math

import pytest
import torch
from simulated import centred_sqnr, sqnr

from trtcompile.ptq.analysis.noise import LARGEST_DB, NoiseRatio, OutputNoiseRatio


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_batches_give_the_ratio_of_all_values() -> None:
    reference, noise = values(10, 3, 4), 0.1 * values(10, 3, 4, seed=1)
    ratio = NoiseRatio()
    for start, end in ((0, 1), (1, 7), (7, 10)):
        ratio.add(reference[start:end], (reference + noise)[start:end])
    assert ratio.db == pytest.approx(sqnr(reference, reference + noise), abs=1e-4)


@pytest.mark.parametrize(
    ("reference", "actual", "expected"),
    [
        (1.0, 1.0, LARGEST_DB),
        (0.0, 1.0, -LARGEST_DB),
        (0.0, 0.0, LARGEST_DB),
        (1.0, math.nan, -LARGEST_DB),
    ],
    ids=["equal", "no signal", "both zero", "nan"],
)
def test_what_has_no_ratio(reference: float, actual: float, expected: float) -> None:
    for ratio in (NoiseRatio(), OutputNoiseRatio()):
        tensors = torch.tensor([reference, -reference]), torch.tensor([actual, -actual])
        if isinstance(ratio, NoiseRatio):
            ratio.add(*tensors)
        else:
            ratio.add([tensors[0]], [tensors[1]])
        assert ratio.db == expected


def test_outputs_are_centred_over_all_batches() -> None:
    offset = 100 * values(1, 6, seed=2)  # the same for every sample: tells nothing
    reference, noise = values(11, 6) + offset, 0.05 * values(11, 6, seed=1)
    ratio = OutputNoiseRatio()
    for start, end in ((0, 1), (1, 4), (4, 11)):
        ratio.add([reference[start:end]], [(reference + noise)[start:end]])
    expected = centred_sqnr(reference, reference + noise)
    assert ratio.db == pytest.approx(expected, abs=1e-3)
    assert ratio.noise_share == pytest.approx(10 ** (-expected / 10), rel=1e-3)
    assert sqnr(reference, reference + noise) > expected + 20  # not centred it would look fine


def test_outputs_of_several_sizes_and_kinds() -> None:
    short, long, counts = values(4, 3), values(4, 5, seed=1), torch.arange(4)
    ratio = OutputNoiseRatio()
    ratio.add([short, counts, None], [short + 0.1, counts + 1, None])
    ratio.add([long, counts, None], [long - 0.1, counts, None])
    signal = sum(((x - x.mean(dim=0)) ** 2).sum() for x in (short, long))
    assert ratio.noise_share == pytest.approx(float(0.01 * 32 / signal), rel=1e-4)


def test_one_sample_cannot_be_centred() -> None:
    reference = values(1, 8)
    ratio = OutputNoiseRatio()
    ratio.add([reference], [reference + 0.1])
    assert ratio.db == pytest.approx(sqnr(reference, reference + 0.1), abs=1e-3)
