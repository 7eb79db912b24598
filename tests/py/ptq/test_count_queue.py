"""Which tensors are counted together, and when; the counting itself is the CPU's here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from trtcompile.errors import CalibrationError
from trtcompile.ptq import count_queue
from trtcompile.ptq.count_queue import CountQueue
from trtcompile.ptq.histogram import AbsHistogram

Groups = list[list[int]]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """The sizes of the tensors that were counted together."""
    seen: Groups = []

    def count(shown: Sequence[tuple[AbsHistogram, Tensor]]) -> None:
        histograms = [id(histogram) for histogram, _ in shown]
        assert len(set(histograms)) == len(histograms)
        seen.append([values.numel() for _, values in shown])
        for histogram, values in shown:
            histogram.update(values)

    monkeypatch.setattr(count_queue, "count_together", count)
    return seen


def test_tensors_wait_until_a_histogram_comes_again(groups: Groups) -> None:
    queue = CountQueue(1000)
    first, second = (queue.observer_of(AbsHistogram()) for _ in range(2))
    first.update(torch.ones(2))
    second.update(torch.ones(3, 3))
    assert groups == []
    second.update(torch.full((4,), 2.0))
    assert groups == [[2, 9]]
    queue.flush()
    queue.flush()
    assert groups == [[2, 9], [4]]
    assert (first.histogram.total, second.histogram.total) == (2, 13)


@pytest.mark.parametrize(("tensors", "most_bytes"), [(2, 1000), (256, 40)])
def test_much_does_not_wait(
    groups: Groups, tensors: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_queue, "_MOST_TENSORS", tensors)
    queue = CountQueue(most_bytes)
    for size in (5, 5, 0, 5):
        queue.observer_of(AbsHistogram()).update(torch.ones(size))
    assert groups == [[5, 5]]


def test_reading_counts_first(groups: Groups) -> None:
    queue = CountQueue(1000)
    observer = queue.observer_of(AbsHistogram())
    observer.update(torch.ones(3))
    assert bool(observer.finite)
    assert observer.histogram.total == 3
    observer.update(torch.ones(4))
    observer.check_finite()
    assert groups == [[3], [4]]


def test_complex_tensors_are_refused_at_once(groups: Groups) -> None:
    with pytest.raises(CalibrationError, match="complex64"):
        CountQueue(1000).observer_of(AbsHistogram()).update(torch.zeros(2, dtype=torch.complex64))
    assert groups == []
