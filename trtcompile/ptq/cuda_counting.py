"""Counts the values of many tensors on a CUDA device in three launches: drives ``count_values.cu``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trtcompile.ptq.nvrtc import NvrtcError, compiled

SOURCE = Path(__file__).with_name("count_values.cu")

# As in the source.
_THREADS = 512
_CHUNK = 8192
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

_BLOCKS_PER_MULTIPROCESSOR = 3  # as many as run at a time


class Counted(NamedTuple):
    """A tensor, and the state of the histogram that counts it, which the kernels change.

    Attributes:
        values: of any shape, in memory without gaps, of any real dtype; at least one value.
        counts: int64 ``[2048]``.
        exponent: int32 scalar; the range is ``[0, 2**exponent)``.
        peak: float32 scalar; the largest absolute value.
        finite: bool scalar.
    """

    values: Tensor
    counts: Tensor
    exponent: Tensor
    peak: Tensor
    finite: Tensor


def readable(counted: Counted) -> Counted:
    """The same, its values of a dtype that the kernels read."""
    if counted.values.dtype in _TYPES:
        return counted
    return counted._replace(values=counted.values.float())


def table_of(group: Sequence[Counted]) -> tuple[list[list[int]], int]:
    """The kernels' table, a row for each tensor as ``Counted`` in the source, and the number of chunks."""
    rows = []
    chunks = 0
    for values, counts, exponent, peak, finite in group:
        state = [tensor.data_ptr() for tensor in (counts, exponent, peak, finite)]
        size = values.numel()
        rows.append([values.data_ptr(), size, _TYPES[values.dtype], chunks, *state, 0])
        chunks += -(-size // _CHUNK)
    return rows, chunks


class CountingKernels:
    """The kernels, loaded on one device.

    Args:
        device: the CUDA device.

    Raises:
        NvrtcError: they cannot be compiled or loaded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        properties = torch.cuda.get_device_properties(device)
        self._blocks = properties.multi_processor_count * _BLOCKS_PER_MULTIPROCESSOR
        architecture = f"sm_{properties.major}{properties.minor}"
        code = compiled(SOURCE.read_text(encoding="utf-8"), SOURCE.name, architecture)
        self._count, self._grow = _loaded(code, ("count_values", "grow_ranges"), device)

    def count(self, group: Sequence[Counted]) -> None:
        """Adds the values of each tensor to its histogram; does not wait for the device.

        Args:
            group: at least one; no histogram twice; all on the device.
        """
        group = [readable(counted) for counted in group]
        rows, chunks = table_of(group)
        with torch.cuda.device(self._device):
            # From pinned memory, which PyTorch gives to nobody else until the copy is done.
            pinned = torch.tensor(rows, dtype=torch.int64, pin_memory=True)
            table = pinned.to(self._device, non_blocking=True)
            grid, block = (min(chunks, self._blocks), 1, 1), (_THREADS, 1, 1)
            self._count(grid=grid, block=block, args=[table, len(rows), chunks, 0])
            self._grow(grid=(len(rows), 1, 1), block=block, args=[table])
            self._count(grid=grid, block=block, args=[table, len(rows), chunks, 1])


def _loaded(code: bytes, names: tuple[str, ...], device: torch.device) -> list[Any]:
    try:
        from torch.cuda._utils import _cuda_load_module

        with torch.cuda.device(device):
            torch.zeros(1, device=device)  # so that the device has a context on this thread
            kernels: Any = _cuda_load_module(code, list(names))
    except (ImportError, RuntimeError) as error:
        raise NvrtcError(f"{SOURCE.name} cannot be loaded: {error}") from error
    return [kernels[name] for name in names]


def kernels_on(device: torch.device) -> CountingKernels | NvrtcError:
    """The kernels for a CUDA device, or why there are none; compiled once."""
    return _kernels_on(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _kernels_on(index: int) -> CountingKernels | NvrtcError:
    if torch.version.hip:
        return NvrtcError("the device is not NVIDIA's")
    try:
        return CountingKernels(torch.device("cuda", index))
    except NvrtcError as error:
        return error
