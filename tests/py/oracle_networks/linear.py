"""MatrixMultiply, Einsum, Reduce, Softmax, Cumulative, Normalization, LRN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oracle_networks.network_case import (
    Net,
    OracleNetwork,
    Tensor,
    integers,
    signed,
    uniform,
)


def _matmul(op0: str, op1: str) -> Callable[..., Any]:
    def define(net: Net, x0: Any, x1: Any) -> Any:
        ops = net.trt.MatrixOperation
        layer = net.network.add_matrix_multiply(x0, getattr(ops, op0), x1, getattr(ops, op1))
        return layer.get_output(0)

    return define


def _product(name: str, op0: str, op1: str, a: Tensor, b: Tensor, equation: str, **options: Any):
    """``equation`` is the same product for numpy.einsum."""
    return OracleNetwork(
        f"matrix_multiply-{name}",
        [a, b],
        _matmul(op0, op1),
        lambda p, q: torch.from_numpy(
            np.einsum(equation, p.float().numpy(), q.float().numpy()).astype(np.float32)
        ).to(a.dtype),
        **options,
    )


PRODUCTS = [
    _product("plain", "NONE", "NONE", signed(3, 4), signed(4, 5), "ik,kj->ij"),
    _product("transposed-left", "TRANSPOSE", "NONE", signed(4, 3), signed(4, 5), "ki,kj->ij"),
    _product(
        "transposed-right",
        "NONE",
        "TRANSPOSE",
        signed(3, 4),
        signed(5, 4),
        "ik,jk->ij",
    ),
    _product("batched", "NONE", "NONE", signed(2, 3, 4), signed(2, 4, 5), "bik,bkj->bij"),
    _product(
        "batch-broadcast",
        "NONE",
        "TRANSPOSE",
        signed(2, 3, 3, 4),
        signed(1, 1, 5, 4),
        "abik,cdjk->abij",
    ),
    _product("vector-right", "NONE", "VECTOR", signed(3, 4), signed(4), "ik,k->i"),
    _product("vector-left", "VECTOR", "NONE", signed(4), signed(4, 5), "k,kj->j"),
    _product("vectors", "VECTOR", "VECTOR", signed(2, 4), signed(2, 4), "bk,bk->b"),
    _product(
        "half", "NONE", "NONE", signed(3, 16).half(), signed(16, 8).half(), "ik,kj->ij"
    ),
    _product(
        "bfloat16",
        "NONE",
        "NONE",
        signed(3, 16).bfloat16(),
        signed(16, 8).bfloat16(),
        "ik,kj->ij",
    ),
]  # fmt: skip


def _einsum(equation: str) -> Callable[..., Any]:
    return lambda net, *inputs: net.network.add_einsum(list(inputs), equation).get_output(0)


EINSUMS = [
    OracleNetwork(
        "einsum-heads",
        [signed(2, 3, 4, 5), signed(2, 6, 4, 5)],
        _einsum("bqhd,bkhd->bhqk"),
        lambda a, b: a.permute(0, 2, 1, 3) @ b.permute(0, 2, 3, 1),
    ),
    OracleNetwork("einsum-transpose", [signed(3, 4)], _einsum("ij->ji"), lambda a: a.t()),
    OracleNetwork(
        "einsum-outer", [signed(3), signed(4)], _einsum("i,j->ij"), lambda a, b: a[:, None] * b
    ),
]


def _reduce(
    op: str,
    axes: tuple[int, ...],
    keep: bool,
    expect: Callable[..., Any],
    x: Tensor,
    suffix: str = "",
    **options: Any,
) -> OracleNetwork:
    mask = sum(1 << axis for axis in axes)

    def define(net: Net, x0: Any) -> Any:
        op_value = getattr(net.trt.ReduceOperation, op)
        return net.network.add_reduce(x0, op_value, mask, keep).get_output(0)

    def expected(x: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(expect(x.numpy(), axis=axes, keepdims=keep)))

    return OracleNetwork(f"reduce-{op.lower()}{suffix}", [x], define, expected, **options)


def _int_sum(x: Any, **options: Any) -> Any:
    return np.sum(x, **options).astype(x.dtype)


REDUCTIONS = [
    _reduce("SUM", (1, 2), False, np.sum, signed(2, 3, 4)),
    _reduce("SUM", (0, 1), True, _int_sum, integers(-9, 9, 3, 4), "-int32"),
    _reduce("AVG", (2, 3), True, np.mean, signed(2, 3, 4, 5)),
    _reduce("AVG", (0, 2), False, np.mean, signed(2, 3, 4), "-outer"),
    _reduce("MAX", (1,), False, np.max, signed(2, 3, 4)),
    _reduce("MAX", (1,), True, np.max, integers(-9, 9, 3, 4), "-int32"),
    _reduce("MIN", (0, 2), True, np.min, signed(2, 3, 4)),
    _reduce("PROD", (0, 2), False, np.prod, signed(2, 3, 4)),
    *(
        _reduce(
            op, (1,), True, f, torch.tensor([[2**40, 2**40 + 1, -3], [-(2**40), 7, -1]]), "-int64"
        )
        for op, f in (("SUM", np.sum), ("MAX", np.max), ("MIN", np.min))
    ),
    _reduce("PROD", (1,), False, np.prod, torch.tensor([[2**20, 2**20 + 1], [-7, 5]]), "-int64"),
    _reduce(
        "MIN", (0,), False, np.min, torch.tensor([[3, -1], [2, 5]], dtype=torch.int32), "-int32"
    ),
]


def _softmax(axis: int | None) -> Callable[..., Any]:
    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_softmax(x0)
        if axis is not None:
            layer.axes = 1 << axis
        return layer.get_output(0)

    return define


def _softmax_by_numpy(axis: int) -> Callable[[Tensor], Tensor]:
    def expect(x: Tensor) -> Tensor:
        exponentials = np.exp(x.numpy().astype(np.float64))
        return torch.from_numpy(exponentials / exponentials.sum(axis, keepdims=True)).float()

    return expect


SOFTMAXES = [
    OracleNetwork("softmax-last", [signed(2, 3, 7)], _softmax(2), _softmax_by_numpy(2)),
    OracleNetwork("softmax-first", [signed(4, 3)], _softmax(0), _softmax_by_numpy(0)),
    OracleNetwork("softmax-default", [signed(2, 3, 4, 5)], _softmax(None), _softmax_by_numpy(1)),
]


def _cumulative(axis: int, exclusive: bool, reverse: bool) -> Callable[..., Any]:
    def define(net: Net, x0: Any) -> Any:
        where = net.constant(torch.tensor(axis, dtype=torch.int32))
        op = net.trt.CumulativeOperation.SUM
        return net.network.add_cumulative(x0, where, op, exclusive, reverse).get_output(0)

    return define


def _partial_sums(axis: int, exclusive: bool, reverse: bool) -> Callable[[Tensor], Tensor]:
    def along(row: Any) -> Any:
        n = len(row)
        first = 1 if exclusive else 0
        if reverse:
            return np.array([row[i + first :].sum() for i in range(n)], dtype=row.dtype)
        return np.array([row[: i + 1 - first].sum() for i in range(n)], dtype=row.dtype)

    return lambda x: torch.from_numpy(np.apply_along_axis(along, axis, x.numpy()))


CUMULATIVES = [
    OracleNetwork(
        f"cumulative-{'exclusive' if exclusive else 'inclusive'}"
        f"-{'reverse' if reverse else 'forward'}",
        [signed(3, 5)],
        _cumulative(axis, exclusive, reverse),
        _partial_sums(axis, exclusive, reverse),
        ["INetworkDefinition.add_cumulative"],
    )
    for axis, exclusive, reverse in (
        (1, False, False),
        (0, False, True),
        (1, True, False),
        (0, True, True),
    )
]


def _normalization(
    name: str,
    x: Tensor,
    coefficients: tuple[int, ...],
    axes: tuple[int, ...],
    expect: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    groups: int = 1,
    epsilon: float | None = None,
    method: str = "add_normalization",
) -> OracleNetwork:
    """``expect`` gets the input and flat scale and bias."""
    scale, bias = uniform(0.5, 2, *coefficients), signed(*coefficients)

    def define(net: Net, x0: Any) -> Any:
        add = getattr(net.network, method)
        mask = sum(1 << axis for axis in axes)
        layer = add(x0, net.constant(scale), net.constant(bias), mask)
        layer.num_groups = groups
        if epsilon is not None:
            layer.epsilon = epsilon
        return layer.get_output(0)

    return OracleNetwork(
        f"normalization-{name}",
        [x],
        define,
        lambda x: expect(x, scale.reshape(-1), bias.reshape(-1)),
        [f"INetworkDefinition.{method}"],
    )


def _group_norm_of_groups(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Scale and bias belong to the two groups."""
    return F.group_norm(x, 2, w.repeat_interleave(2), b.repeat_interleave(2))


