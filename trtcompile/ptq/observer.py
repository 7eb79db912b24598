"""``Observer``: what sees the values of one tensor while calibration data runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trtcompile.ptq.late_reading import LateReading


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


class FiniteCheck:
    """Whether observers were shown NaN or infinity until now, to be read later.

    Args:
        observers: on one device.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        finite = [observer.finite for observer in observers]
        self._finite = LateReading(torch.stack(finite)) if finite else None

    def first_bad(self) -> int | None:
        """The index of the first observer that was, or None; waits for what was shown until the check was made."""
        flags: list[bool] = [] if self._finite is None else self._finite.tolist()
        return None if all(flags) else flags.index(False)
