"""Tells whether code waits for the GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """PyTorch raises where it waits for a CUDA device within this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that it does not find every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
