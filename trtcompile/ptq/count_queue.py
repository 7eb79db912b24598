"""``CountQueue``: keeps tensors on a CUDA device until there are enough to count together."""

from __future__ import annotations

import torch
from torch import Tensor

from trtcompile.ptq.histogram import AbsHistogram, count_together, dense_values

_MOST_TENSORS = 256
_LEAST_BYTES = 1 << 26
_SHARE_OF_MEMORY = 64


def waiting_bytes(device: torch.device) -> int:
    """How much may wait on a CUDA device: a 64th of its memory.

    Each group costs the host a quarter of a millisecond, as long as a convolution or two, and large
    groups are few.
    """
    return max(
        _LEAST_BYTES, torch.cuda.get_device_properties(device).total_memory // _SHARE_OF_MEMORY
    )


class CountQueue:
    """Tensors that wait to be counted. They must not change until then.

    ``observer_of`` gives what takes a histogram's place while values are shown; ``flush`` counts
    what is left.

    Args:
        most_bytes: when so much waits, it is counted.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waiting: dict[QueuedHistogram, Tensor] = {}
        self._bytes = 0

    def observer_of(self, histogram: AbsHistogram) -> QueuedHistogram:
        """An observer whose values end up in a histogram."""
        return QueuedHistogram(self, histogram)

    def add(self, observer: QueuedHistogram, values: Tensor) -> None:
        """Takes a tensor of a histogram's device.

        Raises:
            CalibrationError: the tensor is complex.
        """
        dense = dense_values(values)
        if dense.numel() == 0:
            return
        if observer in self._waiting:  # the kernels take each histogram once
            self.flush()
        self._waiting[observer] = dense
        self._bytes += dense.nbytes
        if self._bytes >= self._most_bytes or len(self._waiting) >= _MOST_TENSORS:
            self.flush()

    def flush(self) -> None:
        """Counts what waits; does not wait for the device."""
        if self._waiting:
            count_together([(seen.histogram, dense) for seen, dense in self._waiting.items()])
        self._waiting.clear()
        self._bytes = 0


class QueuedHistogram:
    """Observes a tensor, and counts its values when the queue is counted.

    Attributes:
        histogram: the counts, complete after ``flush``.
    """

    def __init__(self, queue: CountQueue, histogram: AbsHistogram) -> None:
        self._queue = queue
        self.histogram = histogram

    def update(self, values: Tensor) -> None:
        """Takes a tensor of any shape, strides, and real dtype.

        Raises:
            CalibrationError: the tensor is complex.
        """
        if values.device == self.histogram.device:
            self._queue.add(self, values)
        else:
            self.histogram.update(values)

    @property
    def finite(self) -> Tensor:
        """Whether no NaN or infinity was seen: a bool scalar on the device, known without waiting for it."""
        self._queue.flush()
        return self.histogram.finite

    def check_finite(self) -> None:
        """Waits for the device and raises if NaN or infinity was seen.

        Raises:
            CalibrationError: NaN or infinity was seen.
        """
        self._queue.flush()
        self.histogram.check_finite()
