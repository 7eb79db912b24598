"""TensorRT 10's calibrator classes, for code that derives from them where TensorRT has none.

``from trtcompile.ptq import IInt8EntropyCalibrator2`` instead of ``tensorrt.IInt8EntropyCalibrator2``
is all that such code needs to change. An object of either is a ``calibrator=``.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from trtcompile.ptq.algorithms import CalibrationAlgo


class IInt8Calibrator(abc.ABC):
    """Hands out batches as addresses on the GPU, and keeps the cache."""

    @abc.abstractmethod
    def get_batch_size(self) -> int:
        """How many samples a batch has."""

    @abc.abstractmethod
    def get_batch(self, names: Sequence[str]) -> Sequence[int] | None:
        """For each input its address on the GPU, contiguous and in the input's dtype; None after the last batch."""

    @abc.abstractmethod
    def read_calibration_cache(self) -> bytes | None:
        """The cache that an earlier calibration wrote, or None to calibrate."""

    @abc.abstractmethod
    def write_calibration_cache(self, cache: bytes) -> None:
        """Keeps the cache."""

    @abc.abstractmethod
    def get_algorithm(self) -> Any:
        """How scales are chosen: something with the ``name`` of a ``CalibrationAlgo``."""


class IInt8EntropyCalibrator2(IInt8Calibrator):
    """Chooses scales by entropy."""

    def get_algorithm(self) -> Any:
        """``CalibrationAlgo.ENTROPY_CALIBRATION_2``."""
        return CalibrationAlgo.ENTROPY_CALIBRATION_2


class IInt8EntropyCalibrator(IInt8Calibrator):
    """Chooses scales by entropy, on tensors between fused layers."""

    def get_algorithm(self) -> Any:
        """``CalibrationAlgo.ENTROPY_CALIBRATION``."""
        return CalibrationAlgo.ENTROPY_CALIBRATION


class IInt8MinMaxCalibrator(IInt8Calibrator):
    """Chooses the largest value seen."""

    def get_algorithm(self) -> Any:
        """``CalibrationAlgo.MINMAX_CALIBRATION``."""
        return CalibrationAlgo.MINMAX_CALIBRATION


class IInt8LegacyCalibrator(IInt8Calibrator):
    """Chooses scales by a regression of the histogram's tail, or a quantile."""

    def get_algorithm(self) -> Any:
        """``CalibrationAlgo.LEGACY_CALIBRATION``."""
        return CalibrationAlgo.LEGACY_CALIBRATION

    @abc.abstractmethod
    def get_quantile(self) -> float:
        """The share of values, above 0 and up to 1, that the range holds where no line is fitted."""

    @abc.abstractmethod
    def get_regression_cutoff(self) -> float:
        """Which bins the line is fitted to, from 0 for all to 1 for no line: see ``trtcompile/ptq/legacy.py``."""

    def read_histogram_cache(self, length: int) -> bytes | None:
        """Not called: the histograms are made anew."""

    def write_histogram_cache(self, data: bytes, length: int) -> None:
        """Not called."""
