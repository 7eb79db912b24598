"""PyTorch's own samples of operators' arguments as cases."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import sys
import types
import unittest
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from checks import can_run_engines, check_op
from torch.utils import _pytree as pytree

#: The most tensors that a sample may have: as many as ``checks.Function`` takes.
_MOST_TENSORS = 4


@functools.cache
def all_operators() -> list[Any]:
    """PyTorch's database of operators, an ``OpInfo`` each."""
    if importlib.util.find_spec("expecttest") is None:
        # PyTorch's module of test helpers needs a class of it, for tests that are not run here.
        stand_in = types.ModuleType("expecttest")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("expecttest", None)  # for find_spec
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules.setdefault("expecttest", stand_in)
    from torch.testing._internal.common_methods_invocations import op_db

    return list(op_db)


def samples_of(infos: Sequence[Any], dtype: torch.dtype, most: int) -> list[tuple[Any, Any]]:
    """At most so many (function, sample) of some operators, evenly spread over all."""
    samples = [(info.op, s) for info in infos for s in info.sample_inputs("cpu", dtype)]
    return samples[:: -(-len(samples) // most)] if samples else []


def check_samples(
    name: str,
    dtype: torch.dtype,
    *,
    most: int = 10,
    refused: Sequence[str] = (),
    constants: bool = False,
) -> None:
    """Checks an operator with samples of ``torch.testing``'s database.

    Args:
        name: the operator's name there.
        dtype: of the samples.
        most: how many samples at most, of all its variants.
        refused: parts of the reasons for which a sample may stay in PyTorch; some sample must not.
        constants: whether all tensors but the first are constants, as weights are.
    """
    torch.manual_seed(0)
    infos = [info for info in all_operators() if info.name == name and dtype in info.dtypes]
    assert infos, f"PyTorch has no samples of {name} in {dtype}"
    computed = 0
    for function, sample in samples_of(infos, dtype, most):
        try:
            computed += check_sample(function, sample, constants=constants)
        except AssertionError as error:
            # Without an engine nothing was left to compute, as of a reshape to the same shape.
            if not any(reason in str(error) for reason in ("0 engines", *refused)):
                raise AssertionError(f"{name} of {sample}: {error}") from error
    assert computed, f"no sample of {name} was computed"


def check_sample(function: Any, sample: Any, *, constants: bool = False) -> bool:
    """Checks one sample as ``check_op`` does; engines are built only where they can run.

    Returns:
        Whether it was checked: one with very many tensors, or with sparse ones, is not.
    """
    leaves, structure = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    tensors = [leaves[i] for i in (places[:1] if constants else places)]
    if not 0 < len(tensors) <= _MOST_TENSORS or any(t.layout != torch.strided for t in tensors):
        return False

    def call(*given: Any) -> Any:
        filled = [*leaves]
        for place, value in zip(places, given, strict=False):
            filled[place] = value
        value, args, kwargs = pytree.tree_unflatten(filled, structure)
        return function(value, *args, **kwargs)

    inputs = [t.detach().clone(memory_format=torch.contiguous_format) for t in tensors]
    expected: list[Any] = []
    with torch.no_grad(), contextlib.suppress(Exception):  # what fails in eager mode, fails below
        expected = pytree.tree_leaves(call(*(t.clone() for t in inputs)))
    check_op(call, *inputs, build=can_run_engines(), atol=max(1e-5, _rounding(expected)))
    return True


def _rounding(values: Sequence[Any]) -> float:
    """What one order of summation may differ from another one: more than it of small sums of large numbers."""
    finite = [
        t[t.isfinite()].abs()
        for t in values
        if isinstance(t, torch.Tensor) and t.dtype == torch.float32 and t.layout == torch.strided
    ]
    return 2e-7 * max((t.max().item() for t in finite if t.numel()), default=0.0)


def each_sample(operators: Sequence[tuple[Any, ...]]) -> Any:
    """Parametrizes a test by ``name``, ``dtype``, and ``refused``, from (name, refused reason...) in two dtypes."""
    rows = [
        pytest.param(name, dtype, refused, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name, dtypes, *refused in operators
        for dtype in dtypes
    ]
    return pytest.mark.parametrize(("name", "dtype", "refused"), rows)
