"""``torch.export`` of a model for ranges of the sizes of its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from trtcompile.dims import SizeRange
from trtcompile.errors import UnsupportedGraphError
from trtcompile.inputs import Input, dim_ranges, flat_inputs, is_constant


@dataclass(frozen=True)
class ModelInputs:
    """Parsed arguments.

    Attributes:
        args: the positional ones.
        kwargs: those by keyword, in the order of ``forward``, in which torch.export takes them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def leaves(self) -> list[Any]:
        """The inputs and constants, in the order in which torch.export takes them."""
        return pytree.tree_leaves((self.args, self.kwargs))

    @property
    def tensors(self) -> tuple[Input, ...]:
        """The inputs alone."""
        return flat_inputs((self.args, self.kwargs))

    def mapped(self, function: Callable[[Input], Any]) -> ModelInputs:
        """The same with ``function`` applied to each ``Input``."""

        def apply(leaf: Any) -> Any:
            return function(leaf) if isinstance(leaf, Input) else leaf

        return ModelInputs(*pytree.tree_map(apply, (self.args, self.kwargs)))


def export_with_ranges(
    model: nn.Module, inputs: ModelInputs, device: torch.device
) -> tuple[torch.export.ExportedProgram, ModelInputs]:
    """Exports with the dynamic sizes of the inputs; sizes of one name, or that the model needs to be equal, are one.

    Returns:
        The program, and the inputs with the names of what the model needs to be equal to a named dimension.

    Raises:
        UnsupportedGraphError: sizes that must be equal have different ranges or names, or ``**kwargs`` takes inputs.
        Exception: what ``torch.export`` raises.
    """
    examples = inputs.mapped(lambda spec: _traceable_example(spec, device))

    def export(shapes: dict[str, Any] | None) -> torch.export.ExportedProgram:
        return torch.export.export(
            model, examples.args, examples.kwargs, dynamic_shapes=shapes, strict=False
        )

    labels = _own_labels(inputs.tensors)
    if not labels:
        return export(None), inputs
    _check_named(model, inputs)
    try:
        return export(_dynamic_shapes(model, inputs, labels)), inputs
    except Exception:
        equal = _labels_of_equal_sizes(model, inputs, export, labels)
        if equal == labels:
            raise
    return export(_dynamic_shapes(model, inputs, equal)), _with_shared_names(inputs, equal)


def _check_named(model: nn.Module, inputs: ModelInputs) -> None:
    """torch.export takes no dynamic sizes beside arguments that ``**kwargs`` of ``forward`` takes."""
    parameters = inspect.signature(model.forward).parameters
    unnamed = [name for name in inputs.kwargs if name not in parameters]
    if unnamed:
        raise UnsupportedGraphError(
            f"forward takes {', '.join(unnamed)} through its ** parameter, beside which torch.export allows no range "
            "of shapes. Wrap the model in a module whose forward names them, or give one shape for each input."
        )


def _traceable_example(spec: Input, device: torch.device) -> torch.Tensor:
    """An example whose dynamic sizes are at least 2: torch.export takes a 0 or 1 for a constant."""
    example = spec.example_tensor(device)
    if all(example.shape[d] > 1 for d in spec.dynamic_dims):
        return example
    shape = [
        max(2, size) if d in spec.dynamic_dims else size for d, size in enumerate(spec.opt_shape)
    ]
    return Input(shape, dtype=spec.dtype).example_tensor(device)


def _own_labels(inputs: Sequence[Input]) -> list[str]:
    """For each dynamic size its dimension's name, or one of its own; sizes of one label are equal."""
    names = dim_ranges(inputs)
    places = [(spec, dim) for spec in inputs for dim in spec.dynamic_dims]
    labels = []
    for index, (spec, dim) in enumerate(places):
        label = f"size_{index}"
        while label in names:
            label += "_"
        labels.append(spec.dims.get(dim, label))
    return labels


def _labels_of_equal_sizes(
    model: nn.Module,
    inputs: ModelInputs,
    export: Callable[[dict[str, Any] | None], torch.export.ExportedProgram],
    labels: Sequence[str],
) -> list[str]:
    """The labels, with one for all sizes that the model needs to be equal: a name where one of them has one.

    Raises:
        UnsupportedGraphError: sizes that must be equal have different ranges or names.
    """
    automatic = inputs.mapped(lambda spec: dict.fromkeys(spec.dynamic_dims, torch.export.Dim.AUTO))
    program = export(_by_parameter(model, automatic))
    taken = set(program.graph_signature.user_inputs)
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in taken]
    symbols: list[str] = []
    ranges: dict[str, SizeRange] = {}
    names: dict[str, str] = {}
    for node, spec in zip(placeholders, inputs.tensors, strict=True):
        for d in spec.dynamic_dims:
            size = node.meta["val"].shape[d]
            # A number is a size that the model fixes, which torch.export will say about the size alone.
            symbol = str(size) if isinstance(size, torch.SymInt) else f"fixed {len(symbols)}"
            symbols.append(symbol)
            first = ranges.setdefault(symbol, spec.sizes_of(d))
            if spec.sizes_of(d) != first:
                raise UnsupportedGraphError(
                    f"the model needs dimension {d} of {spec.describe()} to be as large as one that has min {first[0]} "
                    f"opt {first[1]} max {first[2]}. Give both Inputs the same range there."
                )
            name = spec.dims.get(d)
            if name is not None and names.setdefault(symbol, name) != name:
                raise UnsupportedGraphError(
                    f"the model needs the dimensions {names[symbol]!r} and {name!r} to be equally large. Use one Dim "
                    "for both."
                )
    first_labels: dict[str, str] = dict(names)
    return [
        # A name holds also where the model does not need the sizes to be equal.
        label if label in names.values() else first_labels.setdefault(symbol, label)
        for symbol, label in zip(symbols, labels, strict=True)
    ]


def _with_shared_names(inputs: ModelInputs, labels: Sequence[str]) -> ModelInputs:
    """The inputs with the names that dimensions have because the model needs them as large as a named one."""
    names = dim_ranges(inputs.tensors)
    remaining = iter(labels)

    def named(spec: Input) -> Input:
        own = {dim: next(remaining) for dim in spec.dynamic_dims}
        return spec.with_dims({**spec.dims, **{d: n for d, n in own.items() if n in names}})

    return inputs.mapped(named)


def _dynamic_shapes(model: nn.Module, inputs: ModelInputs, labels: Sequence[str]) -> dict[str, Any]:
    remaining = iter(labels)
    dims: dict[str, Any] = {}

    def of_input(spec: Input) -> dict[int, Any]:
        result: dict[int, Any] = {}
        for d in spec.dynamic_dims:
            label = next(remaining)
            if label not in dims:
                low, _, high = spec.sizes_of(d)
                dims[label] = torch.export.Dim(label, min=low, max=high)
            result[d] = dims[label]
        return result

    return _by_parameter(model, inputs.mapped(of_input))


def _by_parameter(model: nn.Module, shapes: ModelInputs) -> dict[str, Any]:
    """Dynamic shapes in the form that torch.export wants where ``forward`` takes ``*args``; constants have none."""
    args, kwargs = pytree.tree_map(
        lambda leaf: None if is_constant(leaf) else leaf,
        (shapes.args, shapes.kwargs),
        is_leaf=lambda value: is_constant(value) or _is_shape(value),
    )
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def _is_shape(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, int) for key in value)
