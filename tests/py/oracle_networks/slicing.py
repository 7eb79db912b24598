"""Slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oracle_networks.network_case import Net, OracleNetwork, Tensor, booleans, signed


def _slice(
    name: str,
    x: Tensor,
    start: Sequence[int],
    sizes: Sequence[int],
    stride: Sequence[int],
    expect: Callable[[Tensor], Tensor],
    *,
    mode: str = "STRICT_BOUNDS",
    fill: float | None = None,
    axes: Sequence[int] | None = None,
    as_inputs: Sequence[int] = (),
) -> OracleNetwork:
    """``as_inputs`` says which of inputs 1 (start), 2 (size), 3 (stride) and 5 (axes) to use."""

    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_slice(x0, tuple(start), tuple(sizes), tuple(stride))
        if mode != "STRICT_BOUNDS":
            layer.mode = getattr(net.trt.SampleMode, mode)
        if axes is not None and 5 not in as_inputs:
            layer.axes = tuple(axes)
        values = {1: start, 2: sizes, 3: stride, 5: axes}
        for index in as_inputs:
            layer.set_input(index, net.integers(*values[index]))
        if fill is not None:
            layer.set_input(4, net.constant(torch.tensor(fill, dtype=x.dtype)))
        return layer.get_output(0)

    needs = ["ISliceLayer.axes"] if axes is not None else []
    return OracleNetwork(f"slice-{name}", [x], define, expect, needs=needs)


def _tiled(net: Net, x0: Any) -> Any:
    """Twice along the first dimension, whose size the network computes."""
    network, trt = net.network, net.trt
    op = trt.ElementWiseOperation.PROD
    shape = network.add_shape(x0).get_output(0)
    sizes = network.add_elementwise(shape, net.integers(2, 1), op).get_output(0)
    layer = network.add_slice(x0, (0, 0), (0, 0), (1, 1))
    layer.mode = trt.SampleMode.WRAP
    layer.set_input(2, sizes)
    return layer.get_output(0)


def _main_diagonal(net: Net, x0: Any) -> Any:
    """Of a square matrix as one row: the step is computed."""
    network, trt = net.network, net.trt
    shape = network.add_shape(x0).get_output(0)
    size = network.add_slice(shape, (0,), (1,), (1,)).get_output(0)
    op = trt.ElementWiseOperation.SUM
    step = network.add_elementwise(size, net.integers(1), op).get_output(0)
    flat = network.add_shuffle(x0)
    flat.reshape_dims = (-1,)
    layer = network.add_slice(flat.get_output(0), (0,), (0,), (1,))
    layer.set_input(2, size)
    layer.set_input(3, step)
    return layer.get_output(0)


NETWORKS = [
    OracleNetwork(
        "slice-wrap-computed-size",
        [signed(3, 4)],
        _tiled,
        lambda x: torch.from_numpy(np.tile(x.numpy(), (2, 1))),
        dynamic={0: (-1, 4)},
    ),
    OracleNetwork(
        "slice-computed-step",
        [signed(4, 4)],
        _main_diagonal,
        lambda x: torch.from_numpy(np.diagonal(x.numpy()).copy()),
        dynamic={0: (-1, -1)},
    ),
    _slice(
        "wrap-bool",
        booleans(2, 3),
        (0, -1),
        (4, 7),
        (1, 1),
        lambda x: torch.from_numpy(np.pad(x.numpy(), ((0, 2), (1, 3)), mode="wrap")),
        mode="WRAP",
    ),
    _slice(
        "clamp-int64",
        torch.arange(5),
        (-2,),
        (9,),
        (1,),
        lambda x: torch.from_numpy(np.pad(x.numpy(), (2, 2), mode="edge")),
        mode="CLAMP",
    ),
    _slice(
        "reflect-as-inputs",
        signed(3, 5),
        (0, -2),
        (3, 10),
        (1, 1),
        lambda x: torch.from_numpy(np.pad(x.numpy(), ((0, 0), (2, 3)), mode="reflect")),
        mode="REFLECT",
        as_inputs=[1, 2],
    ),
    _slice(
        "fill-int32",
        torch.arange(5, dtype=torch.int32),
        (-2,),
        (8,),
        (1,),
        lambda x: F.pad(x, (2, 1), value=-7),
        mode="FILL",
        fill=-7,
    ),
    _slice("plain", signed(4, 6), (1, 0), (2, 3), (1, 2), lambda x: x[1:3, 0:5:2]),
    _slice("negative-stride", signed(4, 6), (3, 5), (2, 6), (-2, -1),
           lambda x: x.flip(0, 1)[::2]),
    _slice("zero-stride", signed(4, 6), (1, 0), (3, 6), (0, 1), lambda x: x[1:2].expand(3, 6)),
    _slice("int64", torch.arange(10), (2,), (3,), (3,), lambda x: x[2::3]),
    _slice("bool", booleans(4, 6), (1, 1), (2, 2), (2, 3), lambda x: x[1::2, 1::3]),
    _slice(
        "fill",
        signed(2, 3, 4),
        (0, -1, -2),
        (2, 5, 7),
        (1, 1, 1),
        lambda x: F.pad(x, (2, 1, 1, 1), value=-7.5),
        mode="FILL",
        fill=-7.5,
    ),
    _slice(
        "fill-with-zero-by-default",
        signed(3, 4),
        (-1, 1),
        (5, 4),
        (1, 1),
        lambda x: F.pad(x[:, 1:], (0, 1, 1, 1)),
        mode="FILL",
    ),
    _slice(
        "clamp",
        signed(1, 2, 4, 4),
        (0, 0, -2, -1),
        (1, 2, 7, 6),
        (1, 1, 1, 1),
        lambda x: F.pad(x, (1, 1, 2, 1), mode="replicate"),
        mode="CLAMP",
    ),
    _slice(
        "wrap",
        signed(3, 4),
        (-1, -5),
        (5, 12),
        (1, 1),
        lambda x: torch.from_numpy(np.pad(x.numpy(), ((1, 1), (5, 3)), mode="wrap")),
        mode="WRAP",
    ),
    _slice(
        "reflect",
        signed(3, 4),
        (-2, -3),
        (7, 10),
        (1, 1),
        lambda x: torch.from_numpy(np.pad(x.numpy(), ((2, 2), (3, 3)), mode="reflect")),
        mode="REFLECT",
    ),
    _slice(
        "reflect-twice",
        signed(3, 4),
        (-5, 0),
        (13, 4),
        (1, 1),
        lambda x: torch.from_numpy(np.pad(x.numpy(), ((5, 5), (0, 0)), mode="reflect")),
        mode="REFLECT",
    ),
    _slice(
        "axes",
        signed(2, 5, 6),
        (1, 4),
        (2, 2),
        (2, -3),
        lambda x: x[:, [4, 1]][:, :, [1, 3]],
        axes=(2, 1),
    ),
    _slice("start-as-input", signed(4, 6), (1, 2), (2, 3), (1, 1), lambda x: x[1:3, 2:5],
           as_inputs=[1]),
    _slice(
        "all-as-inputs",
        signed(4, 6),
        (1, 5),
        (2, 3),
        (2, -2),
        lambda x: x[1::2].flip(1)[:, ::2],
        as_inputs=[1, 2, 3],
    ),
]  # fmt: skip
