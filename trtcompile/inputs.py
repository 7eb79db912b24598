"""``Input``: the shape or shape range, dtype, and name of one tensor that a model takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trtcompile.dims import Dim, SizeRange, check_name, is_dim, is_size
from trtcompile.errors import SettingsError

Shape = tuple[int, ...]

_RANGE = ("min_shape", "opt_shape", "max_shape")


@dataclass(frozen=True, init=False)
class Input:
    """One input tensor of a model: ``Input((1, 3, 32, 32))`` or a range of shapes.

    Args:
        shape: the only shape accepted, but for sizes that are a ``Dim`` (or a ``torch.export.Dim`` with a max); or
            leave it out and give all three of the next.
        min_shape: the smallest shape accepted.
        opt_shape: the shape that the engine is tuned for.
        max_shape: the largest shape accepted. Dimensions where min and max differ are dynamic.
        dtype: the element type that ``forward`` will receive.
        name: a name for messages.
        dims: names of dimensions by index, for shapes that are given as min, opt, and max. Dimensions of one name are
            equally large, in all inputs.

    Raises:
        SettingsError: shapes are missing, of different rank, or not min <= opt <= max; or a name is given to
            dimensions of different ranges.
    """

    min_shape: Shape
    opt_shape: Shape
    max_shape: Shape
    dtype: torch.dtype
    name: str | None
    named_dims: tuple[tuple[int, str], ...]

    def __init__(
        self,
        shape: Sequence[Any] | None = None,
        *,
        min_shape: Sequence[int] | None = None,
        opt_shape: Sequence[int] | None = None,
        max_shape: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        dims: Mapping[int, str] | None = None,
    ) -> None:
        names_of_dims = _checked_names(dims)
        ranged = (min_shape, opt_shape, max_shape)
        if (shape is None) == all(s is None for s in ranged):
            raise SettingsError(
                "Input needs either one shape or a range of shapes. Write Input((1, 3, 32, 32)) or "
                "Input(min_shape=..., opt_shape=..., max_shape=...)."
            )
        if shape is not None:
            sizes = _as_sizes(shape)
            low, opt, high = (tuple(size[which] for size, _ in sizes) for which in range(3))
            for index, (_, own) in enumerate(sizes):
                if own is not None and names_of_dims.setdefault(index, own) != own:
                    raise SettingsError(
                        f"dimension {index} of an Input is {own!r}, and dims names it {names_of_dims[index]!r}. Leave "
                        "it out of dims."
                    )
        else:
            missing = [n for n, s in zip(_RANGE, ranged, strict=True) if s is None]
            if missing:
                raise SettingsError(
                    f"Input lacks {', '.join(missing)}. Give min_shape, opt_shape, and max_shape."
                )
            low, opt, high = (_as_shape(n, s) for n, s in zip(_RANGE, ranged, strict=True))
        same_rank = len(low) == len(opt) == len(high)
        if not same_rank or any(not a <= b <= c for a, b, c in zip(low, opt, high, strict=True)):
            raise SettingsError(
                f"Input has min_shape {low}, opt_shape {opt}, max_shape {high}. Each dimension needs min <= opt <= max."
            )
        if not isinstance(dtype, torch.dtype):
            raise SettingsError(
                f"Input dtype is {dtype!r}. Use a torch.dtype such as torch.float32."
            )
        if name is not None and not isinstance(name, str):
            raise SettingsError(f"Input name is {name!r}. Use a string.")
        if any(index >= len(low) for index in names_of_dims):
            raise SettingsError(
                f"dims is {names_of_dims}, and the Input has {len(low)} dimensions. Count from 0."
            )
        for field, value in zip(
            ("min_shape", "opt_shape", "max_shape", "dtype", "name", "named_dims"),
            (low, opt, high, dtype, name, tuple(sorted(names_of_dims.items()))),
            strict=True,
        ):
            object.__setattr__(self, field, value)
        dim_ranges((self,))

    @property
    def dims(self) -> dict[int, str]:
        """The names of dimensions that have one, by index."""
        return dict(self.named_dims)

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension has a range."""
        return self.min_shape != self.max_shape

    @property
    def dynamic_dims(self) -> tuple[int, ...]:
        """The dimensions whose size has a range."""
        pairs = zip(self.min_shape, self.max_shape, strict=True)
        return tuple(d for d, (low, high) in enumerate(pairs) if low != high)

    def sizes_of(self, dim: int) -> SizeRange:
        """The min, opt, and max size of a dimension."""
        return self.min_shape[dim], self.opt_shape[dim], self.max_shape[dim]

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape lies within min and max."""
        return len(shape) == len(self.min_shape) and all(
            low <= size <= high
            for low, size, high in zip(self.min_shape, shape, self.max_shape, strict=True)
        )

    def example_tensor(
        self, device: torch.device | str = "cpu", which: str = "opt"
    ) -> torch.Tensor:
        """A tensor of the ``which`` (min, opt, max) shape with repeatable values.

        Floating types are normally distributed, integers are 0 or 1 (valid as an index or a class), bools mixed.
        The global random state is neither used nor changed.
        """
        shape = {"min": self.min_shape, "opt": self.opt_shape, "max": self.max_shape}[which]
        generator = torch.Generator("cpu").manual_seed(0)
        if self.dtype.is_floating_point or self.dtype.is_complex:
            values = torch.randn(shape, generator=generator, device="cpu")
        else:
            values = torch.randint(0, 2, shape, generator=generator, device="cpu")
        return values.to(device=device, dtype=self.dtype)

    def with_name(self, name: str) -> Input:
        """The same with a name."""
        return self._changed(name=name)

    def with_dims(self, dims: Mapping[int, str]) -> Input:
        """The same with other names of dimensions."""
        return self._changed(dims=dims)

    def with_ranges(self, ranges: Mapping[str, SizeRange]) -> Input:
        """The same with other ranges for dimensions of these names."""
        shapes = [list(shape) for shape in (self.min_shape, self.opt_shape, self.max_shape)]
        for index, name in self.named_dims:
            for shape, size in zip(shapes, ranges.get(name, self.sizes_of(index)), strict=True):
                shape[index] = size
        return self._changed(**dict(zip(_RANGE, shapes, strict=True)))

    def _changed(self, **changes: Any) -> Input:
        fields = {"dtype": self.dtype, "name": self.name, "dims": self.dims}
        fields.update({name: getattr(self, name) for name in _RANGE})
        return Input(**{**fields, **changes})

    def describe(self) -> str:
        """The accepted shapes and dtype, for messages."""
        dtype = str(self.dtype).removeprefix("torch.")
        if self.named_dims:
            names = ", ".join(f"{index} is {name!r}" for index, name in self.named_dims)
            dtype += f" where dimension {names}"
        if not self.is_dynamic:
            return f"{list(self.opt_shape)} {dtype}"
        return f"min {list(self.min_shape)} opt {list(self.opt_shape)} max {list(self.max_shape)} {dtype}"

    @classmethod
    def from_any(cls, value: Any) -> Input:
        """Reads an ``Input``, a tensor (its shape and dtype), or a shape."""
        if isinstance(value, Input):
            return value
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized:
                kind = "quantized" if value.is_quantized else str(value.layout)
                raise SettingsError(
                    f"inputs has a {kind} tensor of shape {tuple(value.shape)}, and engines take dense ones. "
                    "Convert it in front of the compiled module, as with to_dense() or dequantize()."
                )
            return cls(tuple(value.shape), dtype=value.dtype)
        return cls(value)


def _as_shape(name: str, value: Any) -> Shape:
    if isinstance(value, (str, bytes, torch.Tensor)) or not isinstance(value, Iterable):
        raise SettingsError(
            f"Input {name} is {value!r}. Use a sequence of sizes such as (1, 3, 32, 32)."
        )
    shape = tuple(value)
    if any(not is_size(size) for size in shape):
        more = " Give dimensions with a name in shape alone." if any(map(is_dim, shape)) else ""
        raise SettingsError(f"Input {name} is {value!r}. Use whole numbers of at least 0.{more}")
    return shape


def _as_sizes(value: Any) -> list[tuple[SizeRange, str | None]]:
    """The range and the name of each size."""
    shape = tuple(value) if isinstance(value, (list, tuple)) else _as_shape("shape", value)
    dims = {index: _as_dim(size) for index, size in enumerate(shape) if is_dim(size)}
    numbers = [dims[index].opt if index in dims else size for index, size in enumerate(shape)]
    return [
        (dims[index].sizes, dims[index].name) if index in dims else ((size, size, size), None)
        for index, size in enumerate(_as_shape("shape", numbers))
    ]


def _as_dim(size: Any) -> Dim:
    return size if isinstance(size, Dim) else Dim.from_torch(size)


def _checked_names(dims: Mapping[int, str] | None) -> dict[int, str]:
    if dims is None:
        return {}
    if not isinstance(dims, Mapping) or not all(map(is_size, dims)):
        raise SettingsError(
            f"Input dims is {dims!r}. Use a dictionary from index to name, such as {{0: 'batch'}}."
        )
    for name in dims.values():
        check_name(name)
    return dict(dims)


def dim_ranges(inputs: Iterable[Input]) -> dict[str, SizeRange]:
    """The min, opt, and max size of each named dimension.

    Raises:
        SettingsError: two dimensions of one name have different ranges.
    """
    ranges: dict[str, SizeRange] = {}
    for spec in inputs:
        for index, name in spec.named_dims:
            own = spec.sizes_of(index)
            first = ranges.setdefault(name, own)
            if own != first:
                raise SettingsError(
                    f"dimension {name!r} has min {first[0]} opt {first[1]} max {first[2]} in one place and min "
                    f"{own[0]} opt {own[1]} max {own[2]} in another. Use one Dim in both, or two names."
                )
    return ranges


def shared_dims(inputs: Sequence[Input]) -> tuple[tuple[str, list[tuple[int, int]]], ...]:
    """For each named dimension of several places these: the numbers of the input and of its dimension."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, spec in enumerate(inputs):
        for index, name in spec.named_dims:
            places.setdefault(name, []).append((number, index))
    return tuple((name, found) for name, found in places.items() if len(found) > 1)


