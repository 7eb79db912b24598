"""Calibration caches that TensorRT wrote: whose scales their entries are."""

from __future__ import annotations

from trtcompile.ptq.native_cache.matching import match_cache
from trtcompile.ptq.native_cache.report import CacheReport, TensorMatch

__all__ = ["CacheReport", "TensorMatch", "match_cache"]
