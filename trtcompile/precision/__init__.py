"""Which operator computes in which floating-point type."""

from trtcompile.precision.assign import assign_fp16

__all__ = ["assign_fp16"]
