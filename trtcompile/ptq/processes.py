"""Calibration by several processes of ``torch.distributed``, each with its part of the data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trtcompile.errors import CalibrationError
from trtcompile.ptq.channel_maxima import Maxima
from trtcompile.ptq.collect import NoSamplesError, Statistics

T = TypeVar("T")
#: How often a process that waits for the others looks whether they have come, in seconds: Ctrl-C ends its waiting.
_LOOKS = 0.005
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


def check_agreed(graph_hash: str, settings: Mapping[str, object]) -> None:
    """Checks that all processes calibrate the same model in the same way, as they merge what they find out.

    Args:
        graph_hash: identifies the model, weights included.
        settings: what the calibrator was told, by name.

    Raises:
        CalibrationError: they do not; in all of them.
    """
    shared: list[Any] = [None] * dist.get_world_size()
    with _talking():
        dist.all_gather_object(shared, (graph_hash, dict(settings)))
    (first_hash, first), *others = shared
    for rank, (theirs_hash, theirs) in enumerate(others, start=1):
        if theirs_hash != first_hash:
            raise CalibrationError(
                f"The model of process {rank} differs from that of process 0, in its graph or its weights. Load the "
                "same weights in every process, those of batch norms included."
            )
        for name, value in theirs.items():
            if value != first[name]:
                raise CalibrationError(
                    f"{name} is {value} in process {rank}, and {first[name]} in process 0. Make the calibrator alike "
                    "in every process."
                )


def of_the_first(value: Any) -> Any:
    """What the first process has, such as whether a file exists: all must take the same way."""
    values = [value]
    with _talking():
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
        CalibrationError: it failed or was interrupted in the first process, which raises its own
            error: all of them raise, so that none waits for ever.
    """
    made: T | str | None = None
    problem: BaseException | None = None
    if is_the_first():
        try:
            made = make()
        except BaseException as error:  # noqa: BLE001 - raised below, when the others know
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

    Counts are whole numbers, so the result does not depend on how the data was divided; a process
    may have none of it.

    Args:
        collect: runs this process's part of the data.

    Raises:
        CalibrationError: it failed or was interrupted in another process: all of them raise, so
            that none waits for ever, and can calibrate again. In the process where it failed,
            whatever it raised, such as the loader's own error. Or no process has data, or one has
            gone.
    """
    own: Found | None = None
    empty: NoSamplesError | None = None
    problem: Exception | None = None
    try:
        own = collect()
    except NoSamplesError as error:
        empty = error
    except Exception as error:  # noqa: BLE001 - raised below, when the others know
        problem = error
    except BaseException:
        _tell(interrupted=True)
        raise
    _wait_for_all()
    shared: list[Any] = [None] * dist.get_world_size()
    with _talking():
        dist.all_gather_object(shared, own if problem is None else _told(problem))
    if problem is not None:
        raise problem
    for rank, theirs in enumerate(shared):
        if isinstance(theirs, str):
            raise CalibrationError(f"Calibration failed in process {rank}: {theirs}")
    found: list[Found] = [theirs for theirs in shared if theirs is not None]
    if not found:
        assert empty is not None
        raise empty
    together = found[0]
    for theirs in found[1:]:
        together = together.merged(theirs)
    return together


def _tell(*, interrupted: bool) -> tuple[torch.Tensor, Any]:
    """Starts to tell all processes whether this one was interrupted; what they all tell is on its way in the tensor."""
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    told = torch.zeros(dist.get_world_size(), dtype=torch.int32, device=device)
    told[dist.get_rank()] = int(interrupted)
    with _talking():
        return told, dist.all_reduce(told, async_op=True)


def _wait_for_all() -> None:
    """Waits until all processes are done with their data, or interrupted.

    Raises:
        CalibrationError: a process was interrupted.
    """
    told, work = _tell(interrupted=False)
    with _talking():
        while not work.is_completed():
            time.sleep(_LOOKS)
        work.wait()
    interrupted = [str(rank) for rank, is_interrupted in enumerate(told.tolist()) if is_interrupted]
    if interrupted:
        raise CalibrationError(
            f"Calibration was interrupted in process {', '.join(interrupted)}. Calibrate again in all of them."
        )


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Raises what ``torch.distributed`` raises, such as when a process has gone, as this package's error."""
    try:
        yield
    except RuntimeError as error:
        raise CalibrationError(
            f"The processes of torch.distributed have lost each other: {error}. Start all of them again."
        ) from error


def _told(error: BaseException) -> str:
    """An error's message; with its type where that is not ours."""
    if isinstance(error, CalibrationError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
