"""Fits what a DataLoader yields to the inputs that a graph takes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.inputs import Input, flat_inputs


@dataclass(frozen=True)
class FittedBatch:
    """Tensors that a graph takes as they are.

    Attributes:
        tensors: one for each ``Input`` leaf, of its opt batch size.
        valid: how many rows, from the first, are samples of their own; the others repeat them.
        batch_size: how many rows there are.
        loader_batch: which batch of the loader the last rows came from, counted from 0.
        batched: whether each tensor has a row for each sample; the others belong to all of them.
    """

    tensors: tuple[Tensor, ...]
    valid: int
    batch_size: int
    loader_batch: int
    batched: tuple[bool, ...]


def fit_batches(
    loader: Iterable[Any], arguments: tuple[Any, ...], device: torch.device, *, first: int = 0
) -> Iterator[FittedBatch]:
    """Splits and joins the batches of a loader to the batch size of the inputs.

    **Elements.** A batch may be a tensor, a tuple or list, or a dictionary. As many elements are
    used as there are arguments with tensors; further ones, such as labels, are dropped.

    - Tuple or list: element i is argument i. An argument that is itself a list, tuple, or
      dictionary of inputs takes its tensors from an element built the same way; further entries are
      dropped.
    - Dictionary: if the only argument is a dictionary, its keys are looked up. Otherwise, if every
      argument is an ``Input`` whose name is a key, they are looked up by name; if no name is a key,
      the values are taken in the dictionary's order. The name is that of ``forward``'s parameter
      unless the ``Input`` was given another.
    - Leaves are strided tensors or numpy arrays, of exactly the input's dtype. Anything else, such
      as a number, a string, or an image object, is refused.

    **Batch size.** Dimension 0 of the first input that has dimensions is the batch, and its opt
    size the batch size. Inputs of another opt size there, or of none, belong to a loader batch as a
    whole: they must fit as they are and are used with all its rows. The others may have any number
    of rows, the same one for all; a tensor that lacks just dimension 0 is a single sample. Other
    dimensions must lie between the input's min and max. Rows of consecutive loader batches are
    joined where their other dimensions are equal and no input belongs to a loader batch as a whole.
    A remainder is filled up by repeating its own samples. At most one loader batch is kept.

    Args:
        loader: yields batches.
        arguments: parsed inputs, as ``parse_inputs`` returns them.
        device: where the tensors go.
        first: the number of the loader's first batch, in messages and results.

    A list of single samples, as of ``collate_fn=list``, looks like a sample with labels behind it: a
    ``CalibrationWarning`` says how it is read.

    Raises:
        CalibrationError: a batch has too few elements, a wrong shape or dtype, or no tensors.
    """
    layout = _Layout(arguments)
    size = layout.batch_size
    pieces: list[tuple[Tensor, ...]] = []  # rows that do not fill a batch yet
    held = 0
    last = 0  # the loader batch of the last piece

    def fitted(tensors: tuple[Tensor, ...], valid: int, loader_batch: int) -> FittedBatch:
        return FittedBatch(tensors, valid, size, loader_batch, tuple(layout.batched))

    for index, batch in enumerate(loader, first):
        tensors, rows = layout.read(batch, index)
        tensors = [tensor.to(device) for tensor in tensors]
        if pieces and not layout.can_join(pieces[-1], tensors):
            yield fitted(layout.filled(pieces, held), held, last)
            pieces, held = [], 0
        start = 0
        while start < rows:
            count = min(size - held, rows - start)
            piece = layout.rows_of(tensors, start, count)
            start += count
            held += count
            last = index
            if held == size:
                yield fitted(layout.joined([*pieces, piece]), size, index)
                pieces, held = [], 0
            else:
                # Copied, because the loader may reuse its memory for the next batch.
                pieces.append(tuple(tensor.clone() for tensor in piece))
    if pieces:
        yield fitted(layout.filled(pieces, held), held, last)


class _Layout:
    """Where the tensors of the inputs are in a batch, and which of their rows are samples."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        # A constant is compiled in; the data has no element for it.
        arguments = tuple(argument for argument in arguments if flat_inputs((argument,)))
        self.arguments = arguments
        self.inputs = flat_inputs(arguments)
        leaves = pytree.tree_flatten_with_path(arguments)[0]
        self.paths = [path for path, leaf in leaves if isinstance(leaf, Input)]
        sizes = [leaf.opt_shape[0] for leaf in self.inputs if leaf.opt_shape]
        self.batch_size = sizes[0] if sizes else 1
        self._warned = False
        self.batched = [leaf.opt_shape[:1] == (self.batch_size,) for leaf in self.inputs]
        if self.batch_size == 0:
            raise CalibrationError(
                f"The input {self.inputs[0].describe()} has batch size 0, so nothing can be "
                "calibrated. Use an opt_shape with at least one sample."
            )

    def read(self, batch: Any, index: int) -> tuple[list[Tensor], int]:
        """The tensors of a loader batch in the order of the inputs, and its number of samples."""
        elements = self._elements(batch, index)
        tensors = []
        rows: int | None = None
        for position, leaf in enumerate(self.inputs):
            where = f"Batch {index} of the calibration data"
            name = self._name(position)
            value = _at_path(elements, self.paths[position], f"{where} has no {name}")
            tensor = _as_tensor(value, leaf, f"{where} has a {_kind(value)} for {name}")
            if self.batched[position] and tensor.dim() == len(leaf.opt_shape) - 1:
                self._warn_of_list(elements, tensor, where)
                tensor = tensor.unsqueeze(0)
            self._check(tensor, position, where)
            if self.batched[position]:
                rows = tensor.shape[0] if rows is None else rows
                if tensor.shape[0] != rows:
                    raise CalibrationError(
                        f"{where} has {tensor.shape[0]} samples for {name}, but {rows} for an "
                        "input before it. Give every input the same number of samples."
                    )
            tensors.append(tensor)
        return tensors, 1 if rows is None else rows

    def _warn_of_list(self, elements: Sequence[Any], sample: Tensor, where: str) -> None:
        """Warns, once, where further elements are like the only input's, a single sample."""
        alike = [e for e in elements if isinstance(e, Tensor) and e.shape == sample.shape]
        if self._warned or len(self.inputs) > 1 or len(alike) < 2:
            return
        self._warned = True
        warnings.warn(
            f"{where} is a {type(elements).__name__} of {len(elements)} elements, of which {len(alike)} are single "
            f"samples {list(sample.shape)}: the first is used, the others are taken for labels. If they are samples, "
            "let collate_fn stack them with torch.stack.",
            CalibrationWarning,
            stacklevel=2,
        )

    def _elements(self, batch: Any, index: int) -> Sequence[Any]:
        where = f"Batch {index} of the calibration data"
        count = len(self.arguments)
        if isinstance(batch, Mapping):
            elements = self._from_mapping(batch, where)
        elif isinstance(batch, (tuple, list)):
            elements = batch
        else:
            elements = (batch,)
        if len(elements) < count:
            raise CalibrationError(
                f"{where} has {len(elements)} elements, but the model takes {count} inputs. Let "
                "the dataset return them in the order of the inputs."
            )
        return elements

    def _from_mapping(self, batch: Mapping[Any, Any], where: str) -> Sequence[Any]:
        if len(self.arguments) == 1 and isinstance(self.arguments[0], Mapping):
            return (batch,)
        names = [leaf.name if isinstance(leaf, Input) else None for leaf in self.arguments]
        found = [name for name in names if name in batch]
        if not found:
            return tuple(batch.values())
        if len(found) < len(names):
            raise CalibrationError(
                f"{where} has the keys {list(batch)}, of which only {found} are names of inputs "
                f"({names}). Name each Input as its key: Input(shape, name=key)."
            )
        return [batch[name] for name in found]

    def _check(self, tensor: Tensor, position: int, where: str) -> None:
        leaf = self.inputs[position]
        batched = self.batched[position]
        wanted, shape = leaf.opt_shape, tuple(tensor.shape)
        fits = len(shape) == len(wanted) and all(
            low <= size <= high
            for dim, (low, size, high) in enumerate(
                zip(leaf.min_shape, shape, leaf.max_shape, strict=True)
            )
            if not (batched and dim == 0)
        )
        if not fits or tensor.dtype != leaf.dtype:
            dtype = str(tensor.dtype).removeprefix("torch.")
            free = " with any number of samples" if batched else ""
            raise CalibrationError(
                f"{where} has {list(shape)} {dtype} for {self._name(position)}, but the model takes "
                f"{leaf.describe()}{free}. "
                "Convert the samples in the dataset, or change the Input."
            )

    def _name(self, position: int) -> str:
        name = self.inputs[position].name
        path = self.paths[position]
        text = f"input {position}" if name is None else f"input {position} ({name!r})"
        return text if len(path) == 1 else f"{text} at {pytree.keystr(path)}"

    def rows_of(self, tensors: Sequence[Tensor], start: int, count: int) -> tuple[Tensor, ...]:
        """Some of the samples; inputs that belong to the whole batch stay as they are."""
        pairs = zip(tensors, self.batched, strict=True)
        return tuple(t.narrow(0, start, count) if b else t for t, b in pairs)

    def can_join(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
        """Whether samples of two loader batches can be in one batch."""
        same = (a.shape[1:] == b.shape[1:] for a, b in zip(first, second, strict=True))
        return all(self.batched) and all(same)

    def joined(self, pieces: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """The samples of all pieces, in order."""
        if len(pieces) == 1:
            return tuple(pieces[0])
        return tuple(
            torch.cat(parts) if batched else parts[0]
            for parts, batched in zip(zip(*pieces, strict=True), self.batched, strict=True)
        )

    def filled(self, pieces: Sequence[Sequence[Tensor]], valid: int) -> tuple[Tensor, ...]:
        """A batch of full size, whose samples repeat in turn."""
        rows = torch.arange(self.batch_size) % valid
        pairs = zip(self.joined(pieces), self.batched, strict=True)
        return tuple(t.index_select(0, rows.to(t.device)) if b else t for t, b in pairs)


def _at_path(elements: Any, path: Any, problem: str) -> Any:
    value = elements
    for key in path:
        try:
            if isinstance(key, pytree.SequenceKey) and isinstance(value, (tuple, list)):
                value = value[key.idx]
            elif isinstance(key, pytree.MappingKey) and isinstance(value, Mapping):
                value = value[key.key]
            else:
                raise LookupError(f"{key} of a {type(value).__name__}")
        except LookupError as error:
            raise CalibrationError(
                f"{problem}: {error}. Let the dataset return samples built like the inputs."
            ) from error
    return value


def _kind(value: Any) -> str:
    """What a value is, for messages; of a tensor also why it may be none that can be calibrated with."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"{kind} ({value.dtype.str})"
    return f"{kind} ({value.layout}, {value.device})" if isinstance(value, Tensor) else kind


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_nested


def _as_tensor(value: Any, leaf: Input, problem: str) -> Tensor:
    if isinstance(value, np.ndarray):
        with contextlib.suppress(TypeError, ValueError):  # text, objects, foreign byte orders
            # A copy, because arrays may be read-only or have strides that tensors lack.
            value = torch.from_numpy(np.array(value, order="C", copy=True))
    if not isinstance(value, Tensor) or not _is_dense(value):
        raise CalibrationError(
            f"{problem}, where a tensor {leaf.describe()} is needed. Convert the samples to "
            "dense tensors with values in the dataset or its transform."
        )
    return value.detach().as_subclass(Tensor)  # such as torchvision's Image
