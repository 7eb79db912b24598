"""What INT8 costs: analysis of each layer, and the search for the layers to keep in higher precision."""

from __future__ import annotations

from trtcompile.ptq.analysis.analyzer import analyze
from trtcompile.ptq.analysis.budget import BudgetSearch, BudgetTrial, within_budget
from trtcompile.ptq.analysis.findings import HistogramSummary, LayerRow, TensorRow
from trtcompile.ptq.analysis.result import Analysis

__all__ = [
    "Analysis",
    "BudgetSearch",
    "BudgetTrial",
    "HistogramSummary",
    "LayerRow",
    "TensorRow",
    "analyze",
    "within_budget",
]