def _is_leaf(value: Any) -> bool:
    if isinstance(value, (Input, torch.Tensor)):
        return True
    is_sizes = isinstance(value, (tuple, list, torch.Size)) and len(value) > 0
    return is_sizes and all(
        is_dim(size) or (isinstance(size, int) and not isinstance(size, bool)) for size in value
    )


def parse_inputs(inputs: Any) -> tuple[Any, ...]:
    """Normalizes ``inputs=`` to a tuple of positional arguments with an ``Input`` for each tensor.

    Args:
        inputs: a sequence with an entry for each positional argument: ``Input``, tensor, shape, or a nested
            list, tuple, or dictionary of these. A single ``Input`` or tensor stands for a sequence of one. None,
            numbers, and strings are constants: compiled in, and expected again at each call.

    Raises:
        SettingsError: nothing was given, or a leaf is none of these.
    """
    if isinstance(inputs, (Input, torch.Tensor)):
        inputs = (inputs,)
    if not isinstance(inputs, (list, tuple)) or len(inputs) == 0:
        raise SettingsError(
            f"inputs is {_kind(inputs)}. Give a list with an Input for each argument of forward, such as "
            "[Input((1, 3, 32, 32))], or kwarg_inputs for arguments by name."
        )
    if _is_leaf(inputs):
        raise SettingsError(
            f"inputs is the shape {tuple(inputs)}, not a list of inputs. Write inputs=[Input({tuple(inputs)})]."
        )

    return tuple(pytree.tree_map(_read, argument, is_leaf=_is_leaf) for argument in inputs)


