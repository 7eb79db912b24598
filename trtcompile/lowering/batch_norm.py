"""What a batch norm computes in inference, for the passes that rewrite it."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import constant_of

#: Kept whole in capture, for the passes on it.
BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


@dataclass(frozen=True)
class BatchNorm:
    """``(x - mean) * scale + beta`` for each channel, in FP64.

    Attributes:
        scale: ``weight / sqrt(var + eps)``.
        mean: the running mean.
        beta: the norm's bias; None for zero.
    """

    scale: torch.Tensor
    mean: torch.Tensor
    beta: torch.Tensor | None

    def shift(self, bias: torch.Tensor | None = None) -> torch.Tensor:
        """What is added to ``x * scale`` if ``x`` lacks a bias."""
        shift = -self.mean if bias is None else bias.double() - self.mean
        shift = shift * self.scale
        return shift if self.beta is None else shift + self.beta


def read_batch_norm(graph_module: GraphModule, node: Node) -> BatchNorm | None:
    """The constants of a batch norm; None if it is none, computes statistics, or has a second result that is read."""
    if node.op != "call_function" or node.target is not BATCH_NORM:
        return None
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return None
    gamma, beta, mean, var = (constant_of(graph_module, a) for a in node.args[1:5])
    if mean is None or var is None:
        return None
    if any(a is not None and c is None for a, c in zip(node.args[1:3], (gamma, beta), strict=True)):
        return None
    scale = torch.rsqrt(var.double() + float(node.args[6]))  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * gamma.double()
    return BatchNorm(scale, mean.double(), None if beta is None else beta.double())


def replace_batch_norm(node: Node, by: Node) -> None:
    """Lets what read the norm's result read another node, and drops the norm."""
    for user in list(node.users):
        user.replace_all_uses_with(by)
        node.graph.erase_node(user)
    node.graph.erase_node(node)
