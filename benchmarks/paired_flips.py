"""How many predictions a change turns from right to wrong and back, and what that says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

Z_95 = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


@dataclass(frozen=True)
class PairedFlips:
    """Predictions of the same images before and after a change.

    Attributes:
        images: how many predictions.
        correct_before: right before the change.
        lost: right before it, wrong after it.
        gained: wrong before it, right after it.
    """

    images: int
    correct_before: int
    lost: int
    gained: int

    @property
    def points_before(self) -> float:
        """Accuracy before the change, in percent."""
        return 100 * self.correct_before / self.images

    @property
    def points_after(self) -> float:
        """Accuracy after the change, in percent."""
        return 100 * (self.correct_before - self.lost + self.gained) / self.images

    @property
    def difference(self) -> float:
        """Accuracy after minus before, in percentage points."""
        return 100 * (self.gained - self.lost) / self.images

    @property
    def interval_95(self) -> tuple[float, float]:
        """95 % confidence interval of the difference, in percentage points.

        The adjusted Wald interval for matched pairs of Agresti and Min, "Simple improved confidence
        intervals for comparing matched proportions", Statistics in Medicine 24 (2005): half a
        prediction is added to each of the four cells. Without flips it is not empty.
        """
        images, lost, gained = self.images + 2, self.lost + 0.5, self.gained + 0.5
        middle = (gained - lost) / images
        deviation = math.sqrt(lost + gained - (gained - lost) ** 2 / images) / images
        return 100 * (middle - Z_95 * deviation), 100 * (middle + Z_95 * deviation)


def paired_flips(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> PairedFlips:
    """Counts flips between two predictions ``[images]`` of classes."""
    was_right, is_right = before == labels, after == labels
    return PairedFlips(
        images=len(labels),
        correct_before=int(was_right.sum()),
        lost=int((was_right & ~is_right).sum()),
        gained=int((~was_right & is_right).sum()),
    )


def pooled(parts: Iterable[PairedFlips]) -> PairedFlips:
    """The predictions of several models or repetitions together."""
    parts = list(parts)
    return PairedFlips(
        images=sum(part.images for part in parts),
        correct_before=sum(part.correct_before for part in parts),
        lost=sum(part.lost for part in parts),
        gained=sum(part.gained for part in parts),
    )
