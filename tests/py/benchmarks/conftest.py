"""Lets the tests import the modules of ``benchmarks/``, which are scripts and no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

# coverage.py has the name of a package that others look for, so it is imported under another one.
_SPEC = importlib.util.spec_from_file_location("model_coverage", BENCHMARKS / "coverage.py")
assert _SPEC is not None and _SPEC.loader is not None
sys.modules["model_coverage"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["model_coverage"])
