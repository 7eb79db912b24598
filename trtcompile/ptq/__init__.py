"""Post-training quantization: calibrators, and the scales they find."""

from __future__ import annotations

from trtcompile.ptq.algorithms import CalibrationAlgo
from trtcompile.ptq.calibrators import CacheCalibrator, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.table import CalibrationTable

__all__ = [
    "CacheCalibrator",
    "CalibrationAlgo",
    "CalibrationTable",
    "Calibrator",
    "DataLoaderCalibrator",
]
