"""Partitions functions of tensors, and runs the result with the oracle in the engines' places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from checks import OracleSession, capture_for_test, operators
from torch import Tensor, nn
from torch.fx import GraphModule

from trtcompile.compiler import prepare, split, warn_of_precision
from trtcompile.conversion import convert
from trtcompile.partition import PartitionedGraph, PartitionReport
from trtcompile.settings import CompileSpec


class _OracleEngine(nn.Module):
    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__()
        self._session = OracleSession(convert(graph_module))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._session.run(inputs)


@dataclass(frozen=True)
class Parts:
    """A partitioned model.

    Attributes:
        engines: the operators of each engine.
        torch: the operators that PyTorch runs.
        reasons: operator that PyTorch runs -> why.
    """

    engines: list[list[str]]
    torch: list[str]
    reasons: dict[str, str]
    partitioned: PartitionedGraph
    report: PartitionReport
    lowered: GraphModule

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The flat outputs, engines run by the oracle."""
        executor = GraphModule(self.partitioned.executor, self.partitioned.executor.graph)
        for engine in self.partitioned.engines:
            setattr(executor, engine.name, _OracleEngine(engine.graph_module))
        with torch.no_grad():
            return tuple(executor(*inputs))


def parts(
    model: nn.Module | Callable[..., Any], inputs: Sequence[Any], *excluded: str, **options: Any
) -> Parts:
    """Partitions a model; ``excluded`` names ATen operators that PyTorch is to run."""
    settings = {"min_block_size": 1, **options}
    spec = CompileSpec(torch_executed_ops={f"aten.{name}" for name in excluded}, **settings)
    captured = capture_for_test(model, inputs)
    _, quantization = prepare(captured, spec)
    partitioned, report = split(captured, spec, quantization)
    warn_of_precision(report, spec)
    names = [str(name) for name in operators(partitioned.executor)]
    return Parts(
        engines=[_short(operators(engine.graph_module)) for engine in partitioned.engines],
        torch=_short(name for name in names if "getitem" not in name),
        reasons={
            _short([str(node.target)])[0]: reason
            for node, reason in partitioned.verdicts.items()
            if reason is not None
        },
        partitioned=partitioned,
        report=report,
        lowered=captured.graph_module,
    )


def _short(names: Any) -> list[str]:
    """``relu`` for ``aten.relu.default``."""
    return [name.split(".")[1] if name.count(".") == 2 else name for name in names]


def assert_runs_as(parts: Parts, model: Any, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    """Checks the parts together against eager PyTorch."""
    with torch.no_grad():
        expected = model(*(t.clone() for t in inputs))
    flat = torch.utils._pytree.tree_leaves(expected)
    actual = parts.run(*inputs)
    assert len(actual) == len(flat)
    for a, e in zip(actual, flat, strict=True):
        assert a.dtype == e.dtype
        torch.testing.assert_close(a, e, rtol=tolerance, atol=tolerance)


def vector(seed: int = 0, size: int = 6) -> Tensor:
    return torch.randn(2, size, generator=torch.Generator().manual_seed(seed))
