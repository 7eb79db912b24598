"""PyTorch's default device, which a caller may have changed, while a graph is worked on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tensors_on_cpu() -> Iterator[None]:
    """Makes the CPU the default device again, where graphs keep their constants.

    After ``torch.set_default_device("cuda")``, or under ``with torch.device("cuda")``, tensors are made on the GPU
    where code names no device. Not for capturing: the model makes its tensors where it always does.
    """
    if torch.get_default_device().type == "cpu":
        yield
        return
    with torch.device("cpu"):
        yield
