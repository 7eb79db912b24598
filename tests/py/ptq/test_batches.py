"""What a loader may yield, and how it meets the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq.batches import FittedBatch, fit_batches

CPU = torch.device("cpu")


def fitted(loader: Iterable[Any], *inputs: Any) -> list[FittedBatch]:
    return list(fit_batches(loader, parse_inputs(list(inputs)), CPU))


def valid_rows(batches: list[FittedBatch], position: int = 0) -> Tensor:
    return torch.cat([batch.tensors[position][: batch.valid] for batch in batches])


def numbered(count: int, *shape: int) -> Tensor:
    """Samples whose values are their numbers."""
    rows = torch.arange(count, dtype=torch.float32).reshape(-1, *(1 for _ in shape))
    return rows.expand(-1, *shape).clone()


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 6))
def test_every_sample_comes_once_and_in_order(sizes: list[int], batch_size: int) -> None:
    samples = numbered(sum(sizes), 2, 3)
    labels = torch.zeros(sum(sizes), dtype=torch.int64)
    loader = list(zip(samples.split(sizes), labels.split(sizes), strict=True)) if sizes else []
    batches = fitted(loader, Input((batch_size, 2, 3)))
    assert all(batch.tensors[0].shape == (batch_size, 2, 3) for batch in batches)
    assert all(batch.batch_size == batch_size for batch in batches)
    assert all(batch.valid == batch_size for batch in batches[:-1])
    assert sum(batch.valid for batch in batches) == len(samples)
    if batches:
        assert torch.equal(valid_rows(batches), samples)


def test_the_remainder_is_filled_with_its_own_samples() -> None:
    (_, last) = fitted([numbered(6, 1)], Input((4, 1)))
    assert last.valid == 2
    assert last.tensors[0].flatten().tolist() == [4.0, 5.0, 4.0, 5.0]


def test_batches_are_split_without_copies_and_joined() -> None:
    whole = numbered(4, 2)
    first, second = fitted([whole], Input((2, 2)))
    assert first.tensors[0].data_ptr() == whole.data_ptr()
    assert torch.equal(second.tensors[0], whole[2:])
    (joined,) = fitted([whole[:1], whole[1:2], whole[2:]], Input((4, 2)))
    assert torch.equal(joined.tensors[0], whole)
    assert (joined.valid, joined.loader_batch) == (4, 2)


def test_a_loader_may_reuse_its_memory() -> None:
    def loader() -> Iterator[Tensor]:
        buffer = torch.empty(3, 1)
        for start in range(4):
            yield buffer.fill_(float(start))

    batches = fitted(loader(), Input((2, 1)))
    seen = [batch.tensors[0].flatten().tolist() for batch in batches]
    assert seen[1] == [0.0, 1.0]
    assert len(seen) == 6


def test_nothing_is_read_ahead() -> None:
    taken = []

    def loader() -> Iterator[Tensor]:
        for index in range(3):
            taken.append(index)
            yield numbered(2, 1)

    batches = fit_batches(loader(), parse_inputs([Input((2, 1))]), CPU)
    next(batches)
    assert taken == [0]


def test_a_dynamic_batch_runs_at_its_opt_size() -> None:
    inputs = Input(min_shape=(1, 2), opt_shape=(4, 2), max_shape=(8, 2))
    batches = fitted([numbered(9, 2)], inputs)
    assert [(batch.tensors[0].shape[0], batch.valid) for batch in batches] == [
        (4, 4),
        (4, 4),
        (4, 1),
    ]


def test_dynamic_dimensions_may_differ_from_batch_to_batch() -> None:
    inputs = Input(min_shape=(2, 1), opt_shape=(2, 4), max_shape=(2, 8))
    batches = fitted([numbered(3, 4), numbered(1, 4), numbered(3, 8)], inputs)
    shapes = [(tuple(batch.tensors[0].shape), batch.valid) for batch in batches]
    assert shapes == [((2, 4), 2), ((2, 4), 2), ((2, 8), 2), ((2, 8), 1)]


def test_rows_of_different_length_are_not_joined() -> None:
    inputs = Input(min_shape=(2, 1), opt_shape=(2, 4), max_shape=(2, 8))
    batches = fitted([numbered(1, 4), numbered(1, 5)], inputs)
    assert [(tuple(b.tensors[0].shape), b.valid, b.loader_batch) for b in batches] == [
        ((2, 4), 1, 0),
        ((2, 5), 1, 1),
    ]


X = Input((2, 3), name="x")
Y = Input((2, 5), name="y")
x, y = numbered(2, 3), numbered(2, 5) + 10
label = torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("batch", "inputs", "expected"),
    [
        (x, [X], [x]),
        ((x, label), [X], [x]),
        ([x, label], [X], [x]),
        ([x, y], [X], [x]),
        ([x, y], [X, Y], [x, y]),
        ((x, y, label), [X, Y], [x, y]),
        ({"y": y, "label": label, "x": x}, [X, Y], [x, y]),
        ({"x": x, "label": label}, [X], [x]),
        ({"image": x, "label": label}, [Input((2, 3))], [x]),
        ({"image": x, "label": label}, [X], [x]),
        ({"a": x, "b": y}, [Input((2, 3)), Input((2, 5))], [x, y]),
        ({"label": label, "b": y, "a": x}, [{"a": X, "b": Y}], [x, y]),
        (({"b": y, "a": x}, label), [{"a": X, "b": Y}], [x, y]),
        ((x, {"b": y}), [X, {"b": Y}], [x, y]),
        (([x, y], label), [[X, Y]], [x, y]),
        (((x, y, label), label), [[X, Y]], [x, y]),
        (x.numpy(), [X], [x]),
        ((np.flip(x.numpy(), 0), 3), [X], [x.flip(0)]),
    ],
)
def test_elements_find_their_inputs(batch: Any, inputs: list[Any], expected: list[Tensor]) -> None:
    (only,) = fitted([batch], *inputs)
    assert len(only.tensors) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(only.tensors, expected, strict=True))


def test_samples_without_a_batch_dimension_are_joined() -> None:
    samples = TensorDataset(numbered(5, 3), torch.arange(5))
    batches = fitted(DataLoader(samples, batch_size=None), Input((2, 3)))
    assert torch.equal(valid_rows(batches), samples.tensors[0])
    assert [batch.valid for batch in batches] == [2, 2, 1]


def test_iterable_datasets() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            return iter(numbered(5, 3))

    batches = fitted(DataLoader(Stream(), batch_size=2), Input((4, 3)))
    assert torch.equal(valid_rows(batches), numbered(5, 3))


def test_tokens() -> None:
    tokens = torch.randint(0, 100, (3, 7), generator=torch.Generator().manual_seed(0))
    (only,) = fitted([tokens], Input((3, 7), dtype=torch.int64))
    assert only.tensors[0].dtype == torch.int64
    assert torch.equal(only.tensors[0], tokens)


def test_inputs_of_another_leading_size_belong_to_the_whole_batch() -> None:
    table, scalar = torch.randn(7, 2), torch.tensor(0.5)
    inputs = [Input((2, 3)), Input((7, 2)), Input(())]
    batches = fitted([(numbered(3, 3), table, scalar), (numbered(1, 3), table, scalar)], *inputs)
    assert [batch.valid for batch in batches] == [2, 1, 1]
    assert all(torch.equal(batch.tensors[1], table) for batch in batches)
    assert all(torch.equal(batch.tensors[2], scalar) for batch in batches)


def test_a_model_of_scalars_runs_once_for_each_batch() -> None:
    batches = fitted([torch.tensor(1.0), torch.tensor(2.0)], Input(()))
    assert [(batch.tensors[0].item(), batch.valid) for batch in batches] == [(1.0, 1), (2.0, 1)]


def test_tensors_are_plain_and_detached() -> None:
    class Image(Tensor):
        pass

    image = numbered(2, 3).requires_grad_().as_subclass(Image)
    (only,) = fitted([image], Input((2, 3)))
    assert type(only.tensors[0]) is Tensor
    assert not only.tensors[0].requires_grad


RANGE = Input(min_shape=(1, 3, 8), opt_shape=(2, 3, 16), max_shape=(4, 3, 32), name="signal")


@pytest.mark.parametrize(
    ("batch", "inputs", "parts"),
    [
        (numbered(7, 3, 28), [Input((1, 3, 32))], ["[7, 3, 28] float32", "[1, 3, 32] float32"]),
        (numbered(2, 3, 33), [RANGE], ["signal", "[2, 3, 33]", "min [1, 3, 8]", "max [4, 3, 32]"]),
        (numbered(2, 3, 7), [RANGE], ["[2, 3, 7]", "opt [2, 3, 16]"]),
        (numbered(2, 4), [Input((2, 3, 4, 5))], ["[2, 4]"]),
        (numbered(2, 3).double(), [X], ["float64", "float32", "'x'"]),
        (numbered(2, 3).to(torch.uint8), [X], ["uint8", "[2, 3] float32"]),
        (x.int(), [Input((2, 3), dtype=torch.int64)], ["int32", "int64"]),
        ((x, y[:1]), [X, Y], ["1 samples", "2 for an input before"]),
        ((x,), [X, Y], ["1 elements", "2 inputs"]),
        ({"x": x, "z": y}, [X, Y], ["['x', 'z']", "['x', 'y']"]),
        ({"a": x}, [{"a": X, "b": Y}], ["input 1", "'b'"]),
        ((x, y), [[X, Y]], ["input 0", "at [0][0]", "of a Tensor"]),
        ((x, x), [X, {"b": Y}], ["input 1", "Tensor"]),
        ("text", [X], ["str", "input 0 ('x')"]),
        ((1.5, label), [X], ["float"]),
        (None, [X], ["NoneType"]),
        (np.array(["a", "b"]), [X], ["ndarray (<U1)"]),
        (x.numpy().astype(">f4"), [X], ["ndarray (>f4)"]),
        (x.to_sparse(), [X], ["Tensor (torch.sparse_coo, cpu)", "input 0"]),
        (x.to("meta"), [X], ["Tensor (torch.strided, meta)", "dense tensors with values"]),
        (x.numpy().astype(np.float64), [X], ["float64"]),
        ((x, torch.ones(3)), [X, Input(())], ["[3]", "input 1"]),
    ],
)
def test_what_does_not_fit_is_explained(batch: Any, inputs: list[Any], parts: list[str]) -> None:
    loader = [(x, y), batch] if len(inputs) == 2 and inputs[0] is X and inputs[1] is Y else [batch]
    with pytest.raises(CalibrationError) as caught:
        fitted(loader, *inputs)
    message = str(caught.value)
    assert f"Batch {len(loader) - 1} of the calibration data" in message
    for part in parts:
        assert part in message


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(CalibrationError, match="batch size 0"):
        fitted([x], Input((0, 3)))


def test_no_batches_and_empty_batches_give_nothing() -> None:
    assert fitted([], X) == []
    assert fitted([numbered(0, 3), numbered(0, 3)], X) == []
    (only,) = fitted([numbered(1, 3), numbered(0, 3), numbered(1, 3)], X)
    assert only.valid == 2


def test_a_list_of_samples_is_not_taken_for_one_with_labels_silently() -> None:
    """As ``collate_fn=list`` gives it."""
    said = r"a list of 3 elements, of which 3 are single samples \[3\].*torch\.stack"
    with pytest.warns(CalibrationWarning, match=said) as caught:
        batches = fitted([list(numbered(3, 3)), list(numbered(3, 3))], X)
    assert len(caught) == 1 and [batch.valid for batch in batches] == [2]


def test_single_samples_with_labels_are_not_warned_of() -> None:
    fitted([(numbered(3), torch.tensor(1)), (numbered(3), 5)], X)
    fitted([(numbered(2, 3), numbered(2, 3))], X)  # an image and what it is to become
    fitted([(numbered(3), numbered(3))], X, Input((2, 3)))
