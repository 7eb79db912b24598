"""Signal-to-noise ratios, accumulated over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Stands for "no difference at all", which JSON has no number for; its negative for noise without a signal, and NaN.
LARGEST_DB = 200.0


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two powers, from -200 to 200 dB."""
    if noise == 0:
        return LARGEST_DB
    if not signal > 0 or not math.isfinite(noise):
        return -LARGEST_DB
    return min(max(10 * math.log10(signal / noise), -LARGEST_DB), LARGEST_DB)


class NoiseRatio:
    """Signal-to-quantization-noise ratio (SQNR) of a tensor: ``sum(reference^2) / sum((actual - reference)^2)``.

    Sums are kept in float64 where the tensors are, so that nothing waits for a GPU before ``db``.
    """

    def __init__(self) -> None:
        self._signal: Tensor | float = 0.0
        self._noise: Tensor | float = 0.0

    def add(self, reference: Tensor, actual: Tensor) -> None:
        """Counts the values of one batch; both tensors have the same shape."""
        reference, actual = reference.detach(), actual.detach()
        self._signal = self._signal + _power(reference)
        self._noise = self._noise + _power(actual.float() - reference.float())

    @property
    def db(self) -> float:
        """In dB, from -200 to 200; 200 where nothing differs."""
        return decibels(float(self._signal), float(self._noise))


class OutputNoiseRatio:
    """SQNR of a model's outputs, with the signal centred.

    The signal is how far the reference's values lie from their mean over the samples (dimension 0): what is the same
    for every input tells nothing. The noise is not centred, so a constant offset counts. Outputs that vary in the size
    of other dimensions are centred for each size apart. Where there is one sample only, nothing can be centred, and the
    plain ratio is given.
    """

    def __init__(self) -> None:
        self._centres: dict[tuple[int, tuple[int, ...]], _Centre] = {}
        self._noise = 0.0

    def add(self, references: Sequence[object], actuals: Sequence[object]) -> None:
        """Counts the floating-point tensors among the outputs of one batch, in the same order on both sides."""
        for position, (reference, actual) in enumerate(zip(references, actuals, strict=True)):
            if not isinstance(reference, Tensor) or not reference.is_floating_point():
                continue
            assert isinstance(actual, Tensor)
            rows = reference.double().reshape(len(reference) if reference.dim() else 1, -1)
            key = (position, tuple(reference.shape[1:]))
            self._centres.setdefault(key, _Centre()).add(rows)
            self._noise += float(_power(actual.double() - reference.double()))

    @property
    def noise_share(self) -> float:
        """The power of the noise over that of the signal: 0 without noise; infinite where there is no signal."""
        signal = sum(centre.power for centre in self._centres.values())
        if self._noise == 0:
            return 0.0
        return self._noise / signal if signal > 0 and math.isfinite(self._noise) else math.inf

    @property
    def db(self) -> float:
        """In dB, from -200 to 200; 200 where nothing differs."""
        return decibels(sum(centre.power for centre in self._centres.values()), self._noise)


class _Centre:
    """The sum of squared distances of rows from their mean, row by row (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | None = None
        self._spread = 0.0

    def add(self, rows: Tensor) -> None:
        count, mean = len(rows), rows.mean(dim=0)
        spread = float((rows - mean).square().sum())
        if self._mean is None:
            self._count, self._mean, self._spread = count, mean, spread
            return
        total = self._count + count
        step = mean - self._mean
        self._spread += spread + float(step.square().sum()) * self._count * count / total
        self._mean = self._mean + step * (count / total)
        self._count = total

    @property
    def power(self) -> float:
        if self._count == 1 and self._mean is not None:
            return float(self._mean.square().sum())
        return self._spread


def _power(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm.square()
