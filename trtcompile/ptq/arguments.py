"""Checks of arguments that calibrators, the analysis, and the search share; they are made before any work is done."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.utils.data import Dataset

from trtcompile.errors import CalibrationError, CalibrationWarning, SettingsError


def check_dataloader(dataloader: object, name: str = "dataloader") -> None:
    """Checks that something can be iterated several times and may yield batches.

    Args:
        dataloader: what was given.
        name: the argument's name.

    Raises:
        SettingsError: it cannot.
    """
    kind = type(dataloader).__name__
    if isinstance(dataloader, Dataset):
        problem = (
            "a Dataset. Wrap it in a loader: torch.utils.data.DataLoader(dataset, batch_size=64)"
        )
    elif isinstance(dataloader, Iterator):
        problem = "an iterator, which can be used only once. Give the DataLoader itself, or a list"
    elif isinstance(dataloader, (str, bytes, Mapping)) or not (
        hasattr(dataloader, "__iter__") or hasattr(dataloader, "__getitem__")
    ):
        problem = (
            "which yields no batches. Give a torch.utils.data.DataLoader, or a list of batches"
        )
    else:
        return
    raise SettingsError(f"{name} is a {kind}, {problem}.")


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


def as_path(value: object, name: str = "cache_file") -> Path:
    """The path of a file.

    Raises:
        SettingsError: it is none.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise SettingsError(f"{name} is {value!r}. Give the path of a file.")
    return Path(text)


def as_names(value: object) -> dict[str, str]:
    """A dictionary of names; None is an empty one.

    Raises:
        SettingsError: it is something else.
    """
    names = {} if value is None else value
    if not isinstance(names, Mapping) or not all(
        isinstance(text, str) for pair in names.items() for text in pair
    ):
        raise SettingsError(
            f"names is {value!r}. Give a dictionary such as {{'relu_3': '/layer1/relu/Relu_output_0'}}, or None."
        )
    return dict(names)


def as_device(value: object) -> torch.device | None:
    """Reads a device, its name, or None.

    Raises:
        SettingsError: it names no device where a graph can be calibrated.
    """
    if value is None or isinstance(value, torch.device):
        device = value
    else:
        try:
            device = torch.device(value)  # type: ignore[call-overload]
        except (RuntimeError, TypeError) as error:
            raise SettingsError(
                f"device is {value!r}, which names no device. Use 'cuda:0', 'cpu', or None."
            ) from error
    if device is not None and device.type not in ("cpu", "cuda"):
        raise SettingsError(
            f"device is {str(device)!r}, where calibration does not run. Use 'cuda:0', 'cpu', or "
            "None."
        )
    return device


def usable_device(wanted: torch.device | None, default: torch.device) -> torch.device:
    """The device to calibrate on, and a warning where it is not the one that was asked for."""
    device = default if wanted is None else wanted
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        if wanted is not None:
            warnings.warn(
                f"The calibrator's device is {str(wanted)!r}, but this machine has no usable CUDA "
                "device: calibrating on 'cpu'. Pass device=None to calibrate where it is possible.",
                CalibrationWarning,
                stacklevel=3,
            )
        return torch.device("cpu")
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise CalibrationError(
            f"The calibrator's device is {str(device)!r}, but this machine has {count} CUDA "
            f"devices. Use 'cuda:0'{f' to cuda:{count - 1}' if count > 1 else ''}, or None."
        )
    return torch.device("cuda", index)


def device_of(device: torch.device | str | None) -> torch.device:
    """Where to run: what was asked for if it is there.

    Raises:
        SettingsError: it is no device.
        CalibrationError: this machine has no GPU of that number.
    """
    return usable_device(as_device(device), torch.device("cuda"))
