"""TensorRT data types as PyTorch dtypes, matched by name so that flavours may differ."""

from __future__ import annotations

from typing import Any

import torch

from network_oracle.errors import UnsupportedLayer

_BY_NAME: dict[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "FP8": torch.float8_e4m3fn,
    "INT4": torch.int8,  # PyTorch has no arithmetic on four bits; a constant is unpacked where it is read
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
}

REDUCED_FLOATS = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *REDUCED_FLOATS)
INTEGERS = (torch.int8, torch.uint8, torch.int32, torch.int64)


def torch_dtype(data_type: Any, what: str) -> torch.dtype:
    """The PyTorch dtype of a ``trt.DataType``; ``what`` names the tensor in the error."""
    try:
        return _BY_NAME[data_type.name]
    except KeyError:
        raise UnsupportedLayer(
            f"{what} has data type {data_type.name}, which is not modelled."
        ) from None
