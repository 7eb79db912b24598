"""Calibration by several processes of ``torch.distributed``, each with its part of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from trtcompile.errors import CalibrationError
from trtcompile.ptq.channel_maxima import Maxima
from trtcompile.ptq.collect import Statistics

T = TypeVar("T")
#: What a process finds out about its part of the data.
Found = TypeVar("Found", Statistics, Maxima)


def check_initialized() -> None:
    """Checks that there are processes to calibrate with.

    Raises:
        CalibrationError: ``torch.distributed`` has no default process group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise CalibrationError(
            "distributed is True, but torch.distributed has no process group. Call "
            "torch.distributed.init_process_group in every process first."
        )


def of_the_first(value: Any) -> Any:
    """What the first process has, such as whether a file exists: all must take the same way."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def is_the_first() -> bool:
    """Whether this process is the one that writes files."""
    return dist.get_rank() == 0


def made_by_the_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them.

    Args:
        make: only the first process calls it.

    Raises:
        CalibrationError: it failed in the first process, which raises its own error: all of them
            raise, so that none waits for ever.
    """
    made: T | str | None = None
    problem: Exception | None = None
    if is_the_first():
        try:
            made = make()
        except Exception as error:  # noqa: BLE001 - raised below, when the others know
            made, problem = _told(error), error
    made = of_the_first(made)
    if problem is not None:
        raise problem
    if isinstance(made, str):
        raise CalibrationError(f"Calibration failed in process 0: {made}")
    assert made is not None
    return made


def merged(collect: Callable[[], Found]) -> Found:
    """Collects in each process, and merges what all found out, which each then has.

    Counts are whole numbers, so the result does not depend on how the data was divided.

    Args:
        collect: runs this process's part of the data.

    Raises:
        CalibrationError: it failed in another process: all of them raise, so that none waits for
            ever. In the process where it failed, whatever it raised, such as the loader's own error.
    """
    own: Found | None = None
    problem: Exception | None = None
    try:
        own = collect()
    except Exception as error:  # noqa: BLE001 - raised below, when the others know
        problem = error
    shared: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shared, own if problem is None else _told(problem))
    if problem is not None:
        raise problem
    for rank, theirs in enumerate(shared):
        if isinstance(theirs, str):
            raise CalibrationError(f"Calibration failed in process {rank}: {theirs}")
    together: Found = shared[0]
    for theirs in shared[1:]:
        together = together.merged(theirs)
    return together


def _told(error: Exception) -> str:
    """An error's message; with its type where that is not ours."""
    return str(error) if isinstance(error, CalibrationError) else f"{type(error).__name__}: {error}"
