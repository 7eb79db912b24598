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


NETWORKS = [
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
