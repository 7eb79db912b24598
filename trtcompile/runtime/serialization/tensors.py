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
    as_text,
    dtype_name,
    fields,
)
from trtcompile.runtime.serialization.trees import UnsavableError


def tensor_to_json(tensor: torch.Tensor, member: str) -> dict[str, Any]:
    """What ``tensor_from_archive`` needs to know beside the bytes.

    Raises:
        UnsavableError: the tensor is sparse, or quantized, or of another dtype that files do not hold.
    """
    name = dtype_name(tensor.dtype)
    if name is None or tensor.layout is not torch.strided:
        raise UnsavableError(f"a tensor of dtype {tensor.dtype} and layout {tensor.layout}")
    return {"dtype": name, "shape": list(tensor.shape), "member": member}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The elements of a tensor as bytes; a view where the tensor is contiguous and on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return memoryview(plain.reshape(-1).view(torch.uint8).numpy())


def tensor_from_archive(value: Any, archive: ArchiveReader) -> torch.Tensor:
    """Reads a tensor that ``tensor_to_json`` describes.

    Raises:
        MalformedError: the description is malformed, or its member is missing, altered, or of another size.
    """
    dtype, shape, member = fields(value, "dtype", "shape", "member")
    sizes = as_sizes(shape)
    name = as_text(member)
    size = math.prod(sizes) * as_dtype(dtype).itemsize
    # Before any memory is taken for it.
    if any(s < 0 for s in sizes) or size != archive.size_of(name):
        raise MalformedError(
            f"a tensor of shape {list(sizes)} and dtype {dtype} is to be {name}, which has {archive.size_of(name)} "
            "bytes"
        )
    tensor = torch.empty(sizes, dtype=as_dtype(dtype))
    archive.read_into(name, bytes_of(tensor))
    return tensor
