"""A loader's batches, each with the batches that a graph takes made of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import GraphModule

from trtcompile.errors import CalibrationError
from trtcompile.ptq.batches import FittedBatch, fit_batches
from trtcompile.ptq.collect import samples_of
from trtcompile.ptq.random_state import kept_random_state


class Simulated(Protocol):
    """What is analyzed: a compiled module, or the simulation of one."""

    @property
    def lowered(self) -> GraphModule:
        """The lowered graph, Q/DQ included."""
        ...

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The model's arguments with an ``Input`` for each tensor."""
        ...


@dataclass(frozen=True)
class LoaderBatch:
    """A batch as the loader gave it, and as the graph takes it.

    Attributes:
        index: its number, from 0.
        given: what the loader yielded, labels included.
        pieces: its samples in batches of the inputs' opt size, the last one filled up.
        samples: how many samples it has.
    """

    index: int
    given: Any
    pieces: tuple[FittedBatch, ...]
    samples: int

    def joined(self, outputs: Sequence[Sequence[Any]]) -> list[Any]:
        """The flat outputs of all samples, on the CPU.

        Args:
            outputs: those of each piece. Tensors whose dimension 0 is a multiple of the batch size are joined there;
                of others the first piece's stands for all.
        """
        leaves = []
        for values in zip(*outputs, strict=True):
            if all(map(_has_rows, values, self.pieces)):
                pairs = zip(self.pieces, values, strict=True)
                leaves.append(torch.cat([samples_of(value, piece).cpu() for piece, value in pairs]))
            else:
                leaves.append(values[0].cpu() if isinstance(values[0], Tensor) else values[0])
        return leaves


def loader_batches(
    loader: Iterable[Any],
    arguments: tuple[Any, ...],
    device: torch.device,
    max_batches: int | None = None,
) -> Iterator[LoaderBatch]:
    """Fits the batches of a loader to the inputs, one by one, so that each keeps its labels.

    The global random states are as before at the end.

    Args:
        loader: yields batches that ``fit_batches`` can fit.
        arguments: the parsed inputs.
        device: where the fitted tensors go.
        max_batches: stops after this many; None for all.

    Raises:
        CalibrationError: there are no samples, or they do not fit.
    """
    total = 0
    with kept_random_state():
        for index, given in enumerate(itertools.islice(loader, max_batches)):
            pieces = tuple(fit_batches([given], arguments, device, first=index))
            samples = sum(piece.valid for piece in pieces)
            total += samples
            if samples:
                yield LoaderBatch(index, given, pieces, samples)
    if not total:
        raise CalibrationError(
            "The data has no samples. Give a dataloader with at least one batch that has rows."
        )


def _has_rows(value: Any, piece: FittedBatch) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] % piece.batch_size == 0
