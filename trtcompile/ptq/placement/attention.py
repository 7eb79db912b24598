"""Products of two activations, as in attention."""

from __future__ import annotations

from torch.fx import Node

from trtcompile.ptq.placement.operators import ATTENTION, is_product, is_weighted
from trtcompile.ptq.placement.rule import LeavesOut, Situation


def _activations(node: Node, situation: Situation) -> str | None:
    if node.target is ATTENTION:
        return "it multiplies two activations"
    return "it multiplies two activations" if is_product(node) and not is_weighted(node) else None


ACTIVATIONS = LeavesOut(
    name="product of activations",
    matches="matrix products of two activations, scaled dot-product attention",
    reason="TensorRT computes attention in one FP16 kernel, which Q/DQ inside would split.",
    why=_activations,
)
