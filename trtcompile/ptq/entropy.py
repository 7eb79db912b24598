"""Entropy calibration: the amax whose 8-bit quantization loses the least information.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, with the details of its open
implementations. A candidate amax is the upper edge of the first ``i`` bins of the histogram ``b``:

1. ``b[0]`` is replaced by ``b[1]``, so that the zeros of a ReLU do not decide.
2. ``P`` is ``b[:i]`` with everything above added to its last bin: values beyond amax are clipped to
   it.
3. ``Q`` is ``b[:i]`` without that, in 128 cells (bin j in cell ``j * 128 // i``), the mass of a
   cell spread evenly over its non-empty bins: what is left after quantization to 128 levels.
4. The loss is the Kullback-Leibler divergence ``KL(P || Q)`` of the two, each normalized to sum 1.
   It is infinite where P has mass and Q has none: an empty last bin with clipped values.
5. The least loss wins; of several, the largest range. Only ranges that clip at most ``MOST_CLIPPED``
   of the mass compete: the loss does not see how much is clipped where nearly all of ``b[:i]`` is
   in one bin, and is 0 if it is all there. A tensor far from zero, such as a global average pool's
   output, or an image with an even background would otherwise be cut off at its first values.

With the bins divided by their total, and prefix sums over them of the mass ``S``, the number of
non-empty bins ``Z``, and ``E`` of ``b ln b``, the loss has a closed form, the same for all
candidates (``l = b[i-1]``, ``t = 1 - S_i`` the clipped mass, ``m_c`` and ``z_c`` mass and non-empty
bins of cell c, from differences of S and Z)::

    KL(i) = E_i - l ln l + (l + t) ln(l + t)
          - sum_c m_c ln(m_c / z_c) - t ln(m_127 / z_127) + ln S_i

so all candidates of many histograms are evaluated at once, without a loop over either.

Where this differs from other implementations: the histogram's range is a power of two, so 1025 to
2048 bins cover the values, not always 2048, and the empty bins above them are no candidates; losses
within ``TIE`` count as equal, so that rounding does not choose between them; what a range may clip
is limited; amax never exceeds the largest value seen; and the histogram is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trtcompile.ptq.histogram import BINS, AbsHistogram, occupied_bins, stacked_counts

CELLS = 128  # the non-negative levels of signed 8-bit integers
MOST_CLIPPED = 0.01  # more than that are no outliers; heavy-tailed tensors stay well below
TIE = 1e-12  # above the rounding of the closed form, about 1e-14, and below what matters

_CANDIDATES_AT_A_TIME = 256  # keeps the temporaries of 100 histograms near 25 MB each


def entropy_amax(histograms: Sequence[AbsHistogram]) -> list[float]:
    """The amax with the least KL divergence, for each histogram.

    A histogram whose values occupy fewer than 128 bins from zero, such as one of zeros only, has no
    candidate and gets its largest value.

    Raises:
        CalibrationError: a histogram was shown NaN or infinity.
    """
    if not histograms:
        return []
    chosen = best_bin_counts(stacked_counts(histograms))
    return [
        histogram.amax if i == 0 else histogram.range_of(i)
        for histogram, i in zip(histograms, chosen.tolist(), strict=True)
    ]


def best_bin_counts(counts: Tensor) -> Tensor:
    """How many bins, from zero, to keep of each histogram.

    Args:
        counts: int64 ``[histograms, 2048]``.

    Returns:
        int64 ``[histograms]``, each from 128 to the last occupied bin; 0 where that is below 128.
    """
    numbers = torch.arange(1, BINS + 1, device=counts.device)
    occupied = occupied_bins(counts)
    losses = kl_divergences(counts)
    candidates = numbers[CELLS - 1 :]
    competes = (candidates <= occupied[:, None]) & (_clipped(counts) <= MOST_CLIPPED)
    losses = torch.where(competes, losses, torch.inf)
    least = losses.amin(dim=1, keepdim=True)
    ties = torch.isfinite(losses) & (losses <= least + TIE)
    return torch.where(ties, candidates, 0).amax(dim=1)


def _clipped(counts: Tensor) -> Tensor:
    """The share of the mass above each candidate range, the zeros replaced as in step 1."""
    bins = counts.clone()
    bins[:, 0] = bins[:, 1]
    kept = bins.cumsum(dim=1)
    total = kept[:, -1:]
    return (total - kept[:, CELLS - 1 :]).double() / total.clamp(min=1)


def kl_divergences(counts: Tensor) -> Tensor:
    """KL(P || Q) of each candidate range of each histogram, by the closed form above.

    Args:
        counts: int64 ``[histograms, 2048]``.

    Returns:
        float64 ``[histograms, 1921]``: the loss with the first 128, 129, ..., 2048 bins, in nats.
    """
    # Bins along dim 0: picking cell edges then copies rows that are contiguous.
    bins = counts.t().contiguous().double()
    bins[0] = bins[1]
    nonempty = _prefix_sums((bins > 0).double())
    counted = _prefix_sums(bins)  # whole numbers: exact up to 2**53
    total = counted[-1]
    share = bins / total
    x_log_x = _prefix_sums(torch.xlogy(share, share))
    parts = []
    candidates = torch.arange(CELLS, BINS + 1, device=counts.device)
    for ends in torch.split(candidates, _CANDIDATES_AT_A_TIME):
        last = share[ends - 1]
        tail = (total - counted[ends]) / total
        # Cell k holds the bins j with j * 128 // i == k; its first bin is ceil(k * i / 128).
        cells = torch.arange(CELLS + 1, device=counts.device)
        edges = (ends[:, None] * cells + (CELLS - 1)) // CELLS
        cell_mass = counted[edges].diff(dim=1) / total
        density = cell_mass / nonempty[edges].diff(dim=1).clamp_(min=1)
        p_log_p = x_log_x[ends] - torch.xlogy(last, last) + torch.xlogy(last + tail, last + tail)
        p_log_q = torch.xlogy(cell_mass, density).sum(dim=1) + torch.xlogy(tail, density[:, -1])
        loss = p_log_p - p_log_q + (counted[ends] / total).log()
        parts.append(torch.where((tail > 0) & (last == 0), torch.inf, loss))
    return torch.cat(parts).t()


def _prefix_sums(rows: Tensor) -> Tensor:
    """Sums of the first 0, 1, ..., n rows."""
    return torch.cat([torch.zeros_like(rows[:1]), rows.cumsum(dim=0)])
