"""Percentile calibration: the range that holds a given share of the absolute values.

Source: H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical
Evaluation", 2020 (arXiv 2004.09602), section 5.1. The amax is the upper edge of the histogram's bin
that the percentile falls into: never below the true percentile, and above it by less than a bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch

from trtcompile.ptq.histogram import AbsHistogram


def percentile_amax(histograms: Sequence[AbsHistogram], *, percentile: float) -> list[float]:
    """The amax that at most ``100 - percentile`` percent of the values exceed, for each histogram.

    Args:
        histograms: of the absolute values.
        percentile: above 0 and up to 100; 100 gives the largest value.

    Raises:
        CalibrationError: a histogram was shown NaN or infinity.
    """
    return [_amax(histogram, percentile) for histogram in histograms]


def _amax(histogram: AbsHistogram, percentile: float) -> float:
    kept = histogram.counts.cumsum(0)
    # As a fraction: of 2**53 values and more, a float product would be off by some.
    needed = max(1, math.ceil(Fraction(percentile) / 100 * int(kept[-1])))
    bins = int(torch.searchsorted(kept, needed)) + 1
    return histogram.range_of(bins)
