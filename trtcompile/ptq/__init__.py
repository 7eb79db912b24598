"""Post-training quantization: calibrators, and the scales they find."""

from __future__ import annotations

from trtcompile.ptq.algorithms import CalibrationAlgo
from trtcompile.ptq.analysis import Analysis, BudgetSearch, analyze, within_budget
from trtcompile.ptq.calibrators import CacheCalibrator, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.native_cache import CacheReport
from trtcompile.ptq.native_classes import (
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
)
from trtcompile.ptq.table import CalibrationTable

__all__ = [
    "Analysis",
    "BudgetSearch",
    "CacheCalibrator",
    "CacheReport",
    "CalibrationAlgo",
    "CalibrationTable",
    "Calibrator",
    "DataLoaderCalibrator",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "analyze",
    "within_budget",
]
