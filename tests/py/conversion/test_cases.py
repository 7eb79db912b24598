"""Every converter has cases, and a wrong converter fails them."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import check_op
from core_aten import STAYS_IN_PYTORCH, core_operators
from operator_case import Case, GraphCase, Refusal, floats, target_name
from operator_table import TABLE, core_section
from torch import nn

from trtcompile._tensorrt import trt
from trtcompile.conversion import REGISTRY
from trtcompile.conversion.network import Network
from trtcompile.errors import ConversionError

aten = torch.ops.aten

_MODULES = [
    importlib.import_module(path.stem)
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.stem != Path(__file__).stem
]
CASES: list[Case | GraphCase] = [c for module in _MODULES for c in getattr(module, "CASES", ())]
REFUSALS: list[Refusal] = [c for module in _MODULES for c in getattr(module, "REFUSALS", ())]
_TARGETS = [converter.target for converter in REGISTRY]


@pytest.mark.parametrize("target", _TARGETS, ids=[target_name(target) for target in _TARGETS])
def test_a_target_has_a_case_that_builds(target: object) -> None:
    assert any(case.target is target and case.build for case in CASES)


@pytest.mark.parametrize("cases", [CASES, REFUSALS], ids=["cases", "refusals"])
def test_no_form_is_there_twice(cases: list[Case]) -> None:
    names = [str(case) for case in cases]
    assert sorted(names) == sorted(set(names))


def test_a_case_fails_where_another_operator_is_converted() -> None:
    with pytest.raises(AssertionError, match="not among"):
        Case(aten.tanh.default, "relu", torch.relu, (floats(2, 3),), build=False).check()


def test_a_refusal_fails_where_the_operator_is_taken() -> None:
    with pytest.raises(AssertionError, match="verdicts"):
        Refusal(aten.relu.default, "taken", "never", torch.relu, (floats(2, 3),)).check()


def _identity_relu(net: Network, self: Any) -> Any:
    return net.identity(self)


def _swapped_sub(net: Network, self: Any, other: Any, alpha: float) -> Any:
    return net.elementwise(other, self, trt.ElementWiseOperation.SUB)


def _softmax_on_another_axis(net: Network, self: Any, dim: int, dtype: Any) -> Any:
    return _RIGHT[aten.softmax.int](net, self, 1 - dim, dtype)


def _linear_without_bias(net: Network, **arguments: Any) -> Any:
    return _RIGHT[aten.linear.default](net, **arguments | {"bias": None})


def _convolution_without_bias(net: Network, **arguments: Any) -> Any:
    return _RIGHT[aten.convolution.default](net, **arguments | {"bias": None})


def _convolution_of_stride_1(net: Network, **arguments: Any) -> Any:
    return _RIGHT[aten.convolution.default](net, **arguments | {"stride": [1, 1]})


def _convolution_with_flipped_kernel(net: Network, **arguments: Any) -> Any:
    weight = arguments["weight"].flip(-1)
    return _RIGHT[aten.convolution.default](net, **arguments | {"weight": weight})


def _permuted_wrongly(net: Network, self: Any, dims: Any) -> Any:
    return _RIGHT[aten.permute.default](net, self, [dims[1], dims[0], *dims[2:]])


def _average_over_what_is_there(net: Network, **arguments: Any) -> Any:
    arguments |= {"count_include_pad": False}
    return _RIGHT[aten.avg_pool2d.default](net, **arguments)


def _mean_as_sum(net: Network, self: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    return _RIGHT[aten.sum.dim_IntList](net, self, dim, keepdim, dtype)


_RIGHT: dict[object, Callable[..., Any]] = {c.target: c.convert for c in REGISTRY}

_MUTANTS: list[tuple[Any, Callable[..., Any], Any, tuple[torch.Tensor, ...]]] = [
    (aten.relu.default, _identity_relu, torch.relu, (floats(2, 3),)),
    (aten.sub.Tensor, _swapped_sub, torch.sub, (floats(2, 3), floats(2, 3, seed=1))),
    (aten.softmax.int, _softmax_on_another_axis, lambda x: x.softmax(1), (floats(3, 3),)),
    (aten.linear.default, _linear_without_bias, nn.Linear(3, 2), (floats(2, 3),)),
    (
        aten.convolution.default,
        _convolution_without_bias,
        nn.Conv2d(2, 2, 1),
        (floats(1, 2, 3, 3),),
    ),
    (
        aten.convolution.default,
        _convolution_with_flipped_kernel,
        nn.Conv2d(2, 2, 3),
        (floats(1, 2, 5, 5),),
    ),
    (aten.permute.default, _permuted_wrongly, lambda x: x.permute(2, 1, 0), (floats(3, 3, 3),)),
    (
        aten.avg_pool2d.default,
        _average_over_what_is_there,
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        (floats(1, 2, 5, 5),),
    ),
    (aten.mean.dim, _mean_as_sum, lambda x: x.mean(1), (floats(2, 3),)),
]


@pytest.mark.parametrize(
    ("target", "wrong", "function", "inputs"), _MUTANTS, ids=[m[1].__name__[1:] for m in _MUTANTS]
)
def test_a_wrong_converter_fails(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    wrong: Callable[..., Any],
    function: Any,
    inputs: tuple[torch.Tensor, ...],
) -> None:
    check_op(function, *inputs, converts=target, build=False)
    _replace(monkeypatch, target, wrong)
    with pytest.raises(AssertionError, match="the oracle, output 0"):
        check_op(function, *inputs, converts=target, build=False)


def test_an_ignored_stride_fails_by_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(monkeypatch, aten.convolution.default, _convolution_of_stride_1)
    with pytest.raises(ConversionError, match="where PyTorch gives"):
        check_op(nn.Conv2d(2, 2, 3, stride=2), floats(1, 2, 7, 7), build=False)


def _replace(monkeypatch: pytest.MonkeyPatch, target: Any, wrong: Callable[..., Any]) -> None:
    converter = REGISTRY.get(target)
    assert converter is not None
    wrong_converter = dataclasses.replace(converter, convert=wrong)
    monkeypatch.setitem(REGISTRY._converters, target, wrong_converter)


def test_the_table_of_operators_is_complete() -> None:
    document = TABLE.read_text()
    assert document.endswith(core_section()), "run operator_table.py"
    table = document.removesuffix(core_section())
    listed = set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))
    assert listed == {target_name(target) for target in _TARGETS}, "run operator_table.py"


def test_every_core_operator_has_a_converter_or_a_reason() -> None:
    without = {operator for operator in core_operators() if operator not in _TARGETS}
    assert without == set(STAYS_IN_PYTORCH)
