"""``PartitionReport``: where each operator runs, in which precision, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from trtcompile.node_info import layer_name, module_path, operator_name, source_line
from trtcompile.partition.grouping import is_work
from trtcompile.partition.precision_of import dtype_name, precision_of, weight_format
from trtcompile.partition.split import PartitionedGraph
from trtcompile.products import multiply_adds
from trtcompile.ptq.placement import Placement


@dataclass(frozen=True)
class NodeRow:
    """One operator of the lowered graph.

    Attributes:
        name: tensor name, which is also the name of its layers.
        operator: ``aten.relu.default`` and the like.
        module: path of the module it was traced from, if known.
        engine: the engine that runs it, or None for PyTorch.
        reason: why PyTorch runs it, or None.
        precision: ``INT8``, ``FP8``, ``FP16``, ``FP32``, or another dtype's name.
        multiply_adds: its multiply-add operations at the opt shape; 0 for anything but convolutions and products.
        source: the user's source line.
        weights: ``INT8`` or ``INT4`` if the weight alone is kept in that type, or None.
    """

    name: str
    operator: str
    module: str
    engine: str | None
    reason: str | None
    precision: str
    multiply_adds: int
    source: str
    weights: str | None = None


@dataclass(frozen=True)
class PlacementRow:
    """What a placement rule said of one operator; ``docs/placement.md`` has the rules.

    Attributes:
        operator: tensor name of the operator that reads a value in INT8, or was left out of INT8.
        value: tensor name of the value that it reads through Q/DQ; None where it was left out.
        rule: the name of the rule.
        reason: what the rule says of this operator.
    """

    operator: str
    value: str | None
    rule: str
    reason: str


@dataclass(frozen=True)
class PartitionReport:
    """Every operator with its verdict; ``print(report)`` gives a table.

    Attributes:
        rows: the operators, in the order of the lowered graph.
        placement: what was quantized and what was left out, by which rule; empty without INT8, and for a model that
            comes quantized.
    """

    rows: tuple[NodeRow, ...]
    placement: tuple[PlacementRow, ...] = ()

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of the engines."""
        return tuple(dict.fromkeys(row.engine for row in self.rows if row.engine is not None))

    @property
    def fallbacks(self) -> tuple[NodeRow, ...]:
        """The operators that PyTorch runs."""
        return tuple(row for row in self.rows if row.engine is None)

    @property
    def not_quantized(self) -> dict[str, str]:
        """The operators that a placement rule left out of quantization, by tensor name, and why."""
        return {row.operator: row.reason for row in self.placement if row.value is None}

    def multiply_add_share(self, precision: str) -> float:
        """The share, from 0 to 1, of all multiply-adds that run in ``precision``; 1 if there are none."""
        total = sum(row.multiply_adds for row in self.rows)
        matching = sum(row.multiply_adds for row in self.rows if row.precision == precision)
        return matching / total if total else 1.0

    def __str__(self) -> str:
        in_engines = len(self.rows) - len(self.fallbacks)
        lines = [f"{in_engines} of {len(self.rows)} operators in {len(self.engines)} engine(s)"]
        shares = {
            p: self.multiply_add_share(p) for p in dict.fromkeys(r.precision for r in self.rows)
        }
        spoken = ", ".join(f"{p} {share:.1%}" for p, share in shares.items() if share > 0)
        if any(row.multiply_adds for row in self.rows):
            lines.append(f"multiply-adds: {spoken}")
        kept = Counter(row.weights for row in self.rows if row.weights is not None)
        if kept:
            spoken = ", ".join(f"{name} in {count} operator(s)" for name, count in kept.items())
            lines.append(f"weights alone: {spoken}")
        lines += ["", *_table(self._grouped())]
        for title, is_left_out in (("read through Q/DQ:", False), ("not quantized:", True)):
            placed = [row for row in self.placement if (row.value is None) == is_left_out]
            if placed:
                lines += ["", title, *(f"  {line}" for line in _table(_by_rule(placed)))]
        return "\n".join(lines)

    def _grouped(self) -> list[tuple[str, ...]]:
        groups: dict[tuple[str, str, str], list[NodeRow]] = {}
        for row in self.rows:
            where = row.engine if row.engine is not None else f"PyTorch: {row.reason}"
            groups.setdefault((row.operator, row.precision, where), []).append(row)
        header = ("operator", "count", "precision", "runs in", "example", "source")
        body = [
            (op, str(len(rows)), precision, where, _example(rows[0]), rows[0].source)
            for (op, precision, where), rows in groups.items()
        ]
        return [header, *body]


def _by_rule(placed: Sequence[PlacementRow]) -> list[tuple[str, ...]]:
    groups: dict[str, list[PlacementRow]] = {}
    for row in placed:
        groups.setdefault(row.rule, []).append(row)
    body = [
        (rule, str(len(rows)), f"{rows[0].value or rows[0].operator}: {rows[0].reason}")
        for rule, rows in groups.items()
    ]
    return [("rule", "count", "example"), *body]


def _example(row: NodeRow) -> str:
    return f"{row.name} ({row.module})" if row.module else row.name


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def make_report(
    graph_module: GraphModule,
    partitioned: PartitionedGraph,
    placement: Placement | None = None,
) -> PartitionReport:
    """Reports on a partitioned graph.

    Args:
        graph_module: the lowered graph, Q/DQ included.
        partitioned: its partition.
        placement: where Q/DQ were placed, and where not; None where none were.
    """
    rows = [
        _row(node, partitioned)
        for node in graph_module.graph.nodes
        if node.op == "call_function" and is_work(node)
    ]
    return PartitionReport(tuple(rows), () if placement is None else _placement_rows(placement))


def _placement_rows(placement: Placement) -> tuple[PlacementRow, ...]:
    read = [
        PlacementRow(layer_name(reader), layer_name(value), decision.rule, decision.why)
        for value, readers in placement.readers.items()
        for reader, decision in readers.items()
    ]
    left_out = [
        PlacementRow(layer_name(node), None, decision.rule, decision.why)
        for node, decision in placement.skipped.items()
    ]
    return (*read, *left_out)


def _row(node: Node, partitioned: PartitionedGraph) -> NodeRow:
    engine = partitioned.engine_of.get(node)
    return NodeRow(
        name=layer_name(node),
        operator=operator_name(node),
        module=module_path(node),
        engine=engine,
        reason=partitioned.verdicts[node],
        # PyTorch runs what is between Q/DQ in floating point.
        precision=dtype_name(node) if engine is None else precision_of(node),
        multiply_adds=multiply_adds(node),
        source=source_line(node),
        weights=None if engine is None else weight_format(node),
    )
