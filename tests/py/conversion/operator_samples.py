"""PyTorch's own samples of operators' arguments as cases."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
import unittest
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from checks import check_op
from torch.utils import _pytree as pytree

#: The most tensors that a sample may have: as many as ``checks.Function`` takes.
_MOST_TENSORS = 4


@functools.cache
def _operators() -> list[Any]:
    if importlib.util.find_spec("expecttest") is None:
        # PyTorch's module of test helpers needs a class of it, for tests that are not run here.
        stand_in = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules.setdefault("expecttest", stand_in)
    from torch.testing._internal.common_methods_invocations import op_db

    return op_db


def _samples(name: str, dtype: torch.dtype, most: int) -> Iterator[tuple[Any, Any]]:
    """So many samples of the operator, evenly spread over those of all its variants."""
    found = [info for info in _operators() if info.name == name and dtype in info.dtypes]
    assert found, f"PyTorch has no samples of {name} in {dtype}"
    samples = [(i.op, s) for i in found for s in i.sample_inputs("cpu", dtype)]
    yield from samples[:: -(-len(samples) // most)]


def check_samples(
    name: str,
    dtype: torch.dtype,
    *,
    most: int = 10,
    refused: Sequence[str] = (),
    constants: bool = False,
) -> None:
    """Checks an operator with samples of ``torch.testing``'s database, without building engines.

    Args:
        name: the operator's name there.
        dtype: of the samples.
        most: how many samples at most.
        refused: parts of the reasons for which a sample may stay in PyTorch; some sample must not.
        constants: whether all tensors but the first are constants, as weights are.
    """
    torch.manual_seed(0)
    computed = 0
    for operation, sample in _samples(name, dtype, most):
        parts = (sample.input, tuple(sample.args), dict(sample.kwargs))
        leaves, structure = pytree.tree_flatten(parts)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        tensors = [leaves[i] for i in (places[:1] if constants else places)]
        if len(tensors) > _MOST_TENSORS:
            continue

        def call(
            *given: Any,
            op: Any = operation,
            of: Any = leaves,
            at: Any = places,
            s: Any = structure,
        ) -> Any:
            filled = [*of]
            for place, value in zip(at, given, strict=False):
                filled[place] = value
            value, args, kwargs = pytree.tree_unflatten(filled, s)
            return op(value, *args, **kwargs)

        inputs = [t.detach().clone(memory_format=torch.contiguous_format) for t in tensors]
        try:
            check_op(call, *inputs, build=False)
        except AssertionError as error:
            # Without an engine nothing was left to compute, as of a reshape to the same shape.
            if not any(reason in str(error) for reason in ("0 engines", *refused)):
                raise AssertionError(f"{name} of {sample}: {error}") from error
        else:
            computed += 1
    assert computed, f"no sample of {name} was computed"


def each_sample(operators: Sequence[tuple[Any, ...]]) -> Any:
    """Parametrizes a test by ``name``, ``dtype``, and ``refused``, from (name, refused reason...) in two dtypes."""
    rows = [
        pytest.param(name, dtype, refused, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name, dtypes, *refused in operators
        for dtype in dtypes
    ]
    return pytest.mark.parametrize(("name", "dtype", "refused"), rows)
