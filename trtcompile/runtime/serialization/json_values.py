"""JSON as it is written, and values read from JSON with their types checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

T = TypeVar("T")

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint64,
        torch.uint32,
        torch.uint16,
        torch.uint8,
        torch.bool,
        torch.complex128,
        torch.complex64,
    )
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class MalformedError(Exception):
    """What a file says cannot be used; ``load`` turns it into an ``EngineLoadError``.

    Args:
        problem: what is wrong, with the values in it.
        advice: what to do about it, as a sentence.
    """

    def __init__(
        self, problem: str, advice: str = "Save the module again with trtcompile.save."
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


def dump(value: Any, *, indent: int | None = None) -> bytes:
    """A value as JSON text; equal values give equal text.

    Raises:
        ValueError: the value has NaN or infinity in it, which JSON lacks.
    """
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def parse(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedError: it is no JSON, or has NaN or infinity in it, or is nested too deeply.
    """

    def refuse_constant(name: str) -> None:
        raise MalformedError(f"it has the number {name}, which JSON lacks")

    try:
        return json.loads(data, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"it is no JSON that can be read: {error}") from error


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expect(value: Any, kinds: type | tuple[type, ...], what: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise MalformedError(f"{shown(value)} stands where {what} should")


def as_text(value: Any) -> str:
    """A string."""
    _expect(value, str, "a string")
    return str(value)


def as_int(value: Any) -> int:
    """An integer; a bool is none."""
    _expect(value, int, "an integer")
    return int(value)


def as_float(value: Any) -> float:
    """A number; a bool is none."""
    _expect(value, (int, float), "a number")
    return float(value)


def as_bool(value: Any) -> bool:
    """A bool."""
    _expect(value, bool, "a bool")
    return bool(value)


def as_list(value: Any) -> list[Any]:
    """A list."""
    _expect(value, list, "a list")
    return list(value)


def as_mapping(value: Any) -> dict[str, Any]:
    """An object, whose keys are always strings."""
    _expect(value, dict, "an object")
    return dict(value)


def as_sizes(value: Any) -> tuple[int, ...]:
    """A list of integers."""
    return tuple(as_int(size) for size in as_list(value))


def as_dtype(value: Any) -> torch.dtype:
    """The dtype that a name such as ``"float32"`` stands for."""
    name = as_text(value)
    if name not in DTYPES:
        raise MalformedError(f"{shown(name)} is not the name of a dtype")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str | None:
    """The name of a dtype; None for those that files do not hold, such as quantized ones."""
    return _DTYPE_NAMES.get(dtype)


def fields(value: Any, *names: str) -> tuple[Any, ...]:
    """The values of an object that has exactly these names."""
    mapping = as_mapping(value)
    if set(mapping) != set(names):
        raise MalformedError(f"an object has {sorted(mapping)} where {sorted(names)} should be")
    return tuple(mapping[name] for name in names)


def _optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _mapping_of(read: Callable[[Any], T]) -> Callable[[Any], dict[str, T]]:
    return lambda value: {name: read(item) for name, item in as_mapping(value).items()}


# By annotation, as dataclasses keep it under `from __future__ import annotations`.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": as_text,
    "str | None": _optional(as_text),
    "int": as_int,
    "float": as_float,
    "bool": as_bool,
    "tuple[str, ...]": lambda value: tuple(as_text(item) for item in as_list(value)),
    "Mapping[str, str]": _mapping_of(as_text),
    "Mapping[str, float]": _mapping_of(as_float),
}


def record_to_json(record: Any) -> dict[str, Any]:
    """The fields of a dataclass instance; ``record_from_json`` reads them back.

    Raises:
        TypeError: a field has a type that cannot be read back.
    """
    for field in dataclasses.fields(record):
        if field.type not in _READERS:
            kind = type(record).__name__
            raise TypeError(f"the field {kind}.{field.name} has no JSON form for {field.type}")
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def record_from_json(kind: type[T], value: Any) -> T:
    """A dataclass instance from an object with exactly its fields.

    Raises:
        MalformedError: a field is missing, unknown, or of another type.
    """
    described = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = fields(value, *(field.name for field in described))
    read = {
        field.name: _READERS[str(field.type)](item)
        for field, item in zip(described, values, strict=True)
    }
    return kind(**read)
