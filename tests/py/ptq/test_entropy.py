"""The closed form of entropy calibration against a plain loop over the candidates."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trtcompile.ptq.entropy import MOST_CLIPPED, TIE, best_bin_counts, entropy_amax, kl_divergences
from trtcompile.ptq.histogram import BINS, AbsHistogram


def loop_losses(counts: NDArray[np.int64], candidates: range) -> NDArray[np.float64]:
    """KL(P || Q) of each candidate, step by step."""
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    losses = []
    for i in candidates:
        p = bins[:i].copy()
        p[-1] += bins[i:].sum()
        q = np.zeros(i)
        cell_of = np.arange(i) * 128 // i
        edges = np.searchsorted(cell_of, np.arange(129))
        for start, stop in itertools.pairwise(edges):
            cell = bins[start:stop]
            filled = cell > 0
            if filled.any():
                q[start:stop][filled] = cell.sum() / filled.sum()
        has_mass = p > 0
        if (q[has_mass] == 0).any():
            losses.append(np.inf)
            continue
        p, q = p[has_mass] / p.sum(), q[has_mass] / q.sum()
        losses.append(float(np.sum(p * np.log(p / q))))
    return np.array(losses)


def loop_best(counts: NDArray[np.int64]) -> int:
    last = int(np.nonzero(counts)[0][-1]) + 1
    losses = loop_losses(counts, range(128, last + 1))
    bins = [int(count) for count in counts]
    bins[0] = bins[1]
    for i in range(128, last + 1):
        if sum(bins[i:]) > MOST_CLIPPED * sum(bins):
            losses[i - 128] = np.inf
    return 128 + int(np.nonzero(losses <= losses.min() + TIE)[0][-1])


def random_counts(kind: str, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    n = 20_000
    values = {
        "normal": lambda: rng.normal(size=n),
        "relu": lambda: np.maximum(rng.normal(size=n) - 0.5, 0),
        "long tail": lambda: rng.standard_t(2, size=n),
        "outlier": lambda: np.append(rng.normal(size=n), 40.0),
        "uniform": lambda: rng.uniform(-1, 1, size=n),
        "few values": lambda: rng.normal(size=40),
        "integers": lambda: rng.integers(0, 60, size=n).astype(float),
        "two clusters": lambda: np.concatenate([rng.normal(size=n), rng.normal(9, 0.1, size=500)]),
        "constant": lambda: np.full(100, 3.0),
    }[kind]()
    histogram = AbsHistogram()
    histogram.update(torch.from_numpy(values).float())
    return histogram.counts.numpy()


KINDS = (
    "normal",
    "relu",
    "long tail",
    "outlier",
    "uniform",
    "few values",
    "integers",
    "two clusters",
    "constant",
)


@pytest.mark.parametrize("kind", KINDS)
def test_choice_is_that_of_the_plain_loop(kind: str) -> None:
    counts = random_counts(kind, seed=len(kind))
    assert best_bin_counts(torch.from_numpy(counts)[None]).item() == loop_best(counts)


sparse_counts = st.dictionaries(
    st.integers(0, BINS - 1), st.integers(1, 2**40), min_size=1, max_size=40
)


def dense_from(filled: dict[int, int], spike: int, plateau: tuple[int, int]) -> NDArray[np.int64]:
    counts = np.zeros(BINS, dtype=np.int64)
    start, height = plateau
    counts[start:] = height
    for bin_, count in filled.items():
        counts[bin_] = count
    counts[0] = spike
    return counts


@settings(max_examples=60)
@given(
    sparse_counts,
    st.integers(0, 2**50),
    st.tuples(st.integers(0, BINS), st.integers(0, 3)),
    st.lists(st.integers(128, BINS), min_size=1, max_size=3),
)
def test_losses_are_those_of_the_plain_loop(
    filled: dict[int, int], spike: int, plateau: tuple[int, int], candidates: list[int]
) -> None:
    counts = dense_from(filled, spike, plateau)
    if counts[1:].sum() == 0:
        counts[-1] = 1
    losses = kl_divergences(torch.from_numpy(counts)[None])[0].numpy()
    for i in candidates:
        expected = loop_losses(counts, range(i, i + 1))[0]
        actual = losses[i - 128]
        if np.isinf(expected):
            assert actual == np.inf
        else:
            assert actual == pytest.approx(expected, abs=1e-12)


@settings(max_examples=5)
@given(sparse_counts, st.integers(0, 10**6))
def test_choice_on_sparse_histograms(filled: dict[int, int], spike: int) -> None:
    counts = dense_from({**filled, 1500: 1}, spike, (BINS, 0))
    assert best_bin_counts(torch.from_numpy(counts)[None]).item() == loop_best(counts)


def test_equal_losses_go_to_the_larger_range() -> None:
    """Each occupied bin has a cell of its own under every candidate: several losses are 0."""
    counts = torch.zeros(1, BINS, dtype=torch.int64)
    counts[0, 1500] = 7
    assert best_bin_counts(counts).item() == 1501
    counts[0, 300] = 7
    assert best_bin_counts(counts).item() == 1501


def test_histograms_do_not_influence_each_other() -> None:
    counts = torch.stack([torch.from_numpy(random_counts(kind, 1)) for kind in KINDS])
    together = best_bin_counts(counts)
    alone = torch.cat([best_bin_counts(row[None]) for row in counts])
    assert torch.equal(together, alone)
    assert torch.equal(best_bin_counts(counts.flip(0)), together.flip(0))


def test_the_zeros_of_a_relu_do_not_decide() -> None:
    counts = torch.from_numpy(random_counts("normal", 2))[None]
    spiked = counts.clone()
    spiked[0, 0] = 10**9
    assert torch.equal(best_bin_counts(counts), best_bin_counts(spiked))


def test_statistics_are_not_changed() -> None:
    """Both the counts and, through them, a second run stay the same."""
    histogram = AbsHistogram()
    histogram.update(torch.randn(5000, generator=torch.Generator().manual_seed(0)).relu())
    before = histogram.counts
    first = entropy_amax([histogram])
    assert torch.equal(histogram.counts, before)
    assert entropy_amax([histogram]) == first
    counts = before[None].clone()
    best_bin_counts(counts)
    assert torch.equal(counts[0], before)


def test_amax_is_an_edge_at_or_below_the_largest_value() -> None:
    generator = torch.Generator().manual_seed(1)
    histograms = []
    for power in (-20, 0, 20):
        histogram = AbsHistogram()
        histogram.update(torch.randn(10_000, generator=generator) * 2.0**power)
        histograms.append(histogram)
    for histogram, amax in zip(histograms, entropy_amax(histograms), strict=True):
        assert 0 < amax <= histogram.amax
        assert amax == histogram.amax or amax / histogram.bin_width == int(
            amax / histogram.bin_width
        )


def test_entropy_cuts_off_a_lone_outlier() -> None:
    histogram = AbsHistogram()
    histogram.update(torch.randn(100_000, generator=torch.Generator().manual_seed(2)))
    histogram.update(torch.tensor([60.0]))
    (amax,) = entropy_amax([histogram])
    assert amax < 10.0


@pytest.mark.parametrize(
    "values",
    [
        # A tensor whose smallest values are far from zero: the output of a global average pool.
        lambda rng: rng.normal(4, 0.7, size=100_000),
        lambda rng: rng.uniform(3, 4, size=100_000),
        # Images on an even background that normalization moved away from zero.
        lambda rng: np.where(rng.random(100_000) < 0.8, -0.42, rng.uniform(-0.42, 2.8, 100_000)),
        lambda rng: np.append(rng.normal(1, 0.05, size=50_000), rng.normal(3, 0.5, size=50_000)),
    ],
    ids=["pooled", "band", "background", "two modes"],
)
def test_what_is_no_outlier_is_not_cut_off(
    values: Callable[[np.random.Generator], NDArray[np.float64]],
) -> None:
    histogram = AbsHistogram()
    x = values(np.random.default_rng(5))
    histogram.update(torch.from_numpy(x).float())
    (amax,) = entropy_amax([histogram])
    scale = amax / 127
    error = np.clip(np.round(x / scale), -128, 127) * scale - x
    assert 10 * np.log10(np.sum(x**2) / np.sum(error**2)) > 35


def test_scaling_the_values_by_a_power_of_two_scales_amax() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(3))
    amax = []
    for factor in (1.0, 2.0**-30, 2.0**40):
        histogram = AbsHistogram()
        histogram.update(values * factor)
        amax.append(entropy_amax([histogram])[0] / factor)
    assert amax[0] == amax[1] == amax[2]


def test_histograms_without_candidates() -> None:
    zeros, empty, tiny = AbsHistogram(), AbsHistogram(), AbsHistogram()
    zeros.update(torch.zeros(10))
    tiny.update(torch.tensor([2.0**-120]))
    assert entropy_amax([zeros, empty, tiny]) == [0.0, 0.0, 2.0**-120]
    assert entropy_amax([]) == []
