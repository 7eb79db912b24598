"""``LateReading``: reads a small tensor off a device without making the device wait."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LateReading:
    """A copy of a tensor on its way to the CPU, behind what the device was given before.

    Read it after giving the device more to do; then the device works while the CPU waits.

    Args:
        tensor: may change afterwards if it is on a CUDA device; elsewhere it must not.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._copy = tensor
        if tensor.is_cuda:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def tolist(self) -> Any:
        """The values, as ``Tensor.tolist`` gives them; waits until they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.tolist()
