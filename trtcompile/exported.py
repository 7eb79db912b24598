"""Reads the inputs of a ``torch.export.ExportedProgram`` that the user brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo

from trtcompile.dims import UNBOUNDED
from trtcompile.errors import SettingsError
from trtcompile.inputs import Input, flat_inputs


def inputs_of(program: ExportedProgram) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that a program was exported with, an ``Input`` for each tensor.

    A dynamic size gets the range of its ``Dim``, tuned for the size of the example.

    Raises:
        SettingsError: a dynamic size has no upper bound, which an engine needs.
    """
    leaves = [
        _input(program, node) if isinstance(node, Node) else node for node in _user_inputs(program)
    ]
    assert program.call_spec.in_spec is not None
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return tuple(args), dict(kwargs)


def check_inputs(
    program: ExportedProgram, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> None:
    """Checks that inputs given for a program are ones that it was exported for.

    Raises:
        SettingsError: they have another structure, dtype, or rank, or a size that the program does not take.
    """
    structure = pytree.tree_structure((arguments, dict(keywords)))
    if structure != program.call_spec.in_spec:
        raise SettingsError(
            "inputs and kwarg_inputs have another structure than the ExportedProgram was exported with. Leave them "
            "out, or give them as torch.export got them."
        )
    nodes = [node for node in _user_inputs(program) if isinstance(node, Node)]
    for node, given in zip(nodes, flat_inputs((arguments, dict(keywords))), strict=True):
        value = node.meta["val"]
        fits = given.dtype == value.dtype and len(given.opt_shape) == value.dim()
        if not fits or any(
            not low <= size <= high
            for (low, high), sizes in zip(
                _ranges(program, value),
                zip(given.min_shape, given.max_shape, strict=True),
                strict=True,
            )
            for size in sizes
        ):
            raise SettingsError(
                f"{given.describe()} is not what the ExportedProgram takes for {node.name}: "
                f"{_described(program, value)}. Export with dynamic_shapes that allow it, or change the Input."
            )


def argument_names(program: ExportedProgram) -> list[str]:
    """The names of positional arguments that are one tensor each; none if any is not."""
    assert program.call_spec.in_spec is not None
    args, _ = program.call_spec.in_spec.children()
    if any(not child.is_leaf() for child in args.children()):
        return []
    return [str(name) for name in program.graph_signature.user_inputs[: args.num_leaves]]


def _user_inputs(program: ExportedProgram) -> list[Any]:
    """For each leaf of the arguments its placeholder, or the constant that it was."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    leaves = []
    for name in program.graph_signature.user_inputs:
        node = placeholders.get(name) if isinstance(name, str) else None
        is_tensor = node is not None and isinstance(node.meta.get("val"), torch.Tensor)
        leaves.append(node if is_tensor else name)
    return leaves


def _input(program: ExportedProgram, node: Node) -> Input:
    value = node.meta["val"]
    ranges = _ranges(program, value)
    if any(high >= UNBOUNDED for _, high in ranges):
        raise SettingsError(
            f"the ExportedProgram takes {_described(program, value)} for {node.name}, and an engine needs an upper "
            "bound for each size. Give Dim a max, or pass inputs with min_shape, opt_shape, and max_shape."
        )
    return Input(
        min_shape=[low for low, _ in ranges],
        opt_shape=[_hint(size) for size in value.shape],
        max_shape=[high for _, high in ranges],
        dtype=value.dtype,
        name=node.name,
    )


def _ranges(program: ExportedProgram, value: torch.Tensor) -> list[tuple[int, int]]:
    return [_range(program, size) for size in value.shape]


def _range(program: ExportedProgram, size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    allowed = program.range_constraints.get(size.node.expr)
    if allowed is None:
        return 0, UNBOUNDED
    high = UNBOUNDED if allowed.upper == int_oo else min(int(allowed.upper), UNBOUNDED)
    return int(allowed.lower), high


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _described(program: ExportedProgram, value: torch.Tensor) -> str:
    sizes = [
        str(low) if low == high else f"{low}..{'' if high >= UNBOUNDED else high}"
        for low, high in _ranges(program, value)
    ]
    return f"[{', '.join(sizes)}] {str(value.dtype).removeprefix('torch.')}"
