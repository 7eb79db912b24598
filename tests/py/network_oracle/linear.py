"""MatrixMultiply and Einsum."""

from __future__ import annotations

import torch

from network_oracle.dtypes import FLOATS
from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("MATRIX_MULTIPLY", "IMatrixMultiplyLayer", same_type=(0, 1))
def matrix_multiply(view: LayerView) -> torch.Tensor:
    """op0(a) @ op1(b); leading dimensions are equal or broadcast from one."""
    a, b = view.value(0), view.value(1)
    op0, op1 = view.name_of("op0"), view.name_of("op1")
    if a.dtype not in FLOATS:
        raise view.unsupported(f"a product of {a.dtype}.")
    # A collection of vectors becomes one of rows (left) or of columns (right).
    a = a.unsqueeze(-2) if op0 == "VECTOR" else _transposed(view, a, op0)
    b = b.unsqueeze(-1) if op1 == "VECTOR" else _transposed(view, b, op1)
    if a.dim() != b.dim():
        raise view.mismatch(f"its inputs have {a.dim() - 2} and {b.dim() - 2} batch dimensions.")
    product = torch.matmul(a, b)
    if op1 == "VECTOR":
        product = product.squeeze(-1)
    if op0 == "VECTOR":
        product = product.squeeze(-1 if op1 == "VECTOR" else -2)
    return product


def _transposed(view: LayerView, x: torch.Tensor, op: str) -> torch.Tensor:
    if x.dim() < 2:
        raise view.mismatch(f"operation {op} of an input of rank {x.dim()}.")
    if op == "TRANSPOSE":
        return x.transpose(-1, -2)
    if op == "NONE":
        return x
    raise view.unsupported(f"matrix operation {op}.")


@handles("EINSUM", "IEinsumLayer", same_type=None)
def einsum(view: LayerView) -> torch.Tensor:
    equation = view.layer.equation
    if "." in equation:
        raise view.unsupported(f"the ellipsis in {equation!r}.")
    inputs = [view.value(index) for index in range(len(view.raw))]
    if any(len(set(labels)) != len(labels) for labels in _labels(equation)):
        raise view.unsupported(f"the diagonal in {equation!r}.")
    return torch.einsum(equation, *inputs)


def _labels(equation: str) -> list[str]:
    return equation.replace(" ", "").split("->")[0].split(",")
