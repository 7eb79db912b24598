"""``PinnedUpload``: copies tensors from the CPU to a CUDA device through pinned memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_PIECES = 2
_PIECE_BYTES = 1 << 24
_LEAST_BYTES = 1 << 16  # what is smaller the driver takes along with the command to copy it


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)


class PinnedUpload:
    """Copies tensors from the CPU, a piece at a time: the device reads one while the host fills the next.

    From ordinary memory, the driver does the same for each tensor alone, and the host waits for the
    end of each.

    Args:
        device: where the copies go.
        piece_bytes: size of a piece.
        allocate: makes one, uint8 of that size.
    """

    def __init__(
        self,
        device: torch.device,
        piece_bytes: int = _PIECE_BYTES,
        allocate: Callable[[int], Tensor] = _pinned,
    ) -> None:
        self._device = device
        self._piece_bytes = piece_bytes
        self._allocate = allocate
        self._pieces: list[Tensor] = []
        self._read: dict[int, torch.cuda.Event] = {}  # when the device has read a piece
        self._piece = -1
        self._filled = piece_bytes

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy on the device, complete when the device's stream gets there; the tensor may change at once."""
        tensor = tensor.detach()
        if tensor.nbytes < _LEAST_BYTES or tensor.is_complex() or not tensor.is_contiguous():
            return tensor.to(self._device, non_blocking=True)
        copied = torch.empty_like(tensor, device=self._device)
        source, target = _bytes_of(tensor), _bytes_of(copied)
        start = 0
        while start < len(source):
            if self._filled == self._piece_bytes:
                self._next_piece()
            count = min(self._piece_bytes - self._filled, len(source) - start)
            part = self._pieces[self._piece][self._filled : self._filled + count]
            part.copy_(source[start : start + count])
            target[start : start + count].copy_(part, non_blocking=True)
            self._filled += count
            start += count
        return copied

    def _next_piece(self) -> None:
        if self._device.type == "cuda" and self._piece >= 0:
            self._read[self._piece] = torch.cuda.Event()
            self._read[self._piece].record(torch.cuda.current_stream(self._device))
        self._piece = (self._piece + 1) % _PIECES
        self._filled = 0
        if self._piece == len(self._pieces):
            self._pieces.append(self._allocate(self._piece_bytes))
        elif self._piece in self._read:
            self._read[self._piece].synchronize()


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
