from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtcompile.errors import SettingsError
from trtcompile.ptq import CalibrationAlgo
from trtcompile.ptq.algorithms import (
    ALL_ZERO_SCALE,
    MIN_SCALE,
    amax_of,
    options_of,
    scale_of,
)
from trtcompile.ptq.entropy import entropy_amax
from trtcompile.ptq.histogram import AbsHistogram


@pytest.fixture
def histograms() -> list[AbsHistogram]:
    made = []
    for seed in range(3):
        histogram = AbsHistogram()
        histogram.update(torch.randn(2000, generator=torch.Generator().manual_seed(seed)) * 4)
        made.append(histogram)
    return made


def test_names_are_those_of_the_cache_files() -> None:
    assert {algo.name: algo.value for algo in CalibrationAlgo} == {
        "ENTROPY_CALIBRATION": "EntropyCalibration",
        "ENTROPY_CALIBRATION_2": "EntropyCalibration2",
        "LEGACY_CALIBRATION": "LegacyCalibration",
        "MINMAX_CALIBRATION": "MinMaxCalibration",
        "PERCENTILE_CALIBRATION": "PercentileCalibration",
        "MSE_CALIBRATION": "MSECalibration",
        "AUTO_CALIBRATION": "AutoCalibration",
    }


def test_minmax_is_the_largest_value(histograms: list[AbsHistogram]) -> None:
    expected = [histogram.amax for histogram in histograms]
    assert amax_of(histograms, CalibrationAlgo.MINMAX_CALIBRATION) == expected


def test_entropy_2_is_entropy(histograms: list[AbsHistogram]) -> None:
    chosen = amax_of(histograms, CalibrationAlgo.ENTROPY_CALIBRATION_2)
    assert chosen == entropy_amax(histograms)
    assert chosen != [histogram.amax for histogram in histograms]


def test_the_first_entropy_calibration_is_the_second_on_the_same_tensors(
    histograms: list[AbsHistogram],
) -> None:
    chosen = amax_of(histograms, CalibrationAlgo.ENTROPY_CALIBRATION)
    assert chosen == amax_of(histograms, CalibrationAlgo.ENTROPY_CALIBRATION_2)


def test_options_reach_the_algorithm(histograms: list[AbsHistogram]) -> None:
    percentile = CalibrationAlgo.PERCENTILE_CALIBRATION
    default = amax_of(histograms, percentile)
    assert default == amax_of(histograms, percentile, {"percentile": 99.99})
    half = amax_of(histograms, percentile, {"percentile": 50})
    assert all(0 < some < most for some, most in zip(half, default, strict=True))


def test_legacy_without_options_is_nearly_the_largest_value(
    histograms: list[AbsHistogram],
) -> None:
    legacy = CalibrationAlgo.LEGACY_CALIBRATION
    assert amax_of(histograms, legacy) == [histogram.amax for histogram in histograms]
    assert options_of(legacy, {"regression_cutoff": 0}) == {
        "quantile": 0.999999,
        "regression_cutoff": 0,
    }


@pytest.mark.parametrize(
    ("algo", "options", "said"),
    [
        ("PERCENTILE", {"percentile": 0}, "percentile 0. Use a number above 0 and up to 100"),
        ("PERCENTILE", {"percentile": 100.5}, "percentile 100.5"),
        ("PERCENTILE", {"percentile": float("nan")}, "percentile nan"),
        ("PERCENTILE", {"percentile": "99"}, "percentile '99'"),
        ("PERCENTILE", {"percentile": True}, "percentile True"),
        ("PERCENTILE", {"percentil": 99}, "no option 'percentil'. Did you mean 'percentile'"),
        ("PERCENTILE", [99], r"algo_options is \[99\]. Give a dictionary"),
        ("LEGACY", {"quantile": 0}, "quantile 0. Use a number above 0 and up to 1"),
        ("LEGACY", {"regression_cutoff": -0.1}, "cutoff -0.1. Use a number of at least 0 and up"),
        ("LEGACY", {"regression_cutoff": 2}, "regression_cutoff 2"),
        ("MSE", {"percentile": 99}, "no option 'percentile'. It has none"),
    ],
)
def test_options_that_an_algorithm_does_not_have(algo: str, options: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        options_of(CalibrationAlgo[f"{algo}_CALIBRATION"], options)


@pytest.mark.parametrize("algo", ["EntropyCalibration2", None, 1])
def test_what_is_no_algorithm_is_a_settings_error(algo: object) -> None:
    with pytest.raises(SettingsError, match="not a CalibrationAlgo"):
        options_of(algo)


@given(st.floats(min_value=0, max_value=2.0**127, width=32))
def test_scales_are_positive_normal_float32(amax: float) -> None:
    scale = scale_of(amax)
    assert struct.unpack(">f", struct.pack(">f", scale))[0] == scale
    assert scale >= MIN_SCALE
    assert math.isfinite(scale)
    if amax >= 127 * MIN_SCALE:
        assert scale == float(np.float32(np.float64(amax) / 127)) or amax == 0
        assert scale == pytest.approx(amax / 127, rel=2**-23)


def test_an_all_zero_tensor_gets_a_tiny_valid_scale() -> None:
    assert scale_of(0.0) == ALL_ZERO_SCALE
    assert 0 < ALL_ZERO_SCALE < 1e-4
    half = torch.tensor(ALL_ZERO_SCALE, dtype=torch.float16)
    assert half.item() == ALL_ZERO_SCALE
    assert torch.isfinite(1 / half)


def test_golden_scale() -> None:
    assert struct.pack(">f", scale_of(1.0)).hex() == "3c010204"  # as TensorRT writes amax 1.0
