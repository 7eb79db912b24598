"""Calibration algorithms: pure functions from histograms to amax, and from amax to a scale."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq.entropy import entropy_amax
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.legacy import legacy_amax
from trtcompile.ptq.mse import mse_amax
from trtcompile.ptq.percentile import percentile_amax

INT8_MAX = 127

# The scale of a tensor that was zero throughout calibration. Any scale is right for zeros, but
# TensorRT takes none that is 0; this one, the smallest normal float16, also has a finite float16
# reciprocal.
ALL_ZERO_SCALE = 2.0**-14

# The smallest normal float32: below it a scale loses bits and its reciprocal overflows.
MIN_SCALE = 2.0**-126
MAX_SCALE = float(np.finfo(np.float32).max)


class CalibrationAlgo(enum.Enum):
    """How the range of a tensor is chosen; the value is its name in cache files.

    The first four are TensorRT's own. TensorRT observes tensors before it fuses layers for
    ENTROPY_CALIBRATION_2 and MINMAX_CALIBRATION, and after it for the other two. The tensors that
    trtcompile observes are those between fused layers, for all algorithms, so the two entropy
    calibrations choose the same ranges. AUTO_CALIBRATION takes the best of the others for each
    tensor (``trtcompile/ptq/auto.py``).
    """

    ENTROPY_CALIBRATION = "EntropyCalibration"
    ENTROPY_CALIBRATION_2 = "EntropyCalibration2"
    LEGACY_CALIBRATION = "LegacyCalibration"
    MINMAX_CALIBRATION = "MinMaxCalibration"
    PERCENTILE_CALIBRATION = "PercentileCalibration"
    MSE_CALIBRATION = "MSECalibration"
    AUTO_CALIBRATION = "AutoCalibration"


def minmax_amax(histograms: Sequence[AbsHistogram]) -> list[float]:
    """The largest absolute value of each histogram: nothing is clipped."""
    return [histogram.amax for histogram in histograms]


@dataclass(frozen=True)
class _Limits:
    """What an option may be: up to ``high``, and above ``low``, or also ``low`` itself."""

    low: float
    high: float
    takes_low: bool = False

    def allows(self, value: float) -> bool:
        return self.low < value <= self.high or (self.takes_low and value == self.low)

    def __str__(self) -> str:
        return (
            f"{'of at least' if self.takes_low else 'above'} {self.low:g} and up to {self.high:g}"
        )


@dataclass(frozen=True)
class _Algorithm:
    """A function from histograms to amax, and its options: their defaults and what they may be.

    The function is None where histograms are not enough.
    """

    amax: Callable[..., list[float]] | None
    options: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, _Limits] = field(default_factory=dict)


_ALGORITHMS: Mapping[CalibrationAlgo, _Algorithm] = {
    CalibrationAlgo.ENTROPY_CALIBRATION: _Algorithm(entropy_amax),
    CalibrationAlgo.ENTROPY_CALIBRATION_2: _Algorithm(entropy_amax),
    CalibrationAlgo.MINMAX_CALIBRATION: _Algorithm(minmax_amax),
    CalibrationAlgo.PERCENTILE_CALIBRATION: _Algorithm(
        percentile_amax, {"percentile": 99.99}, {"percentile": _Limits(0, 100)}
    ),
    CalibrationAlgo.LEGACY_CALIBRATION: _Algorithm(
        legacy_amax,
        {"quantile": 0.999999, "regression_cutoff": 1.0},
        {"quantile": _Limits(0, 1), "regression_cutoff": _Limits(0, 1, takes_low=True)},
    ),
    CalibrationAlgo.MSE_CALIBRATION: _Algorithm(mse_amax),
    CalibrationAlgo.AUTO_CALIBRATION: _Algorithm(None),
}


def distinct_algorithms() -> tuple[CalibrationAlgo, ...]:
    """The algorithms that choose from histograms alone; of those that always agree, one."""
    by_function = {
        known.amax: algo for algo, known in _ALGORITHMS.items() if known.amax is not None
    }
    return tuple(by_function.values())


def amax_of(
    histograms: Sequence[AbsHistogram],
    algo: CalibrationAlgo,
    options: Mapping[str, float] | None = None,
) -> list[float]:
    """The largest absolute value that INT8 is to represent, for each histogram.

    Args:
        histograms: of absolute values.
        algo: the algorithm.
        options: its options; those left out have their defaults.

    Raises:
        SettingsError: the algorithm has no such option, or not with that value.
        CalibrationError: the algorithm needs more than histograms, or a histogram was shown NaN or
            infinity.
    """
    checked = options_of(algo, options)
    amax = _ALGORITHMS[algo].amax
    if amax is None:
        raise CalibrationError(
            f"CalibrationAlgo.{algo.name} simulates the model, for which histograms are not enough. "
            "Use DataLoaderCalibrator."
        )
    return amax(histograms, **checked)


def options_of(algo: object, options: object = None) -> Mapping[str, float]:
    """Every option of an algorithm, with the given values or its default.

    Raises:
        SettingsError: ``algo`` is not a ``CalibrationAlgo``, or ``options`` is no dictionary of its
            options with allowed values.
    """
    names = ", ".join(f"CalibrationAlgo.{known.name}" for known in _ALGORITHMS)
    if not isinstance(algo, CalibrationAlgo):
        raise SettingsError(f"algo_type is {algo!r}, not a CalibrationAlgo. Use one of {names}.")
    given = {} if options is None else options
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"algo_options is {options!r}. Give a dictionary such as {{'percentile': 99.9}}, or None."
        )
    algorithm = _ALGORITHMS[algo]
    for name, value in given.items():
        _check_option(algo, name, value)
    return MappingProxyType(
        {name: float(given.get(name, default)) for name, default in algorithm.options.items()}
    )


def _check_option(algo: CalibrationAlgo, name: object, value: object) -> None:
    limits = _ALGORITHMS[algo].limits
    if name not in limits:
        near = get_close_matches(str(name), limits, n=1, cutoff=0)
        has = f"Did you mean {near[0]!r}?" if near else "It has none: leave algo_options out."
        raise SettingsError(f"CalibrationAlgo.{algo.name} has no option {name!r}. {has}")
    allowed = limits[str(name)]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not allowed.allows(value):
        raise SettingsError(f"algo_options has {name} {value!r}. Use a number {allowed}.")


def scale_of(amax: float) -> float:
    """The float32 scale that maps ``amax`` to 127, as a Python float.

    An amax of 0 gets ``ALL_ZERO_SCALE``; any other scale is at least ``MIN_SCALE``.
    """
    if amax == 0:
        return ALL_ZERO_SCALE
    return max(float(np.float32(amax / INT8_MAX)), MIN_SCALE)
