"""``Observer``: what sees the values of one tensor while calibration data runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Observer(Protocol):
    """Is shown the values of a tensor, batch by batch."""

    def update(self, values: Tensor) -> None:
        """Takes the values of one batch."""

    @property
    def finite(self) -> Tensor:
        """Whether no NaN or infinity was seen: a bool scalar on the device, known without waiting for it."""

    def check_finite(self) -> None:
        """Waits for the device and raises if NaN or infinity was seen.

        Raises:
            CalibrationError: NaN or infinity was seen.
        """


def find_nonfinite(observers: Sequence[Observer]) -> int | None:
    """The index of the first observer that was shown NaN or infinity, or None.

    Waits for the device once. The observers must be on one device.
    """
    if not observers:
        return None
    finite: list[bool] = torch.stack([observer.finite for observer in observers]).tolist()
    return None if all(finite) else finite.index(False)
