"""Calibration algorithms: pure functions from histograms to amax, and from amax to a scale."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import numpy as np

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq.entropy import entropy_amax
from trtcompile.ptq.histogram import AbsHistogram

INT8_MAX = 127

# The scale of a tensor that was zero throughout calibration. Any scale is right for zeros, but
# TensorRT takes none that is 0; this one, the smallest normal float16, also has a finite float16
# reciprocal.
ALL_ZERO_SCALE = 2.0**-14

# The smallest normal float32: below it a scale loses bits and its reciprocal overflows.
MIN_SCALE = 2.0**-126
MAX_SCALE = float(np.finfo(np.float32).max)


class CalibrationAlgo(enum.Enum):
    """How the range of a tensor is chosen; the value is its name in TensorRT's cache files."""

    ENTROPY_CALIBRATION = "EntropyCalibration"
    ENTROPY_CALIBRATION_2 = "EntropyCalibration2"
    LEGACY_CALIBRATION = "LegacyCalibration"
    MINMAX_CALIBRATION = "MinMaxCalibration"


def minmax_amax(histograms: Sequence[AbsHistogram]) -> list[float]:
    """The largest absolute value of each histogram: nothing is clipped."""
    return [histogram.amax for histogram in histograms]


_AMAX: dict[CalibrationAlgo, Callable[[Sequence[AbsHistogram]], list[float]]] = {
    CalibrationAlgo.ENTROPY_CALIBRATION_2: entropy_amax,
    CalibrationAlgo.MINMAX_CALIBRATION: minmax_amax,
}


def amax_of(histograms: Sequence[AbsHistogram], algo: CalibrationAlgo) -> list[float]:
    """The largest absolute value that INT8 is to represent, for each histogram.

    Raises:
        CalibrationError: the algorithm is not implemented, or a histogram was shown NaN or
            infinity.
    """
    check_implemented(algo)
    return _AMAX[algo](histograms)


def check_implemented(algo: object) -> None:
    """Refuses what is not an algorithm that ``amax_of`` can run.

    Raises:
        SettingsError: ``algo`` is not a ``CalibrationAlgo``.
        CalibrationError: the algorithm is not implemented.
    """
    names = " or ".join(f"CalibrationAlgo.{known.name}" for known in _AMAX)
    if not isinstance(algo, CalibrationAlgo):
        raise SettingsError(f"algo_type is {algo!r}, not a CalibrationAlgo. Use {names}.")
    if algo not in _AMAX:
        raise CalibrationError(f"CalibrationAlgo.{algo.name} is not implemented yet. Use {names}.")


def scale_of(amax: float) -> float:
    """The float32 scale that maps ``amax`` to 127, as a Python float.

    An amax of 0 gets ``ALL_ZERO_SCALE``; any other scale is at least ``MIN_SCALE``.
    """
    if amax == 0:
        return ALL_ZERO_SCALE
    return max(float(np.float32(amax / INT8_MAX)), MIN_SCALE)
