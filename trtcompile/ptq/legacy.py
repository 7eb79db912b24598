"""Legacy calibration: TensorRT's first rule, a regression of the histogram's tail, or a quantile.

TensorRT documents two numbers between 0 and 1 (``IInt8LegacyCalibrator``): the quantile that
"selects the region maximum when the quantile method is in use", and the regression cutoff, "the
fraction of the maximum used to define the regression cutoff when using regression to determine the
region maximum"; its NvInfer.h says no more, and NVIDIA's sampleINT8 that a cutoff of 1 means no
regression. What follows is the rule that TensorRT 10.6 was found to use, from the ranges it chose for
48 known histograms of one batch with 15 settings: it gives all 720 to a millionth of the largest value.

The histogram has 2048 bins up to the largest value. With ``y = ln(n + 1) - 0.694`` for a bin of
``n`` values (0.694 is about ln 2, so that ``y`` is 0 at one value), bin 0 left out because of zeros:

1. Of the bins from the one with the largest ``y``, the first of several, those with ``y`` of at least
   ``regression_cutoff`` times that are taken.
2. A line is fitted to their ``y`` over their centres, by least squares. It is straight where the
   tail is exponential. amax is where the line reaches 0: where a bin would hold one value. That may
   be beyond the largest value seen.
3. Where there is no falling line, or amax would be more than twice the largest value, as for
   tensors without a tail, amax is the upper edge of the first bin up to which more than
   ``quantile`` of all values lie, those of bin 0 included.

Where this differs from TensorRT: the bins of ``AbsHistogram`` are wider, by less than two, so its
values are first dealt out to TensorRT's bins, those of each bin evenly, and what bin 0 has more than
bin 1 as zeros; and TensorRT chose other ranges where a later batch had larger values than the first,
where ours does not depend on the order.

The defaults are those of sampleINT8 for a network it does not know: no regression, and all values but
one in a million. Polygraphy's are 0.5 for both, which cuts a tensor without a tail off at its median.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trtcompile.ptq.histogram import BINS, AbsHistogram

LEVEL = 0.694  # TensorRT's constant; ln 2 is 0.6931, and the difference shows in its ranges
MOST_BEYOND = 2.0  # times the largest value: further extrapolation is not believed

_Counts = npt.NDArray[np.float64]


def legacy_amax(
    histograms: Sequence[AbsHistogram], *, quantile: float, regression_cutoff: float
) -> list[float]:
    """The amax by regression or quantile, for each histogram; it may exceed the largest value.

    Args:
        histograms: of absolute values.
        quantile: above 0 and up to 1; 1 for the largest value.
        regression_cutoff: from 0 to 1; 1 for no regression.

    Raises:
        CalibrationError: a histogram was shown NaN or infinity.
    """
    return [
        histogram.amax * region_maximum(dealt_out(histogram), quantile, regression_cutoff)
        if histogram.amax > 0
        else 0.0
        for histogram in histograms
    ]


def dealt_out(histogram: AbsHistogram) -> _Counts:
    """The values counted in 2048 bins up to the largest one, which is above 0."""
    counts = histogram.counts.cpu().numpy()
    zeros = max(0, counts[0] - counts[1])
    edges = np.minimum(np.arange(BINS + 1) * histogram.bin_width, histogram.amax)
    below = np.concatenate([[0], counts.cumsum() - zeros])
    last = int(np.searchsorted(edges, histogram.amax))
    wanted = np.linspace(0, histogram.amax, BINS + 1)
    dealt: _Counts = np.diff(np.interp(wanted, edges[: last + 1], below[: last + 1]))
    dealt[0] += zeros
    return dealt


def region_maximum(counts: _Counts, quantile: float, regression_cutoff: float) -> float:
    """The amax of one histogram, as a multiple of the largest value.

    Args:
        counts: float64 ``[2048]``, of equal bins from zero to the largest value.
        quantile: as in ``legacy_amax``.
        regression_cutoff: as in ``legacy_amax``.
    """
    crossing = _crossing(counts, regression_cutoff)
    if crossing is not None and 0 < crossing <= MOST_BEYOND * BINS:
        return crossing / BINS
    kept = counts.cumsum()
    below = int((kept <= quantile * kept[-1]).sum())
    return min(below + 1, BINS) / BINS


def _crossing(counts: _Counts, cutoff: float) -> float | None:
    """Where the fitted line reaches 0, in bins; None if it does not fall."""
    y = np.log1p(counts) - LEVEL
    y[0] = -LEVEL
    start = int(y.argmax())
    if y[start] <= 0:
        return None
    taken = np.flatnonzero(y >= cutoff * y[start])
    taken = taken[taken >= start]
    x, y = taken + 0.5, y[taken]
    spread = float((x - x.mean()) @ (y - y.mean()))
    if spread >= 0:
        return None
    return float(x.mean() - y.mean() * ((x - x.mean()) ** 2).sum() / spread)
