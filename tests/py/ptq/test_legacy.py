"""Legacy calibration against the ranges that TensorRT 10.6 chose, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtcompile.ptq.histogram import BINS, AbsHistogram
from trtcompile.ptq.legacy import dealt_out, legacy_amax, region_maximum

VALUES = 1 << 17
CENTRES = (np.arange(BINS) + 0.5) / BINS


def shared_out(weights: np.ndarray, total: int = VALUES) -> np.ndarray:
    """Whole numbers in proportion to weights, by the largest remainders; the earlier bin first."""
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def shape(name: str) -> np.ndarray:
    """Counts in 2048 bins from 0 to 1, as TensorRT's calibrator was shown them."""
    kind, _, number = name.partition(" ")
    if kind == "exponential":
        counts = shared_out(np.exp(-float(number) * CENTRES))
    elif kind == "gauss":
        counts = shared_out(np.exp(-0.5 * (CENTRES / float(number)) ** 2))
    elif kind == "hump":
        counts = shared_out(np.exp(-0.5 * ((CENTRES - 0.4) / 0.1) ** 2))
    elif kind == "step":
        counts = shared_out(np.where(CENTRES < 0.25, 1, float(number)))
    elif kind == "triangle":
        counts = shared_out(1 - CENTRES)
    elif kind == "zeros":
        counts = shared_out(np.exp(-6 * CENTRES), VALUES // 2)
        counts[0] += VALUES // 2
    else:
        counts = shared_out(np.ones(BINS) if kind == "uniform" else CENTRES)
    if counts[-1] == 0:  # the largest value is 1
        counts[np.nonzero(counts)[0][-1]] -= 1
        counts[-1] = 1
    return counts


# quantile and cutoff, and for each shape the amax that IInt8LegacyCalibrator gave with them.
SETTINGS = (
    (0.5, 0.0),
    (0.5, 0.1),
    (0.5, 0.5),
    (0.5, 0.75),
    (0.99, 0.5),
    (0.99, 1),
    (0.9999, 1),
    (1, 1),
)
TENSORRT = {
    "exponential 6": (
        0.9291925,
        0.9155837,
        0.8865592,
        0.8814252,
        0.8865592,
        0.7304688,
        0.9936524,
        1,
    ),
    "exponential 40": (
        0.1854401,
        0.1826126,
        0.1793693,
        0.1790649,
        0.1793693,
        0.1152344,
        0.2089844,
        1,
    ),
    "gauss 0.2": (0.7440508, 0.7645171, 0.9569968, 1.3029904, 0.9569968, 0.5141602, 0.703125, 1),
    "hump": (0.7762444, 0.7873117, 0.8915747, 1.0827862, 0.8915747, 0.6328125, 0.7480469, 1),
    "step 0.1": (1.6245784, 1.6245784, 1.6245784, 0.1625977, 1.6245784, 0.9667969, 1.0, 1),
    "triangle": (1.7076253, 1.747554, 0.2929688, 0.2929688, 0.9003906, 0.9003906, 0.9897461, 1),
    "zeros": (0.8168663, 0.8030991, 0.7752383, 0.7691004, 0.7752383, 0.6362305, 0.9804688, 1),
    "uniform": (0.5004883, 0.5004883, 0.5004883, 0.5004883, 0.9902344, 0.9902344, 1.0, 1),
    "ramp": (0.7075195, 0.7075195, 0.7075195, 0.7075195, 0.9951172, 0.9951172, 1.0, 1),
}


@pytest.mark.parametrize("name", TENSORRT)
def test_the_range_is_tensorrts_on_its_bins(name: str) -> None:
    counts = shape(name).astype(float)
    chosen = [region_maximum(counts, quantile, cutoff) for quantile, cutoff in SETTINGS]
    assert chosen == pytest.approx(TENSORRT[name], abs=2e-7)


@pytest.mark.parametrize("name", TENSORRT)
def test_the_range_is_close_to_tensorrts_on_wider_bins(name: str) -> None:
    values = np.repeat(CENTRES, shape(name))
    values[-1] = 1  # a histogram over [0, 2), with bins of twice the width
    histogram = AbsHistogram()
    histogram.update(torch.from_numpy(values))
    for (quantile, cutoff), theirs in zip(SETTINGS, TENSORRT[name], strict=True):
        (ours,) = legacy_amax([histogram], quantile=quantile, regression_cutoff=cutoff)
        assert ours == pytest.approx(theirs, rel=0.01, abs=2 / BINS)


RANDOM = {
    "normal": lambda r: r.normal(size=VALUES),
    "relu": lambda r: np.maximum(r.normal(size=VALUES), 0),
    "laplace": lambda r: r.laplace(size=VALUES),
    "lognormal": lambda r: r.lognormal(size=VALUES),
}


@pytest.mark.parametrize("name", RANDOM)
def test_bins_of_a_power_of_two_make_little_difference(name: str) -> None:
    """To the same rule on 2048 bins up to the largest value, which the test above holds to TensorRT."""
    for seed in range(3):
        values = np.abs(RANDOM[name](np.random.default_rng(seed))).astype(np.float32)
        counts = np.histogram(values, bins=BINS, range=(0, values.max()))[0].astype(float)
        histogram = AbsHistogram()
        histogram.update(torch.from_numpy(values))
        for cutoff in (0.25, 0.5):
            (ours,) = legacy_amax([histogram], quantile=0.99, regression_cutoff=cutoff)
            theirs = float(values.max()) * region_maximum(counts, 0.99, cutoff)
            assert ours == pytest.approx(theirs, rel=0.06)


def plain(counts: list[float], quantile: float, cutoff: float) -> float:
    """The rule, value by value."""
    y = [math.log(1 + n) - 0.694 for n in counts]
    y[0] = -0.694
    top = max(y)
    start = y.index(top)
    points = [(i + 0.5, v) for i, v in enumerate(y) if i >= start and v >= cutoff * top]
    n = len(points)
    if top > 0 and n > 1:
        sx, sy = sum(x for x, _ in points), sum(v for _, v in points)
        sxx, sxy = sum(x * x for x, _ in points), sum(x * v for x, v in points)
        slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
        if slope < -1e-12 and 0 < (sx - sy / slope) / n <= 2 * BINS:
            return (sx - sy / slope) / n / BINS
    total, kept = sum(counts), 0.0
    for i, n_values in enumerate(counts):
        kept += n_values
        if kept > quantile * total:
            return (i + 1) / BINS
    return 1.0


def dealt_out_one_by_one(histogram: AbsHistogram) -> list[float]:
    """Each bin's values shared among the bins that it overlaps."""
    width, target = histogram.bin_width, histogram.amax / BINS
    counts = histogram.counts.tolist()
    shared = [0.0] * BINS
    shared[0] = max(0, counts[0] - counts[1])
    counts[0] = min(counts[:2])
    for i, n in enumerate(counts):
        low, high = i * width, min((i + 1) * width, histogram.amax)
        for j in range(int(low / target), min(BINS, int(high / target) + 1)):
            overlap = min(high, (j + 1) * target) - max(low, j * target)
            if n and overlap > 0:
                shared[j] += n * overlap / (high - low)
    return shared


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.integers(0, 99),
)
def test_the_rule_value_by_value(
    levels: list[int], quantile: float, cutoff: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.cat(
        [torch.randn(1 + 30 * 2**k, generator=generator) * (i + 1) for i, k in enumerate(levels)]
    )
    histogram = AbsHistogram()
    histogram.update(values)
    (chosen,) = legacy_amax([histogram], quantile=quantile, regression_cutoff=cutoff)
    counts = dealt_out_one_by_one(histogram)
    assert dealt_out(histogram) == pytest.approx(counts, abs=1e-6)
    exact = dealt_out(histogram).tolist()  # a count at the cutoff must not differ by rounding
    assert chosen == pytest.approx(histogram.amax * plain(exact, quantile, cutoff), rel=1e-6)


@pytest.mark.parametrize("cutoff", [0.0, 0.5, 1.0])
def test_few_values(cutoff: float) -> None:
    zeros, same = AbsHistogram(), AbsHistogram()
    zeros.update(torch.zeros(5))
    same.update(torch.full((5,), 3.0))
    histograms = [AbsHistogram(), zeros, same]
    assert legacy_amax(histograms, quantile=0.9, regression_cutoff=cutoff) == [0.0, 0.0, 3.0]
    assert legacy_amax([], quantile=0.9, regression_cutoff=cutoff) == []
