"""Small calibration requests, made by hand: no part of the compiler is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq.request import CalibrationRequest

IMAGE = (Input((1, 3, 32, 32)),)


class SmallNet(nn.Module):
    """Convolution (weights as attributes), activation, pooling, and a linear layer (a submodule)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator))
        self.linear = nn.Linear(4, 5)
        for parameter in self.linear.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        y = torch.relu(torch.nn.functional.conv2d(x, self.weight, padding=1))
        return (self.linear(y.mean((2, 3))),)


class Passthrough(nn.Module):
    """The values of the data themselves, so that what is counted is known exactly."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x * 1.0,)


def make_request(
    module: nn.Module,
    inputs: Any = IMAGE,
    *,
    observe: Sequence[str] | None = None,
    groups: Sequence[Sequence[str]] | None = None,
    fingerprint: str = "fingerprint",
) -> CalibrationRequest:
    """A request for a module whose arguments are tensors.

    Args:
        module: a graph, or a module to trace.
        inputs: the module's inputs.
        observe: names of nodes; None for all that compute something.
        groups: names that share a scale; None for one name each.
        fingerprint: start of every tensor's fingerprint.
    """
    graph = module if isinstance(module, GraphModule) else torch.fx.symbolic_trace(module)
    computed = [n for n in graph.graph.nodes if n.op not in ("output", "get_attr")]
    nodes = {n.name: n for n in computed if observe is None or n.name in observe}
    return CalibrationRequest(
        graph=graph,
        groups=tuple(map(tuple, groups)) if groups is not None else tuple((n,) for n in nodes),
        nodes=nodes,
        fingerprints={name: f"{fingerprint} of {name}" for name in nodes},
        graph_hash="graph",
        arguments=parse_inputs(inputs),
        device=torch.device("cpu"),
    )
