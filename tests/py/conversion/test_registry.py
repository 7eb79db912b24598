from __future__ import annotations

from typing import Any

import pytest
import torch

from trtcompile.conversion import REGISTRY, Registry
from trtcompile.errors import RegistrationError

aten = torch.ops.aten


def _relu(net: Any, self: Any) -> Any:
    return self


def test_a_registered_converter_is_found() -> None:
    registry = Registry()
    assert registry.register(aten.relu.default)(_relu) is _relu
    converter = registry.get(aten.relu.default)
    assert converter is not None and converter.convert is _relu
    assert aten.relu.default in registry and len(registry) == 1
    assert [c.target for c in registry] == [aten.relu.default]
    assert registry.get(aten.tanh.default) is None


def test_registries_are_apart() -> None:
    assert aten.relu.default not in Registry()
    assert aten.relu.default in REGISTRY


def test_a_second_converter_must_say_override() -> None:
    registry = Registry()
    registry.register(aten.relu.default)(_relu)
    with pytest.raises(RegistrationError, match=r"aten\.relu\.default already has.*override=True"):
        registry.register(aten.relu.default)(_relu)

    @registry.register(aten.relu.default, override=True)
    def other(net: Any, self: Any) -> Any:
        return self

    converter = registry.get(aten.relu.default)
    assert converter is not None and converter.convert is other


def test_a_packet_is_refused_with_its_overloads() -> None:
    with pytest.raises(
        TypeError, match=r"family of operators.*aten\.add\.Tensor.*aten\.add\.Scalar"
    ):
        Registry().register(aten.add)


@pytest.mark.parametrize("target", [aten.relu_.default, aten.add.out, aten.add_.Tensor])
def test_an_operator_that_writes_is_refused(target: Any) -> None:
    with pytest.raises(RegistrationError, match="Register the functional form"):
        Registry().register(target)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(RegistrationError, match="'relu' is no operator"):
        Registry().register("relu")  # type: ignore[arg-type]


def test_parameters_must_be_named_as_the_schema() -> None:
    with pytest.raises(RegistrationError, match=r"takes \['x'\].*\['self'\]"):

        @Registry().register(aten.relu.default)
        def misnamed(net: Any, x: Any) -> Any:
            return x


def test_parameters_must_be_all_of_the_schema() -> None:
    with pytest.raises(RegistrationError, match=r"takes \['self', 'other'\].*'alpha'"):

        @Registry().register(aten.add.Tensor)
        def without_alpha(net: Any, self: Any, other: Any) -> Any:
            return self


def test_a_refused_converter_is_not_kept() -> None:
    registry = Registry()
    with pytest.raises(RegistrationError):
        registry.register(aten.relu.default)(lambda net, x: x)
    assert len(registry) == 0


def test_a_python_function_needs_no_schema() -> None:
    registry = Registry()
    registry.register(max)(lambda net, a, b: a)
    assert max in registry
