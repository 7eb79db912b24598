"""Which samples are kept: the same ones in whatever order and parts they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq import input_sample
from trtcompile.ptq.batches import fit_batches
from trtcompile.ptq.input_sample import MOST_SAMPLES, InputSample

ROWS = torch.randn(60, 3, 5, generator=torch.Generator().manual_seed(0))


def kept(batches: Sequence[Any], inputs: Sequence[Any]) -> InputSample:
    sample = InputSample()
    for batch in fit_batches(batches, parse_inputs(inputs), torch.device("cpu")):
        sample.update(batch, sample.keys_of(batch).tolist())
    return sample


def same(a: InputSample, b: InputSample) -> bool:
    return list(a.rows) == list(b.rows) and all(
        torch.equal(x, y)
        for first, second in zip(a.rows.values(), b.rows.values(), strict=True)
        for x, y in zip(first, second, strict=True)
    )


@given(st.permutations(range(60)), st.integers(1, 9), st.integers(1, 7), st.integers(0, 60))
def test_order_parts_and_batch_sizes_do_not_matter(
    order: list[int], loader_batch: int, model_batch: int, cut: int
) -> None:
    rows = ROWS[order]
    inputs = [Input((model_batch, 3, 5))]
    expected = kept([ROWS], [Input((60, 3, 5))])
    assert same(kept(rows.split(loader_batch), inputs), expected)
    parts = [kept([part], inputs) for part in (rows[:cut], rows[cut:])]
    assert same(parts[0].merged(parts[1]), expected)
    assert same(parts[1].merged(parts[0]), expected)


def test_there_are_few_and_all_are_of_the_data() -> None:
    rows = [row for (row,) in kept([ROWS], [Input((4, 3, 5))]).rows.values()]
    assert len(rows) == MOST_SAMPLES
    places = [(row == ROWS).all(dim=(1, 2)).nonzero().tolist() for row in rows]
    assert all(len(place) == 1 for place in places)
    assert len({place[0][0] for place in places}) == MOST_SAMPLES
    assert places != sorted(places)  # not the first ones


def test_choices_are_spread_over_the_data() -> None:
    """Of data with a trend, samples are as good as random."""
    trend = torch.arange(6000.0).reshape(-1, 1)
    chosen = torch.cat([row for (row,) in kept([trend], [Input((100, 1))]).rows.values()])
    assert 1500 < chosen.mean() < 4500
    assert (chosen < 3000).sum() >= 3 and (chosen >= 3000).sum() >= 3


def test_what_is_there_twice_is_kept_once() -> None:
    assert len(kept([ROWS[:2], ROWS[:2]], [Input((2, 3, 5))]).rows) == 2


@pytest.mark.parametrize("limit", [1, 200, 700])
def test_large_samples_are_fewer(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(kept([ROWS], [Input((4, 3, 5))]).rows)
    monkeypatch.setattr(input_sample, "MOST_BYTES", limit)
    few = kept([ROWS], [Input((4, 3, 5))])
    assert list(few.rows) == whole[: max(1, limit // 60)]
    assert same(kept(ROWS.flip(0).split(7), [Input((2, 3, 5))]), few)
    parts = [kept([part], [Input((3, 3, 5))]) for part in ROWS.split(20)]
    assert same(parts[2].merged(parts[0]).merged(parts[1]), few)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.float16, torch.int32, torch.int64, torch.float64]
)
def test_any_dtype(dtype: torch.dtype) -> None:
    rows = (torch.arange(40).reshape(-1, 1) >> torch.arange(6)) % 2
    sample = kept([rows.to(dtype)], [Input((4, 6), dtype=dtype)])
    assert len(sample.rows) == MOST_SAMPLES
    assert all(row.dtype == dtype and row.shape == (1, 6) for (row,) in sample.rows.values())


def test_inputs_of_the_whole_batch_come_with_each_sample() -> None:
    shared = torch.arange(3.0)
    sample = kept([(ROWS[:4], shared), (ROWS[:4], shared + 1)], [Input((4, 3, 5)), Input((3,))])
    assert len(sample.rows) == 8
    assert {tuple(other.tolist()) for _, other in sample.rows.values()} == {(0, 1, 2), (1, 2, 3)}


def test_samples_do_not_hold_the_batch() -> None:
    batch = ROWS.clone()
    sample = kept([batch], [Input((60, 3, 5))])
    before = [row.clone() for (row,) in sample.rows.values()]
    batch.zero_()
    now: list[Tensor] = [row for (row,) in sample.rows.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    assert all(row.untyped_storage().nbytes() == row.nbytes for row in now)
