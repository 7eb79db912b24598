"""Tensors <-> raw bytes, contiguous and little-endian, as on every machine that TensorRT runs on."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtcompile.runtime.serialization.archive import ArchiveReader
from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_dtype,
    as_sizes,
    dtype_name,
    fields,
)
from trtcompile.runtime.serialization.trees import UnsavableError


def tensor_to_json(tensor: torch.Tensor) -> dict[str, Any]:
    """What ``tensor_from_archive`` needs to know beside the bytes.

    Raises:
        UnsavableError: the tensor is sparse, or quantized, or of another dtype that files do not hold.
    """
    name = dtype_name(tensor.dtype)
    if name is None or tensor.layout is not torch.strided:
        raise UnsavableError(f"a tensor of dtype {tensor.dtype} and layout {tensor.layout}")
    return {"dtype": name, "shape": list(tensor.shape)}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The elements of a tensor as bytes; a view where the tensor is contiguous and on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def tensor_from_archive(value: Any, archive: ArchiveReader, member: str) -> torch.Tensor:
    """Reads a tensor.

    Args:
        value: from ``tensor_to_json``.
        archive: has the elements.
        member: the member that has them.

    Raises:
        MalformedError: the description is malformed, or the member is missing, altered, or of another size.
    """
    dtype_value, shape = fields(value, "dtype", "shape")
    dtype, sizes = as_dtype(dtype_value), as_sizes(shape)
    size = archive.size_of(member)
    if (
        any(s < 0 for s in sizes) or size != math.prod(sizes) * dtype.itemsize
    ):  # before memory is taken for it
        raise MalformedError(
            f"{member} has {size} bytes, and is to be of shape {list(sizes)} and {dtype}"
        )
    tensor = torch.empty(sizes, dtype=dtype, device="cpu")
    archive.read_into(member, bytes_of(tensor))
    return tensor
