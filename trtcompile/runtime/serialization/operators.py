"""The functions that a saved graph may call, by name.

A name is looked up in a table or among PyTorch's registered operators, never imported or evaluated.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection
from typing import Any

import torch

from trtcompile.runtime.serialization.json_values import MalformedError, shown

OPERATOR_NAMESPACES = frozenset(
    {"aten", "prims", "quantized_decomposed", "torchvision", "trtcompile"}
)
"""Namespaces of ``torch.ops`` whose operators compute and do nothing else, but for those named below."""

# A file could use it to read or create others; ops of torchvision that do, such as write_file, are in `image`.
_REFUSED = frozenset({"aten.from_file", "aten._print"})

_OVERLOAD = re.compile(r"torch\.ops\.(?P<namespace>\w+)\.(?P<name>\w+)\.(?P<overload>\w+)")

# What picks an output of an engine, and the arithmetic on sizes that torch.export records.
_PYTHON_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "operator.getitem": operator.getitem,
    "operator.add": operator.add,
    "operator.sub": operator.sub,
    "operator.mul": operator.mul,
    "operator.floordiv": operator.floordiv,
    "operator.truediv": operator.truediv,
    "operator.mod": operator.mod,
    "operator.pow": operator.pow,
    "operator.neg": operator.neg,
    "operator.pos": operator.pos,
    "operator.eq": operator.eq,
    "operator.ne": operator.ne,
    "operator.lt": operator.lt,
    "operator.le": operator.le,
    "operator.gt": operator.gt,
    "operator.ge": operator.ge,
    "operator.and_": operator.and_,
    "operator.or_": operator.or_,
    "operator.lshift": operator.lshift,
    "operator.rshift": operator.rshift,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    "torch.sym_float": torch.sym_float,
    "torch.sym_int": torch.sym_int,
    "torch.sym_ite": torch.sym_ite,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
}
_PYTHON_NAMES = {function: name for name, function in _PYTHON_FUNCTIONS.items()}


def function_name(function: Any) -> str | None:
    """The name under which ``function_named`` finds a function; None if a graph may not call it."""
    if isinstance(function, torch._ops.OpOverload):
        return None if _reason_against(function) else f"torch.ops.{function}"
    return _PYTHON_NAMES.get(function)


def function_named(
    name: str, namespaces: Collection[str] = OPERATOR_NAMESPACES
) -> Callable[..., Any]:
    """The function that a saved graph calls.

    Args:
        name: from ``function_name``.
        namespaces: the namespaces of ``torch.ops`` that the file may use.

    Raises:
        MalformedError: there is no such function, or a graph may not call it.
    """
    if name in _PYTHON_FUNCTIONS:
        return _PYTHON_FUNCTIONS[name]
    parts = _OVERLOAD.fullmatch(name)
    if parts is None:
        raise MalformedError(f"it calls {shown(name)}, which is no operator")
    namespace, packet_name, overload_name = parts.groups()
    if namespace not in namespaces:
        raise MalformedError(
            f"it calls {name}, and the namespace {namespace} is not among {', '.join(sorted(namespaces))}",
            f"If you know that file, pass operator_namespaces={{{namespace!r}}} to load.",
        )
    packet = getattr(getattr(torch.ops, namespace), packet_name, None)
    if (
        not isinstance(packet, torch._ops.OpOverloadPacket)
        or overload_name not in packet.overloads()
    ):
        raise MalformedError(
            f"it calls {name}, which PyTorch {torch.__version__} does not have",
            "Import the package that defines it, or save the module again with this PyTorch.",
        )
    function: torch._ops.OpOverload = getattr(packet, overload_name)
    reason = _reason_against(function)
    if reason is not None:
        raise MalformedError(f"it calls {name}, which {reason}")
    return function


def _reason_against(function: torch._ops.OpOverload) -> str | None:
    """Why a graph may not call an operator, or None; a lowered graph has none of these."""
    name = function._schema.name
    if not torch._C._dispatch_has_kernel(
        name + (f".{o}" if (o := function._schema.overload_name) else "")
    ):
        return "belongs to TorchScript's interpreter"  # such as aten.save
    if function._schema.is_mutable:
        return "writes to its arguments"
    if name.replace("::", ".") in _REFUSED:
        return "does more than compute"
    return None
