"""MSE calibration: the amax with the least expected squared quantization error.

A value is taken to be anywhere in its bin with the same probability, but those of the first bin to
be zero, as most values after a ReLU are. For ``i`` bins, in units of a bin, the step is ``s = i /
127``, and rounding and clipping replace a value by the nearest of ``0, s, 2s, ..., 127s``. With the
stop-loss transform ``G(x)``, the integral of ``(y - x) p(y)`` over ``y > x``, the sum over all
values of the squared error is, by Abel summation over the levels,

    E(i) = sum of y^2 p(y)  -  2 s * (G(s/2) + G(3s/2) + ... + G(126.5 s))

and ``G`` is quadratic between the edges of bins, so that it takes three numbers of a prefix sum. All
candidates of all histograms are evaluated so, exactly and without a loop over bins.

The criterion, though not this closed form, is that of W. Sung et al., "Resiliency of Deep Neural
Networks under Quantization", 2015, and of several open implementations, which try ranges one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trtcompile.ptq.histogram import BINS, AbsHistogram, occupied_bins, stacked_counts

LEVELS = 127  # the largest signed 8-bit integer that is used

_CANDIDATES_AT_A_TIME = 256  # keeps the temporaries of 100 histograms near 25 MB each


def mse_amax(histograms: Sequence[AbsHistogram]) -> list[float]:
    """The amax with the least expected squared error, for each histogram; of several the largest.

    Raises:
        CalibrationError: a histogram was shown NaN or infinity.
    """
    if not histograms:
        return []
    counts = stacked_counts(histograms)
    numbers = torch.arange(1, BINS + 1, device=counts.device)
    errors = torch.where(
        numbers <= occupied_bins(counts)[:, None], squared_errors(counts), torch.inf
    )
    least = errors == errors.amin(dim=1, keepdim=True)
    chosen = torch.where(least, numbers, 0).amax(dim=1)
    return [histogram.range_of(i) for histogram, i in zip(histograms, chosen.tolist(), strict=True)]


def squared_errors(counts: Tensor) -> Tensor:
    """E(i) of each candidate range of each histogram.

    Args:
        counts: int64 ``[histograms, 2048]``.

    Returns:
        float64 ``[histograms, 2048]``: the error with the first 1, 2, ..., 2048 bins, summed over
        all values, in squared bin widths.
    """
    # Bins along dim 0: picking points then copies rows that are contiguous.
    bins = counts.t().contiguous().double()
    bins[0] = 0  # zeros have no error
    left = torch.arange(BINS, device=counts.device, dtype=torch.float64)[:, None]
    power = (bins * (left**2 + left + 1 / 3)).sum(dim=0)
    above = _suffix_sums(bins)
    # G at edge j is what lies above edge j + 1, moved by one bin, and bin j's own mean distance.
    loss = _suffix_sums(bins / 2 + above[1:])
    bins = torch.cat([bins, torch.zeros_like(bins[:1])])
    levels = torch.arange(1, LEVELS + 1, device=counts.device)
    parts = []
    candidates = torch.arange(1, BINS + 1, device=counts.device)
    for ends in torch.split(candidates, _CANDIDATES_AT_A_TIME):
        step = ends.double() / LEVELS
        point = (levels - 0.5) * step[:, None]
        edge = point.floor().long()
        part = (point - edge)[..., None]
        transform = loss[edge] - part * above[edge] + part**2 / 2 * bins[edge]
        parts.append(power - 2 * step[:, None] * transform.sum(dim=1))
    return torch.cat(parts).t()


def _suffix_sums(rows: Tensor) -> Tensor:
    """Sums of the last n, n - 1, ..., 0 rows."""
    return torch.cat([rows.flip(0).cumsum(dim=0).flip(0), torch.zeros_like(rows[:1])])
