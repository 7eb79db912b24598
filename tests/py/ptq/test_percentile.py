"""Percentile calibration against sorted values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.percentile import percentile_amax


def histogram_of(values: torch.Tensor) -> AbsHistogram:
    histogram = AbsHistogram()
    histogram.update(values)
    return histogram


@given(st.floats(0.01, 100), st.integers(1, 3000), st.integers(0, 9))
def test_the_bin_of_the_percentile(percentile: float, count: int, seed: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 3
    histogram = histogram_of(values)
    (amax,) = percentile_amax([histogram], percentile=percentile)
    rank = max(1, math.ceil(round(percentile / 100 * count, 9)))
    exact = float(values.abs().sort().values[rank - 1])
    assert exact <= amax <= exact + histogram.bin_width
    assert amax <= histogram.amax


@pytest.mark.parametrize("percentile", [1, 50, 99.99, 100])
def test_few_values(percentile: float) -> None:
    zeros, same = histogram_of(torch.zeros(5)), histogram_of(torch.full((5,), 3.0))
    assert percentile_amax([zeros, same], percentile=percentile) == [0.0, 3.0]
    assert percentile_amax([], percentile=percentile) == []
    assert percentile_amax([AbsHistogram()], percentile=percentile) == [0.0]


def test_an_outlier_is_left_out() -> None:
    values = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([50.0])])
    histogram = histogram_of(values)
    assert percentile_amax([histogram], percentile=99.99)[0] < 1.1
    assert percentile_amax([histogram], percentile=100) == [50.0]
