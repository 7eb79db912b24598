"""Checks of arguments that the analysis and the search share; all are made before any work is done."""

from __future__ import annotations

import torch

from trtcompile.errors import SettingsError
from trtcompile.ptq.calibrators import as_device, usable_device


def device_of(device: torch.device | str | None) -> torch.device:
    """Where to run: what was asked for if it is there.

    Raises:
        SettingsError: it is no device.
        CalibrationError: this machine has no GPU of that number.
    """
    return usable_device(as_device(device), torch.device("cuda"))


def check_bool(name: str, value: object) -> None:
    """Refuses anything but True and False.

    Raises:
        SettingsError: it is something else.
    """
    if not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}, not a bool. Use True or False.")


def check_max_batches(value: object) -> None:
    """Refuses what is no number of batches.

    Raises:
        SettingsError: it is none.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise SettingsError(
            f"max_batches is {value!r}. Use a whole number of at least 1, or None for all."
        )
