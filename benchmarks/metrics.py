"""What outputs and times are judged by; numbers in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Stands for "no difference at all", which JSON has no number for; the negative for NaN or infinity.
LARGEST_SQNR_DB = 200.0


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """Signal-to-noise ratio, in dB, of outputs ``[samples, ...]``.

    The signal is how far the reference's outputs lie from their mean over the samples: what is the
    same for every input tells nothing. The noise is not centred, so a constant offset counts.

    Returns:
        From -200, which also stands for NaN or infinity in ``actual``, to 200 for no difference.

    Raises:
        ValueError: the shapes differ, or the reference does not vary over the samples.
    """
    signal, noise = _powers(reference, actual)
    return _decibels(signal.sum().item(), noise.sum().item())


def worst_sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """The same of the sample with the most noise, for a signal as strong as the samples' are on average.

    What is wrong in one image of a batch hardly shows in the ratio of all of them.
    """
    signal, noise = _powers(reference, actual)
    return _decibels(signal.mean().item(), noise.max().item())


def _powers(reference: torch.Tensor, actual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The power of the centred signal and of the noise in each sample."""
    if reference.shape != actual.shape:
        raise ValueError(f"shapes differ: {list(reference.shape)} and {list(actual.shape)}.")
    reference, actual = reference.double().flatten(1), actual.double().flatten(1)
    signal = (reference - reference.mean(dim=0, keepdim=True)).square().sum(1)
    if not signal.sum() > 0:
        raise ValueError("the reference is the same for every sample. Give at least two samples.")
    return signal, (actual - reference).square().sum(1)


def _decibels(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -LARGEST_SQNR_DB
    if noise == 0:
        return LARGEST_SQNR_DB
    return float(np.clip(10 * math.log10(signal / noise), -LARGEST_SQNR_DB, LARGEST_SQNR_DB))


@dataclass(frozen=True)
class Top1:
    """Agreement of predicted classes.

    Attributes:
        agreement: share of samples with the same class, from 0 to 1.
        classes: how many classes the reference predicts.
        largest_share: the share of its most frequent class.
    """

    agreement: float
    classes: int
    largest_share: float

    @property
    def counts(self) -> bool:
        """Whether agreement on an untrained model says anything: enough classes, none dominating."""
        return self.classes >= 10 and self.largest_share <= 0.3


def top1(reference: torch.Tensor, actual: torch.Tensor) -> Top1:
    """Compares the classes that logits ``[samples, classes]`` predict."""
    expected, predicted = reference.argmax(dim=1), actual.argmax(dim=1)
    frequencies = torch.bincount(expected)
    return Top1(
        agreement=(expected == predicted).double().mean().item(),
        classes=int((frequencies > 0).sum()),
        largest_share=float(frequencies.max()) / len(expected),
    )


def median_of_medians(groups: Sequence[Sequence[float]]) -> float:
    """The median over groups of each group's median: builds, and the rounds of each."""
    return statistics.median(statistics.median(group) for group in groups)


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values."""
    return statistics.geometric_mean(values)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Count, median, 5th and 95th percentile, and extremes."""
    p5, median, p95 = np.percentile(np.asarray(values, dtype=np.float64), [5, 50, 95])
    return {
        "count": len(values),
        "median": float(median),
        "p5": float(p5),
        "p95": float(p95),
        "min": float(min(values)),
        "max": float(max(values)),
    }
