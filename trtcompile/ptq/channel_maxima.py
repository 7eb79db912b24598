"""The largest absolute value of each channel, for smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trtcompile.errors import CalibrationError


class ChannelMaxima:
    """Observes the largest absolute value of each channel, the channels being the last dimension.

    Args:
        device: where the values are.
    """

    def __init__(self, device: torch.device) -> None:
        self._largest: Tensor | None = None
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def update(self, values: Tensor) -> None:
        """Takes values ``[..., C]`` of a real dtype; no rows leave the maxima as they are."""
        rows = values.detach().abs().float().reshape(-1, values.shape[-1])
        if len(rows):
            largest = rows.amax(dim=0)
            known = self._largest
            self._largest = largest if known is None else torch.maximum(known, largest)
            self._finite &= torch.isfinite(largest).all()

    @property
    def finite(self) -> Tensor:
        """Whether no NaN or infinity was seen: a bool scalar on the device."""
        return self._finite

    def check_finite(self) -> None:
        """Waits for the device and raises if NaN or infinity was seen.

        Raises:
            CalibrationError: NaN or infinity was seen.
        """
        if not self._finite:
            raise CalibrationError("it holds NaN or infinity. Check the data and the model.")

    @property
    def largest(self) -> Tensor:
        """The maxima: float32 ``[C]`` on the CPU.

        Raises:
            CalibrationError: no row was seen.
        """
        if self._largest is None:
            raise CalibrationError("it had no rows. Give calibration data with rows.")
        return self._largest.cpu()


@dataclass(frozen=True, eq=False)
class Maxima:
    """The channels' maxima of several tensors; those of several processes can be merged.

    Attributes:
        largest: tensor name -> float32 ``[C]`` on the CPU.
    """

    largest: Mapping[str, Tensor]

    def merged(self, other: Maxima) -> Maxima:
        """The maxima over both data sets."""
        return Maxima(
            {name: torch.maximum(mine, other.largest[name]) for name, mine in self.largest.items()}
        )
