"""Where Q/DQ go: which values are quantized, for which readers, and which of them share one scale.

The rules and their reasons are the table in ``table.py``, which ``docs/placement.md`` shows. They follow what TensorRT
fuses (its "Explicit Quantization" guide), and what was measured.
"""

from __future__ import annotations

from trtcompile.ptq.placement.decisions import Decision, Placement, WeightedOperator
from trtcompile.ptq.placement.depthwise import lacks_quantized_result
from trtcompile.ptq.placement.placing import place

__all__ = ["Decision", "Placement", "WeightedOperator", "lacks_quantized_result", "place"]
