"""``CacheReport``: which tensor got which entry of a calibration cache, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorMatch:
    """A tensor that has a scale.

    Attributes:
        tensor: its name in calibration tables of trtcompile.
        module: path of the module that computes it; empty if unknown.
        entry: the name in the cache whose scale it gets.
        scale: that scale.
        how: what says that they belong together.
    """

    tensor: str
    module: str
    entry: str
    scale: float
    how: str


@dataclass(frozen=True)
class CacheReport:
    """How a cache that TensorRT wrote was matched with a model; ``print(report)`` gives a table.

    Attributes:
        source: names the cache.
        matched: the tensors that have a scale, in the order of the graph.
        missing: tensor that has none -> why.
        unused: names in the cache whose scales nothing needs, in its order.
        notes: what else is worth knowing, a sentence each.
    """

    source: str
    matched: tuple[TensorMatch, ...]
    missing: Mapping[str, str]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every tensor has a scale."""
        return not self.missing

    @property
    def names(self) -> dict[str, str]:
        """Tensor -> name in the cache, as ``CacheCalibrator(names=...)`` takes it."""
        return {match.tensor: match.entry for match in self.matched}

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        lines = [f"{self.source}: {len(self.matched)} of {total} tensors have a scale"]
        if self.matched:
            header = ("tensor", "module", "scale", "name in the cache", "found")
            rows = [(m.tensor, m.module, f"{m.scale:.6g}", m.entry, m.how) for m in self.matched]
            lines += ["", *_table([header, *rows])]
        if self.missing:
            lines += ["", f"missing ({len(self.missing)}):"]
            lines += [f"  {tensor}: {reason}" for tensor, reason in self.missing.items()]
        if self.unused:
            lines += ["", f"in the cache, but not needed ({len(self.unused)}):"]
            lines += [f"  {name}" for name in self.unused]
        if self.notes:
            lines += ["", "notes:", *(f"  {note}" for note in self.notes)]
        return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