def parse_keyword_inputs(kwarg_inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Normalizes ``kwarg_inputs=``; an ``Input`` without a name gets its keyword's.

    Raises:
        SettingsError: it is no dictionary by name, or a leaf is not one that ``parse_inputs`` takes.
    """
    if kwarg_inputs is None:
        return {}
    if not isinstance(kwarg_inputs, Mapping) or any(not isinstance(k, str) for k in kwarg_inputs):
        raise SettingsError(
            f"kwarg_inputs is {_kind(kwarg_inputs)}. Give a dictionary with an Input for each keyword argument of "
            "forward, such as {'mask': Input((1, 16))}."
        )

    read = (pytree.tree_map(_read, value, is_leaf=_is_leaf) for value in kwarg_inputs.values())
    return dict(zip(kwarg_inputs, named_after(kwarg_inputs, tuple(read)), strict=True))


def named_after(names: Iterable[str], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Parsed arguments; an ``Input`` without a name gets its argument's, by which a dictionary of data is read.

    Args:
        names: of the arguments, from the first; those after them stay as they are.
        arguments: as ``parse_inputs`` returns them.
    """
    return tuple(
        argument.with_name(name)
        if name is not None and isinstance(argument, Input) and argument.name is None
        else argument
        for argument, name in itertools.zip_longest(
            arguments, itertools.islice(names, len(arguments))
        )
    )


def _kind(value: Any) -> str:
    """A value for a message, without the tensors in it."""
    if isinstance(value, (Mapping, list, tuple)) and value:
        return f"a {type(value).__name__} with {len(value)} entries"
    return repr(value)


def _read(leaf: Any) -> Any:
    return leaf if is_constant(leaf) else Input.from_any(leaf)


def is_constant(leaf: Any) -> bool:
    """Whether a leaf of the arguments is a value that is compiled in rather than a tensor."""
    return leaf is None or isinstance(leaf, (bool, int, float, str))


def flat_inputs(arguments: tuple[Any, ...]) -> tuple[Input, ...]:
    """The ``Input`` leaves of parsed arguments, in the order in which a graph takes them."""
    return tuple(leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Input))
