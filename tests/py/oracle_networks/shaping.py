"""Constant, Shape, Fill, Shuffle, Concatenation, Squeeze, Unsqueeze, Padding, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oracle_networks.network_case import (
    Net,
    OracleNetwork,
    Tensor,
    booleans,
    integers,
    signed,
)


def _constant(value: Tensor, name: str) -> OracleNetwork:
    """The constant meets an input, since a network of constants alone has nothing to run."""

    def define(net: Net, x0: Any) -> Any:
        chosen = net.network.add_select(x0, net.constant(value), net.constant(value.flip(0)))
        return chosen.get_output(0)

    return OracleNetwork(
        f"constant-{name}",
        [booleans(*value.shape)],
        define,
        lambda c: torch.where(c, value, value.flip(0)),
    )


def _scalar_constant(net: Net, x0: Any) -> Any:
    layer = net.network.add_shuffle(net.constant(torch.tensor(2.5)))
    layer.reshape_dims = (1, 1)
    op = net.trt.ElementWiseOperation.PROD
    return net.network.add_elementwise(x0, layer.get_output(0), op).get_output(0)


CONSTANTS = [
    _constant(signed(3, 4), "float32"),
    _constant(signed(3, 4).half(), "float16"),
    _constant(signed(3, 4).bfloat16(), "bfloat16"),
    _constant(integers(-9, 9, 3, 4), "int32"),
    _constant(integers(-9, 9, 3, 4, dtype=torch.int64), "int64"),
    OracleNetwork("constant-scalar", [signed(2, 3)], _scalar_constant, lambda x: x * 2.5),
]


def _shape(net: Net, x0: Any) -> Any:
    return net.network.add_shape(x0).get_output(0)


SHAPES = [
    OracleNetwork(
        "shape-static",
        [signed(2, 3, 5)],
        _shape,
        lambda x: torch.tensor([2, 3, 5]),
    ),
    OracleNetwork(
        "shape-dynamic",
        [signed(2, 3, 5)],
        _shape,
        lambda x: torch.tensor([2, 3, 5]),
        dynamic={0: (-1, 3, 5)},
    ),
]


def _fill_static(net: Net, x0: Any) -> Any:
    layer = net.network.add_fill((7,), net.trt.FillOperation.LINSPACE, net.trt.float32)
    layer.alpha, layer.beta = -1.5, 0.25
    op = net.trt.ElementWiseOperation.SUM
    return net.network.add_elementwise(x0, layer.get_output(0), op).get_output(0)


def _fill_dynamic(dtype: torch.dtype, start: float, delta: Sequence[float]) -> Any:
    def define(net: Net, x0: Any) -> Any:
        add = net.network.add_fill
        layer = add((1, 1), net.trt.FillOperation.LINSPACE, net.data_type(dtype))
        layer.set_input(0, net.integers(3, 4))
        layer.set_input(1, net.constant(torch.tensor(start, dtype=dtype)))
        layer.set_input(2, net.constant(torch.tensor(delta, dtype=dtype)))
        op = net.trt.ElementWiseOperation.SUM
        return net.network.add_elementwise(x0, layer.get_output(0), op).get_output(0)

    return define


def _fill_of_computed_size(net: Net, x0: Any) -> Any:
    """0, 1, ... as far as the input goes."""
    network, trt = net.network, net.trt
    layer = network.add_fill((1,), trt.FillOperation.LINSPACE, trt.int32)
    layer.set_input(0, network.add_shape(x0).get_output(0))
    layer.set_input(1, net.constant(torch.tensor(0, dtype=torch.int32)))
    layer.set_input(2, net.constant(torch.ones(1, dtype=torch.int32)))
    op = trt.ElementWiseOperation.SUM
    return network.add_elementwise(x0, layer.get_output(0), op).get_output(0)


_ROWS, _COLUMNS = np.mgrid[0:3, 0:4]

FILLS = [
    OracleNetwork(
        "fill-linspace",
        [signed(7)],
        _fill_static,
        lambda x: x + torch.linspace(-1.5, -1.5 + 6 * 0.25, 7),
    ),
    OracleNetwork(
        "fill-linspace-2d",
        [signed(3, 4)],
        _fill_dynamic(torch.float32, 0.5, [2.0, -0.25]),
        lambda x: x + torch.from_numpy(0.5 + 2 * _ROWS - 0.25 * _COLUMNS).float(),
    ),
    OracleNetwork(
        "fill-linspace-computed-size",
        [integers(-5, 5, 6)],
        _fill_of_computed_size,
        lambda x: x + torch.from_numpy(np.arange(6, dtype=np.int32)),
        dynamic={0: (-1,)},
    ),
    OracleNetwork(
        "fill-linspace-int32",
        [integers(-5, 5, 3, 4)],
        _fill_dynamic(torch.int32, 7, [10, -1]),
        lambda x: x + torch.from_numpy(7 + 10 * _ROWS - _COLUMNS).int(),
    ),
    OracleNetwork(
        "fill-linspace-int64",
        [torch.arange(12).reshape(3, 4)],
        _fill_dynamic(torch.int64, 2**40, [10, -1]),
        lambda x: x + torch.from_numpy(2**40 + 10 * _ROWS - _COLUMNS),
    ),
]


def _shuffle(
    name: str,
    x: Tensor,
    expect: Callable[[Tensor], Tensor],
    *,
    sizes_input: Sequence[int] | None = None,
    dynamic: tuple[int, ...] | None = None,
    **attributes: Any,
) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_shuffle(x0)
        for key, value in attributes.items():
            setattr(layer, key, value)
        if sizes_input is not None:
            layer.set_input(1, net.integers(*sizes_input))
        return layer.get_output(0)

    return OracleNetwork(
        f"shuffle-{name}",
        [x],
        define,
        expect,
        dynamic={} if dynamic is None else {0: dynamic},
    )


def _flatten_by_shape_arithmetic(net: Net, x0: Any) -> Any:
    """Reshape [a, b, c] to [a, b * c], the sizes computed in the network."""
    network, trt = net.network, net.trt
    shape = network.add_shape(x0).get_output(0)
    pieces = [network.add_slice(shape, (i,), (1,), (1,)).get_output(0) for i in range(3)]
    op = trt.ElementWiseOperation.PROD
    product = network.add_elementwise(pieces[1], pieces[2], op).get_output(0)
    layer = network.add_shuffle(x0)
    layer.set_input(1, network.add_concatenation([pieces[0], product]).get_output(0))
    return layer.get_output(0)


SHUFFLES = [
    _shuffle("nothing", signed(2, 3, 4), lambda x: x),
    _shuffle("reshape", signed(2, 3, 4), lambda x: x.reshape(4, 6), reshape_dims=(4, 6)),
    _shuffle("infer", signed(2, 3, 4), lambda x: x.reshape(6, 4), reshape_dims=(-1, 4)),
    _shuffle("copy", signed(2, 3, 4), lambda x: x.reshape(2, 12), reshape_dims=(0, -1)),
    _shuffle(
        "first-transpose",
        signed(2, 3, 4, 5),
        lambda x: x.permute(0, 2, 3, 1),
        first_transpose=(0, 2, 3, 1),
    ),
    _shuffle(
        "transpose-then-copy",
        signed(2, 3, 4, 5),
        lambda x: x.permute(0, 3, 1, 2).reshape(2, 5, 12),
        first_transpose=(0, 3, 1, 2),
        reshape_dims=(0, 0, -1),
    ),
    _shuffle(
        "all-three",
        signed(2, 3, 4),
        lambda x: x.permute(1, 2, 0).reshape(2, 6, 2).permute(2, 0, 1),
        first_transpose=(1, 2, 0),
        reshape_dims=(2, 6, 2),
        second_transpose=(2, 0, 1),
    ),
    _shuffle("to-scalar", signed(1, 1), lambda x: x.reshape(()), reshape_dims=()),
    _shuffle(
        "from-int64",
        integers(-9, 9, 6, dtype=torch.int64),
        lambda x: x.reshape(2, 3),
        reshape_dims=(2, 3),
    ),
    _shuffle("sizes-as-input", signed(2, 3, 4), lambda x: x.reshape(3, 8), sizes_input=(3, -1)),
    _shuffle(
        "zero-is-a-size",
        torch.zeros(2, 0, 4),
        lambda x: x.reshape(0, 5),
        reshape_dims=(0, 5),
        zero_is_placeholder=False,
    ),
    _shuffle(
        "dynamic",
        signed(2, 3, 4),
        lambda x: x.reshape(2, 12),
        reshape_dims=(0, 12),
        dynamic=(-1, 3, 4),
    ),
    OracleNetwork(
        "shuffle-sizes-computed",
        [signed(2, 3, 4)],
        _flatten_by_shape_arithmetic,
        lambda x: x.flatten(1),
        dynamic={0: (-1, -1, 4)},
    ),
]


def _concatenation(name: str, inputs: list[Tensor], axis: int | None) -> OracleNetwork:
    def define(net: Net, *tensors: Any) -> Any:
        layer = net.network.add_concatenation(list(tensors))
        if axis is not None:
            layer.axis = axis
        return layer.get_output(0)

    def expect(*tensors: Tensor) -> Tensor:
        default = max(tensors[0].dim() - 3, 0)
        arrays = [tensor.numpy() for tensor in tensors]
        return torch.from_numpy(np.concatenate(arrays, default if axis is None else axis))

    return OracleNetwork(f"concatenation-{name}", inputs, define, expect)


CONCATENATIONS = [
    _concatenation("default-axis", [signed(2, 3, 4, 5), signed(2, 1, 4, 5)], None),
    _concatenation("three", [signed(2, 3, 4), signed(2, 3, 1), signed(2, 3, 2)], 2),
    _concatenation("vectors", [signed(3), signed(4)], 0),
    _concatenation("int32", [integers(-9, 9, 2, 3), integers(-9, 9, 1, 3)], 0),
]


def _squeeze(axes: tuple[int, ...] | None) -> Callable[..., Any]:
    def define(net: Net, x0: Any) -> Any:
        add = net.network.add_squeeze
        return (add(x0) if axes is None else add(x0, net.integers(*axes))).get_output(0)

    return define


def _unsqueeze(*axes: int) -> Callable[..., Any]:
    return lambda net, x0: net.network.add_unsqueeze(x0, net.integers(*axes)).get_output(0)


_SQUEEZE, _UNSQUEEZE = ["INetworkDefinition.add_squeeze"], ["INetworkDefinition.add_unsqueeze"]

SQUEEZES = [
    OracleNetwork(
        "squeeze-axes", [signed(1, 3, 1, 4)], _squeeze((0, -2)), lambda x: x[0, :, 0], _SQUEEZE
    ),
    OracleNetwork(
        "squeeze-one", [signed(1, 3, 1, 4)], _squeeze((2,)), lambda x: x[:, :, 0], _SQUEEZE
    ),
    OracleNetwork(
        "squeeze-all", [signed(1, 3, 1, 4)], _squeeze(None), lambda x: x[0, :, 0], _SQUEEZE
    ),
    OracleNetwork(
        "unsqueeze-axes",
        [signed(3, 4)],
        _unsqueeze(0, -2),
        lambda x: x.reshape(1, 3, 1, 4),
        _UNSQUEEZE,
    ),
    OracleNetwork(
        "unsqueeze-last", [signed(3, 4)], _unsqueeze(2), lambda x: x[:, :, None], _UNSQUEEZE
    ),
]


def _padding(pre: tuple[int, int], post: tuple[int, int]) -> Callable[..., Any]:
    return lambda net, x0: net.network.add_padding_nd(x0, pre, post).get_output(0)


_NO_PADDING = {"tensorrt": "seen in 10.6: the builder fails on the deprecated IPaddingLayer"}

PADDINGS = [
    OracleNetwork(
        "padding-zeros",
        [signed(2, 3, 4, 5)],
        _padding((1, 0), (2, 3)),
        lambda x: F.pad(x, (0, 3, 1, 2)),
        refused=_NO_PADDING,
    ),
    OracleNetwork(
        "padding-trims",
        [signed(2, 3, 4, 5)],
        _padding((-1, 2), (0, -2)),
        lambda x: F.pad(x[:, :, 1:, :3], (2, 0)),
        refused=_NO_PADDING,
    ),
]


def _assertion(net: Net, x0: Any) -> Any:
    """The batch of a dynamic input is asserted to be at least one."""
    network, trt = net.network, net.trt
    batch = network.add_slice(network.add_shape(x0).get_output(0), (0,), (1,), (1,)).get_output(0)
    zero = net.integers(0)
    condition = network.add_elementwise(batch, zero, trt.ElementWiseOperation.GREATER)
    network.add_assertion(condition.get_output(0), "the batch must not be empty")
    return network.add_unary(x0, trt.UnaryOperation.NEG).get_output(0)


def _reverse_sequence(batch_axis: int, sequence_axis: int) -> Callable[..., Any]:
    def define(net: Net, x0: Any, x1: Any) -> Any:
        layer = net.network.add_reverse_sequence(x0, x1)
        layer.batch_axis, layer.sequence_axis = batch_axis, sequence_axis
        return layer.get_output(0)

    return define


def _reversed_by_loops(x: Tensor, lengths: Tensor) -> Tensor:
    rows = [
        torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths.tolist(), strict=True)
    ]
    return torch.stack(rows)


OTHERS = [
    OracleNetwork(
        "assertion-holds",
        [signed(2, 3)],
        _assertion,
        lambda x: -x,
        dynamic={0: (-1, 3)},
    ),
    OracleNetwork(
        "reverse_sequence-batch-first",
        [signed(3, 5, 2), torch.tensor([5, 1, 3], dtype=torch.int32)],
        _reverse_sequence(0, 1),
        _reversed_by_loops,
    ),
    OracleNetwork(
        "reverse_sequence-time-first",
        [signed(5, 3, 2), torch.tensor([4, 0, 2], dtype=torch.int32)],
        _reverse_sequence(1, 0),
        lambda x, n: _reversed_by_loops(x.transpose(0, 1), n).transpose(0, 1),
    ),
]

NETWORKS = [
    *CONSTANTS,
    *SHAPES,
    *FILLS,
    *SHUFFLES,
    *CONCATENATIONS,
    *SQUEEZES,
    *PADDINGS,
    *OTHERS,
]
