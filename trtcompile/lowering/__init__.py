"""Lowering: an ordered pipeline of small passes that bring a captured graph into the form TensorRT likes."""

from trtcompile.lowering.pipeline import KEPT_WHOLE, PIPELINE, lower, lowering_pass, run_pass

__all__ = ["KEPT_WHOLE", "PIPELINE", "lower", "lowering_pass", "run_pass"]
