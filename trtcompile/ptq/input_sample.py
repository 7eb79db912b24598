"""``InputSample``: a few samples of the calibration data, the same ones in whatever order they come.

A sample's *key* is a hash of its contents, and those with the smallest keys are kept (a "bottom-k
sketch"). So the choice is as good as random, needs a few samples' memory however long the data is,
and depends on the set of samples alone: not on their order, on batch sizes, or on how several
processes divide them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtcompile.ptq.batches import FittedBatch

MOST_SAMPLES = 16
MOST_BYTES = 1 << 26

_HASHED_WORDS = 4096  # of each tensor of a sample, evenly spaced
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# Odd constants of SplitMix64 (G. Steele et al., "Fast splittable pseudorandom number generators",
# 2014), as signed integers.
_STEP = -7046029254386353131
_MIX = -4658895280553007687


@dataclass
class InputSample:
    """The kept samples: at most ``MOST_SAMPLES`` with ``MOST_BYTES`` together, and at least one.

    Attributes:
        rows: key -> one sample: a tensor for each input, its batch dimension of size 1. In the
            order of the keys. Where the batches were, until ``move_to_cpu``.
        limit: the smallest key that was left out; None if none was. No key from it on gets in.
    """

    rows: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    limit: int | None = None

    def keys_of(self, batch: FittedBatch) -> Tensor:
        """The keys of a batch's own samples: int64 ``[valid]``, where the batch is."""
        keys: Tensor | None = None
        for tensor, batched in zip(batch.tensors, batch.batched, strict=True):
            rows = tensor[: batch.valid] if batched else tensor[None]
            hashed = _hashes(rows)
            keys = hashed if keys is None else keys * _STEP + hashed
        if keys is None:
            return torch.zeros(1, dtype=torch.int64)
        return keys.expand(batch.valid)

    def update(self, batch: FittedBatch, keys: Sequence[int]) -> None:
        """Takes the samples of a batch whose keys are among the smallest; copies stay where it is."""
        for key, row in sorted(zip(keys, range(batch.valid), strict=True)):
            if self.limit is not None and key >= self.limit:
                break
            if key not in self.rows:
                self.rows[key] = tuple(
                    (tensor[row : row + 1] if batched else tensor).detach().clone()
                    for tensor, batched in zip(batch.tensors, batch.batched, strict=True)
                )
                self._drop()

    def move_to_cpu(self) -> None:
        """Moves the kept samples to the CPU, which waits for the device."""
        for key, row in self.rows.items():
            self.rows[key] = tuple(tensor.cpu() for tensor in row)

    def merged(self, other: InputSample) -> InputSample:
        """The samples that would have been kept of both data sets together."""
        limits = [limit for limit in (self.limit, other.limit) if limit is not None]
        both = InputSample({**self.rows, **other.rows}, min(limits, default=None))
        both._drop()
        return both

    def _drop(self) -> None:
        kept: dict[int, tuple[Tensor, ...]] = {}
        size = 0
        for key in sorted(self.rows):
            size += sum(tensor.nbytes for tensor in self.rows[key])
            full = len(kept) == MOST_SAMPLES or (kept and size > MOST_BYTES)
            if full and (self.limit is None or key < self.limit):
                self.limit = key
            if self.limit is not None and key >= self.limit:
                break
            kept[key] = self.rows[key]
        self.rows = kept


def _hashes(rows: Tensor) -> Tensor:
    """A hash of the bits of each row: int64 ``[rows]``, by whole-number arithmetic modulo 2**64."""
    flat = rows.detach().reshape(rows.shape[0], -1)
    words = flat[:, :: -(-flat.shape[1] // _HASHED_WORDS) or 1].contiguous()
    words = torch.view_as_real(words).flatten(1) if words.is_complex() else words
    numbers = words.view(_WORDS[words.element_size()]).long()
    places = torch.arange(1, numbers.shape[1] + 1, device=rows.device) * _STEP
    mixed = (numbers ^ places) * _MIX
    return ((mixed ^ (mixed >> 29)) * (places | 1)).sum(dim=1)
