"""A progress bar for calibration."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any

_TITLE = "Calibrating"


def with_progress(
    loader: Iterable[Any], *, max_batches: int | None, show: bool | None
) -> Iterator[Any]:
    """Yields the first batches of a loader, and shows on stderr how many were taken.

    Args:
        loader: yields batches.
        max_batches: stops after this many; None for all.
        show: None shows progress only on a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield from _first(loader, max_batches)
        return
    total = batch_count(loader)
    if max_batches is not None:
        total = max_batches if total is None else min(total, max_batches)
    if importlib.util.find_spec("tqdm") is not None:
        tqdm = importlib.import_module("tqdm").tqdm  # optional, and without types
        yield from tqdm(_first(loader, max_batches), total=total, desc=_TITLE, unit="batch")
        return
    of_total = "" if total is None else f"/{total}"
    for done, batch in enumerate(_first(loader, max_batches), start=1):
        yield batch
        sys.stderr.write(f"\r{_TITLE}: {done}{of_total} batches")
        sys.stderr.flush()
    sys.stderr.write("\n")


def batch_count(loader: Iterable[Any]) -> int | None:
    """How many batches a loader has, or None if it cannot tell."""
    if not isinstance(loader, Sized):
        return None
    try:
        return len(loader)
    except Exception:  # noqa: BLE001 - a DataLoader over an IterableDataset, or a loader of the user's
        return None


def _first(loader: Iterable[Any], count: int | None) -> Iterator[Any]:
    return itertools.islice(loader, count)
