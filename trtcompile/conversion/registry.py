"""The registry of converters: which function turns which ATen overload into TensorRT layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.fx import Node

from trtcompile.errors import RegistrationError
from trtcompile.settings import CompileSpec

Target = Callable[..., Any]
Support = Callable[[Node, CompileSpec], "str | None"]
ConverterFunction = TypeVar("ConverterFunction", bound=Callable[..., Any])


@dataclass(frozen=True)
class Converter:
    """One registered converter.

    Attributes:
        target: the operator it converts.
        convert: ``convert(network, *args, **kwargs)``, parametrized as the operator's schema.
        supports: gives None, or the reason as a sentence why TensorRT cannot take this node.
    """

    target: Target
    convert: Callable[..., Any]
    supports: Support


_BYTES = (torch.int8, torch.uint8, torch.float8_e4m3fn)


class Registry:
    """Converters by target."""

    def __init__(self) -> None:
        self._converters: dict[Target, Converter] = {}

    def register(
        self,
        target: Target,
        *,
        supports: Support | None = None,
        takes_bytes: bool = False,
        override: bool = False,
    ) -> Callable[[ConverterFunction], ConverterFunction]:
        """Registers the decorated function for ``target``.

        Args:
            target: an overload such as ``torch.ops.aten.relu.default``, or a Python function.
            supports: ``(node, spec)`` gives None, or the reason as a sentence why TensorRT cannot take this node.
            takes_bytes: whether int8, uint8, and FP8 tensors get as far as ``supports``; TensorRT computes on none.
            override: whether to replace the converter that ``target`` has.

        Raises:
            RegistrationError: the target is a packet rather than an overload, mutates its input, or has a converter
                already and ``override`` is False; or the function's parameters differ from the schema's.
        """
        _check_target(target)

        def decorate(function: ConverterFunction) -> ConverterFunction:
            if target in self._converters and not override:
                raise RegistrationError(
                    f"{target} already has a converter. Pass override=True to replace it."
                )
            _check_parameters(target, function)
            checks = [supports] if supports else []
            if not takes_bytes:
                checks.insert(0, _refuses_bytes)
            self._converters[target] = Converter(target, function, _all_of(checks))
            return function

        return decorate

    def get(self, target: object) -> Converter | None:
        """The converter of a target, or None."""
        return self._converters.get(target)  # type: ignore[call-overload, no-any-return]

    def __contains__(self, target: object) -> bool:
        return target in self._converters

    def __iter__(self) -> Iterator[Converter]:
        return iter(self._converters.values())

    def __len__(self) -> int:
        return len(self._converters)


def _all_of(checks: Sequence[Support]) -> Support:
    def supports(node: Node, spec: CompileSpec) -> str | None:
        return next((reason for check in checks if (reason := check(node, spec))), None)

    return supports


def _refuses_bytes(node: Node, spec: CompileSpec) -> str | None:
    for value in (node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)):
        if isinstance(value, torch.Tensor) and value.dtype in _BYTES:
            dtype = str(value.dtype).removeprefix("torch.")
            return f"TensorRT only casts, quantizes, and dequantizes {dtype} tensors"
    return None


def _check_target(target: object) -> None:
    if isinstance(target, torch._ops.OpOverloadPacket):
        forms = ", ".join(f"{target}.{name}" for name in target.overloads())
        raise RegistrationError(
            f"{target} is a family of operators. Register one of its overloads: {forms}."
        )
    if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
        raise RegistrationError(
            f"{target} writes to its input, which lowering has replaced. Register the functional form."
        )
    if not callable(target):
        raise RegistrationError(
            f"{target!r} is no operator. Register a torch.ops overload or a function."
        )


def _check_parameters(target: object, function: Callable[..., Any]) -> None:
    """The interpreter binds by schema, so a misnamed parameter would fail on the first model that uses it."""
    if not isinstance(target, torch._ops.OpOverload):
        return
    expected = [argument.name for argument in target._schema.arguments]
    actual = list(inspect.signature(function).parameters)[1:]
    if actual != expected:
        raise RegistrationError(
            f"the converter of {target} takes {actual}. Name its parameters as the schema: {expected}."
        )


#: The converters of this package, filled by importing ``trtcompile.conversion.ops``.
REGISTRY = Registry()
converter = REGISTRY.register