NORMALIZATIONS = [
    _normalization(
        "layer",
        signed(2, 3, 8),
        (1, 1, 8),
        (2,),
        lambda x, w, b: F.layer_norm(x, (8,), w, b, 1e-3),
        epsilon=1e-3,
    ),
    _normalization(
        "layer-two-axes",
        signed(2, 3, 4, 5),
        (1, 1, 4, 5),
        (2, 3),
        lambda x, w, b: F.layer_norm(x, (4, 5), w.reshape(4, 5), b.reshape(4, 5)),
    ),
    _normalization(
        "instance",
        signed(2, 3, 4, 5),
        (1, 3, 1, 1),
        (2, 3),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    ),
    _normalization(
        "groups", signed(2, 4, 3, 5), (1, 2, 1, 1), (2, 3), _group_norm_of_groups, groups=2
    ),
    _normalization(
        "v2-groups",
        signed(2, 4, 3, 5),
        (1, 4, 1, 1),
        (2, 3),
        lambda x, w, b: F.group_norm(x, 2, w, b),
        groups=2,
        method="add_normalization_v2",
    ),
    _normalization(
        "v2-layer",
        signed(2, 3, 8),
        (1, 1, 8),
        (2,),
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
        method="add_normalization_v2",
    ),
]


def _lrn(window: int, alpha: float, beta: float, k: float) -> Callable[..., Any]:
    return lambda net, x0: net.network.add_lrn(x0, window, alpha, beta, k).get_output(0)


LRNS = [
    OracleNetwork(
        "lrn-window-5",
        [signed(2, 7, 3, 4)],
        _lrn(5, 0.3, 0.75, 2.0),
        lambda x: F.local_response_norm(x, 5, 0.3, 0.75, 2.0),
    ),
    OracleNetwork(
        "lrn-window-3",
        [signed(2, 4, 3, 4)],
        _lrn(3, 1.0, 0.5, 1.0),
        lambda x: F.local_response_norm(x, 3, 1.0, 0.5, 1.0),
    ),
]

NETWORKS = [
    *PRODUCTS,
    *EINSUMS,
    *REDUCTIONS,
    *SOFTMAXES,
    *CUMULATIVES,
    *NORMALIZATIONS,
    *LRNS,
]
