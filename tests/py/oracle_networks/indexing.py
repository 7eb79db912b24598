"""Gather, Scatter, TopK, NonZero, OneHot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from oracle_networks.network_case import Net, OracleNetwork, Tensor, distinct, integers, signed


def _gather(mode: str, *, axis: int = 0, elementwise: int = 0) -> Callable[..., Any]:
    def define(net: Net, x0: Any, x1: Any) -> Any:
        layer = net.network.add_gather_v2(x0, x1, getattr(net.trt.GatherMode, mode))
        layer.axis = axis
        layer.num_elementwise_dims = elementwise
        return layer.get_output(0)

    return define


def _legacy_gather(net: Net, x0: Any, x1: Any) -> Any:
    return net.network.add_gather(x0, x1, 1).get_output(0)


def _gathered_tuples(data: Tensor, indices: Tensor) -> Tensor:
    return torch.from_numpy(data.numpy()[tuple(indices.numpy().transpose(2, 0, 1))])


GATHERS = [
    OracleNetwork(
        "gather-default",
        [signed(4, 5, 3), integers(0, 5, 2, 3)],
        _legacy_gather,
        lambda x, i: torch.from_numpy(np.take(x.numpy(), i.numpy(), 1)),
    ),
    OracleNetwork(
        "gather-scalar-index",
        [signed(4, 5, 3), torch.tensor(2, dtype=torch.int32)],
        _gather("DEFAULT", axis=0),
        lambda x, i: x[2],
    ),
    OracleNetwork(
        "gather-int64-indices",
        [signed(4, 5), integers(0, 5, 7, dtype=torch.int64)],
        _gather("DEFAULT", axis=1),
        lambda x, i: x[:, i],
    ),
    OracleNetwork(
        "gather-negative-indices",
        [signed(4, 5), torch.tensor([-1, 2, -5], dtype=torch.int32)],
        _gather("DEFAULT", axis=1),
        lambda x, i: torch.from_numpy(np.take(x.numpy(), i.numpy(), 1)),
    ),
    OracleNetwork(
        "gather-batched",
        [signed(2, 5, 3), integers(0, 5, 2, 4)],
        _gather("DEFAULT", axis=1, elementwise=1),
        lambda x, i: torch.stack([x[b][i[b]] for b in range(2)]),
    ),
    OracleNetwork(
        "gather-of-int64",
        [torch.arange(12).reshape(3, 4), integers(0, 4, 2, 3)],
        _gather("DEFAULT", axis=1),
        lambda x, i: torch.from_numpy(np.take(x.numpy(), i.numpy(), 1)),
    ),
    OracleNetwork(
        "gather-elements-longer",
        [signed(2, 3), integers(0, 3, 2, 7)],
        _gather("ELEMENT", axis=1),
        lambda x, i: torch.from_numpy(np.take_along_axis(x.numpy(), i.numpy(), 1)),
    ),
    OracleNetwork(
        "gather-elements",
        [signed(4, 5, 3), integers(0, 5, 4, 2, 3)],
        _gather("ELEMENT", axis=1),
        lambda x, i: torch.from_numpy(np.take_along_axis(x.numpy(), i.numpy(), 1)),
    ),
    OracleNetwork(
        "gather-nd",
        [signed(4, 5, 3), integers(0, 4, 2, 6, 2)],
        _gather("ND"),
        _gathered_tuples,
    ),
    OracleNetwork(
        "gather-nd-batched",
        [signed(2, 5, 3), integers(0, 5, 2, 4, 1)],
        _gather("ND", elementwise=1),
        lambda x, i: torch.stack([x[b][i[b, :, 0]] for b in range(2)]),
    ),
]


def _scatter(mode: str, axis: int = 0) -> Callable[..., Any]:
    def define(net: Net, x0: Any, x1: Any, x2: Any) -> Any:
        layer = net.network.add_scatter(x0, x1, x2, getattr(net.trt.ScatterMode, mode))
        if mode == "ELEMENT":
            layer.axis = axis
        return layer.get_output(0)

    return define


def _scattered(axis: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def expect(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        result = data.numpy().copy()
        np.put_along_axis(result, indices.numpy().astype(np.int64), updates.numpy(), axis)
        return torch.from_numpy(result)

    return expect


def _scattered_tuples(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    result = data.clone()
    for row, update in zip(indices, updates, strict=True):
        result[tuple(row.tolist())] = update
    return result


SCATTERS = [
    OracleNetwork(
        "scatter-elements-axis-0",
        [signed(4, 3), torch.tensor([[3, 0, 1], [0, 2, 2]], dtype=torch.int32), signed(2, 3)],
        _scatter("ELEMENT", 0),
        _scattered(0),
    ),
    OracleNetwork(
        "scatter-elements-axis-1",
        [signed(2, 5), torch.tensor([[3, 0, 1], [0, 2, 4]], dtype=torch.int32), signed(2, 3)],
        _scatter("ELEMENT", 1),
        _scattered(1),
    ),
    OracleNetwork(
        "scatter-elements-smaller",
        [signed(4, 5), torch.tensor([[3, 0, 1], [0, 2, 4]], dtype=torch.int32), signed(2, 3)],
        _scatter("ELEMENT", 1),
        lambda x, i, u: torch.cat([_scattered(1)(x[:2], i, u), x[2:]]),
    ),
    OracleNetwork(
        "scatter-elements-int64",
        [torch.arange(5), torch.tensor([3, 0], dtype=torch.int32), torch.tensor([-1, -2])],
        _scatter("ELEMENT", 0),
        _scattered(0),
    ),
    OracleNetwork(
        "scatter-nd-int32",
        [
            integers(-9, 9, 4, 3),
            torch.tensor([[3], [1]], dtype=torch.int32),
            integers(-9, 9, 2, 3),
        ],
        _scatter("ND"),
        _scattered_tuples,
    ),
    OracleNetwork(
        "scatter-nd-elements",
        [signed(3, 4), torch.tensor([[0, 1], [2, 3], [1, 0]], dtype=torch.int32), signed(3)],
        _scatter("ND"),
        _scattered_tuples,
    ),
    OracleNetwork(
        "scatter-nd-rows",
        [signed(4, 3), torch.tensor([[3], [1]], dtype=torch.int32), signed(2, 3)],
        _scatter("ND"),
        _scattered_tuples,
    ),
]


def _top_k(op: str, k: int, axis: int, *, k_as_input: bool = False) -> Callable[..., Any]:
    def define(net: Net, x0: Any) -> list[Any]:
        op_value = getattr(net.trt.TopKOperation, op)
        layer = net.network.add_topk(x0, op_value, 1 if k_as_input else k, 1 << axis)
        if k_as_input:
            layer.set_input(1, net.constant(torch.tensor(k, dtype=torch.int32)))
        return [layer.get_output(0), layer.get_output(1)]

    return define


def _best(k: int, axis: int, largest: bool) -> Callable[[Tensor], list[Tensor]]:
    def expect(x: Tensor) -> list[Tensor]:
        order = np.argsort(-x.numpy() if largest else x.numpy(), axis).take(range(k), axis)
        values = np.take_along_axis(x.numpy(), order, axis)
        return [torch.from_numpy(values), torch.from_numpy(order.astype(np.int32))]

    return expect


TOP_KS = [
    OracleNetwork(
        "topk-int64", [distinct(3, 8).mul(4).long()], _top_k("MIN", 8, 1), _best(8, 1, False)
    ),
    OracleNetwork(
        "topk-int32", [distinct(3, 8).mul(4).int()], _top_k("MAX", 3, 1), _best(3, 1, True)
    ),
    OracleNetwork("topk-half", [distinct(3, 8).half()], _top_k("MAX", 8, 1), _best(8, 1, True)),
    OracleNetwork("topk-max", [distinct(3, 8)], _top_k("MAX", 3, 1), _best(3, 1, True)),
    OracleNetwork("topk-min", [distinct(3, 8)], _top_k("MIN", 2, 1), _best(2, 1, False)),
    OracleNetwork("topk-inner-axis", [distinct(2, 6, 4)], _top_k("MAX", 2, 1), _best(2, 1, True)),
    OracleNetwork(
        "topk-k-as-input",
        [distinct(3, 8)],
        _top_k("MAX", 4, 1, k_as_input=True),
        _best(4, 1, True),
    ),
]


def _non_zero(net: Net, x0: Any) -> Any:
    return net.network.add_non_zero(x0).get_output(0)


def _coordinates(x: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(np.nonzero(x.numpy())).astype(np.int32))


_NO_NON_ZERO = {"tensorrt_rtx": "NonZero has no runners that implement it (1.7.1)"}


def _one_hot(axis: int) -> Callable[..., Any]:
    def define(net: Net, x0: Any, x1: Any) -> Any:
        depth = net.constant(torch.tensor(5, dtype=torch.int32))
        return net.network.add_one_hot(x0, x1, depth, axis).get_output(0)

    return define


def _hot(indices: Tensor, values: Tensor) -> Tensor:
    return values[torch.nn.functional.one_hot(indices.long(), 5)]


OTHERS = [
    OracleNetwork(
        "non_zero-float",
        [signed(3, 4) * integers(0, 2, 3, 4)],
        _non_zero,
        _coordinates,
        refused=_NO_NON_ZERO,
    ),
    OracleNetwork(
        "non_zero-bool",
        [integers(0, 2, 7).bool()],
        _non_zero,
        _coordinates,
        refused=_NO_NON_ZERO,
    ),
    OracleNetwork(
        "one_hot-last-axis",
        [integers(0, 5, 2, 3), torch.tensor([-1.0, 4.0])],
        _one_hot(-1),
        _hot,
    ),
    OracleNetwork(
        "one_hot-axis-1",
        [integers(0, 5, 2, 3), torch.tensor([0, 7], dtype=torch.int32)],
        _one_hot(1),
        lambda i, v: _hot(i, v).permute(0, 2, 1),
    ),
]

NETWORKS = [*GATHERS, *SCATTERS, *TOP_KS, *OTHERS]
