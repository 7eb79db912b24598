"""One layer with its attributes, weights and input values, as the handlers see it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from network_oracle.dtypes import REDUCED_FLOATS, torch_dtype
from network_oracle.errors import NetworkMismatchError, UnsupportedLayer


class LayerView:
    """A layer downcast to its own class, and the values of its inputs.

    Attributes:
        layer: the TensorRT layer, its class already set to the specific one.
        kind: name of its ``LayerType``.
        raw: input values in their own dtypes; None for an optional input that is not set.
        values: the same with float16 and bfloat16 widened to float32 for computing.
        input_shapes: declared shapes of the inputs, -1 for an unknown dimension.
        output_dtypes: declared dtypes of the outputs.
    """

    def __init__(
        self,
        layer: Any,
        kind: str,
        raw: Sequence[torch.Tensor | None],
        input_shapes: Sequence[tuple[int, ...] | None],
        output_dtypes: Sequence[torch.dtype],
    ) -> None:
        self.layer = layer
        self.kind = kind
        self.raw = list(raw)
        self.values = [_widen(value) for value in raw]
        self.input_shapes = list(input_shapes)
        self.output_dtypes = list(output_dtypes)

    def __str__(self) -> str:
        return f"{self.kind} layer {self.layer.name!r}"

    def unsupported(self, what: str) -> UnsupportedLayer:
        return UnsupportedLayer(f"{self}: {what}")

    def mismatch(self, what: str) -> NetworkMismatchError:
        return NetworkMismatchError(f"{self}: {what}")

    def has(self, index: int) -> bool:
        """Whether optional input ``index`` is set."""
        return index < len(self.raw) and self.raw[index] is not None

    def value(self, index: int = 0) -> torch.Tensor:
        """Input ``index``, widened for computing."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise self.mismatch(f"input {index} is not set.")
        return value

    def integers(self, index: int) -> list[int]:
        """Input ``index`` as a list of Python integers (a shape, a start, axes)."""
        value = self.value(index)
        if value.dtype not in (torch.int32, torch.int64) or value.dim() > 1:
            raise self.mismatch(
                f"input {index} must be an integer scalar or vector, "
                f"is {value.dtype} of shape {tuple(value.shape)}."
            )
        return [int(item) for item in value.reshape(-1).tolist()]

    def name_of(self, attribute: str) -> str:
        """Name of the enumerator that ``attribute`` holds."""
        return str(getattr(self.layer, attribute).name)

    def dims(self, attribute: str) -> tuple[int, ...]:
        """A ``Dims`` attribute; an unset one is an error."""
        dims = getattr(self.layer, attribute)
        if dims is None:
            raise self.mismatch(f"{attribute} is not set.")
        return tuple(int(size) for size in dims)

    def optional_dims(self, attribute: str) -> list[int] | None:
        """A ``Dims`` attribute; None where it is unset or not there in this TensorRT."""
        dims = getattr(self.layer, attribute, None)
        try:
            # Only len() tells: unset Dims have a negative rank, and iterate as if they were empty.
            return None if dims is None or len(dims) < 0 else [int(size) for size in dims]
        except ValueError:  # what Python makes of a negative length
            return None

    def axes_of_mask(self, mask: int, rank: int) -> tuple[int, ...]:
        """The axes whose bits are set in ``mask``."""
        if mask >> rank:
            raise self.mismatch(f"axes bitmask {mask:#b} names an axis beyond rank {rank}.")
        return tuple(axis for axis in range(rank) if mask >> axis & 1)

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` as a non-negative number."""
        if not -rank <= axis < rank:
            raise self.mismatch(f"axis {axis} is out of range for rank {rank}.")
        return axis % rank

    def weights(self, attribute: str) -> torch.Tensor | None:
        """A weights attribute as a flat tensor of its own dtype; None where it is empty."""
        weights = getattr(self.layer, attribute)
        if isinstance(weights, np.ndarray):
            return _from_numpy(weights).reshape(-1) if weights.size else None
        if weights.size == 0:
            return None
        return self._from_memory(weights)

    def _from_memory(self, weights: Any) -> torch.Tensor:
        """Weights of a type that NumPy lacks (bfloat16), copied from where they lie.

        The binding hands back an opaque ``Weights``: the C++ struct {type, pointer, count} is
        read through the Python object, and believed only if type and count agree with what the
        binding itself says.
        """
        dtype = torch_dtype(weights.dtype, f"the weights of {self}")
        struct = ctypes.c_void_p.from_address(id(weights) + object.__basicsize__).value
        if struct is None:
            raise self.unsupported("its weights cannot be read.")
        type_code = ctypes.c_int32.from_address(struct).value
        address = ctypes.c_void_p.from_address(struct + 8).value
        count = ctypes.c_int64.from_address(struct + 16).value
        if address is None or type_code != int(weights.dtype) or count != weights.size:
            raise self.unsupported("its weights cannot be read.")
        if weights.dtype.name == "INT4":
            return _unpacked(ctypes.string_at(address, (count + 1) // 2))[:count]
        data = bytearray(ctypes.string_at(address, count * dtype.itemsize))
        return torch.frombuffer(data, dtype=dtype)


def _unpacked(data: bytes) -> torch.Tensor:
    """Two numbers from -8 to 7 out of each byte, the low half first."""
    halves = [half for byte in data for half in (byte & 0xF, byte >> 4)]
    return torch.tensor([h - 16 if h > 7 else h for h in halves], dtype=torch.int8)


def _widen(value: torch.Tensor | None) -> torch.Tensor | None:
    if value is not None and value.dtype in REDUCED_FLOATS:
        return value.float()
    return value


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    # Read from memory, not through the array: TensorRT 10.6's binding, made for NumPy 1, gives strides of 0 in NumPy 2.
    raw = ctypes.string_at(array.ctypes.data, array.size * array.itemsize)
    return torch.from_numpy(np.frombuffer(bytearray(raw), dtype=array.dtype))
