"""The closed form of MSE calibration against numerical integration, and against quantized values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trtcompile.ptq.histogram import BINS, AbsHistogram
from trtcompile.ptq.mse import mse_amax, squared_errors

POINTS = 64  # of the numerical integration, in each bin


def integrated_error(counts: NDArray[np.int64], bins: int) -> float:
    """The squared error of values spread evenly over their bins, those of the first bin being 0."""
    step = bins / 127
    values = (np.arange(BINS * POINTS) + 0.5) / POINTS
    quantized = np.clip(np.round(values / step), 0, 127) * step
    weights = np.repeat(counts.astype(float), POINTS) / POINTS
    weights[:POINTS] = 0
    return float((weights * (values - quantized) ** 2).sum())


def random_values(kind: str, seed: int, count: int = 50_000) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(size=count),
        "relu": lambda: np.maximum(rng.normal(size=count) - 0.5, 0),
        "long tail": lambda: rng.standard_t(2, size=count),
        "uniform": lambda: rng.uniform(-1, 1, size=count),
        "outlier": lambda: np.append(rng.normal(size=count - 1), 30.0),
        "far from zero": lambda: rng.normal(9, 0.2, size=count),
    }[kind]()
    return torch.from_numpy(values).float()


def histogram_of(values: torch.Tensor) -> AbsHistogram:
    histogram = AbsHistogram()
    histogram.update(values)
    return histogram


KINDS = ("normal", "relu", "long tail", "uniform", "outlier", "far from zero")


@pytest.mark.parametrize("kind", KINDS)
def test_closed_form_is_the_integral(kind: str) -> None:
    counts = histogram_of(random_values(kind, seed=3)).counts
    errors = squared_errors(counts[None])[0].tolist()
    for bins in (1, 7, 127, 128, 255, 700, 1111, 2048):
        assert errors[bins - 1] == pytest.approx(integrated_error(counts.numpy(), bins), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_no_other_range_quantizes_the_values_better(kind: str, seed: int) -> None:
    values = random_values(kind, seed).double()
    (amax,) = mse_amax([histogram_of(values)])

    def error(limit: float) -> float:
        step = limit / 127
        return float((values - (values / step).round().clamp(-127, 127) * step).square().mean())

    least = min(error(float(values.abs().max()) * k / 200) for k in range(10, 201))
    assert error(amax) <= 1.01 * least


def test_many_histograms_are_each_by_itself() -> None:
    histograms = [histogram_of(random_values(kind, 0)) for kind in KINDS]
    assert mse_amax(histograms) == [mse_amax([histogram])[0] for histogram in histograms]


def test_few_values() -> None:
    zeros, same, one = (
        histogram_of(v) for v in (torch.zeros(5), torch.full((5,), 3.0), torch.tensor([7.0]))
    )
    assert mse_amax([]) == []
    assert mse_amax([zeros, AbsHistogram()]) == [0.0, 0.0]
    assert mse_amax([same, one]) == [3.0, 7.0]


def test_a_single_outlier_is_clipped_and_many_are_not() -> None:
    body = random_values("normal", 1, count=100_000)
    few = histogram_of(torch.cat([body, torch.tensor([8.0])]))
    many = histogram_of(torch.cat([body, torch.full((5000,), 8.0)]))
    assert mse_amax([few])[0] < 6
    assert mse_amax([many])[0] > 7.9
