"""Every operator of PyTorch's database of samples: what is converted must be right.

Too long for every run: ``make test-full``. What falls back is not an error here; the tests of each
family say what must not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from operator_samples import all_operators, check_sample, samples_of

from trtcompile.errors import UnsupportedGraphError

DTYPES = (torch.float32, torch.int64, torch.bool)
SAMPLES = 12  # of each operator, variant, and dtype, evenly spread

# Random, or of an unspecified order or sign, so that two right answers differ.
_AMBIGUOUS = frozenset(
    {
        "argsort",  # of equal values
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
    }
)
# Positions of equal values, which integers have.
_AMBIGUOUS_OF_INTEGERS = frozenset({"kthvalue", "mode", "topk"})
# Their samples have NaN, which TensorRT leaves out of a maximum.
_OF_NAN = frozenset({"masked.amax", "masked.amin"})


def _is_compared(name: str, dtype: torch.dtype) -> bool:
    left_out = _OF_NAN if dtype.is_floating_point else _AMBIGUOUS_OF_INTEGERS
    return name not in _AMBIGUOUS | left_out


def _rows() -> Iterator[Any]:
    for info in all_operators():
        for dtype in DTYPES:
            if dtype in info.dtypes and _is_compared(info.name, dtype):
                variant = f"{info.name}.{info.variant_test_name}".rstrip(".")
                yield pytest.param(info, dtype, id=f"{variant}-{str(dtype).removeprefix('torch.')}")


@pytest.mark.filterwarnings("ignore:.*beta:UserWarning")  # of PyTorch's own operators
@pytest.mark.parametrize(("info", "dtype"), list(_rows()))
def test_what_is_converted_is_right(info: Any, dtype: torch.dtype) -> None:
    refused = ""
    computed = 0
    torch.manual_seed(0)
    for function, sample in samples_of([info], dtype, SAMPLES):
        try:
            computed += check_sample(function, sample)
        except UnsupportedGraphError as error:
            refused = str(error)
        except AssertionError as error:
            if not any(text in str(error) for text in ("fell back", "0 engines")):
                raise AssertionError(f"{sample}: {error}") from error
            refused = str(error)
    if computed == 0:
        pytest.skip(f"runs in PyTorch: {refused.splitlines()[0][:150] if refused else 'no sample'}")
