"""Places Q/DQ on a small model and tells where, by tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from checks import capture_for_test
from torch import nn
from torch.fx import GraphModule

from trtcompile.lowering import lower
from trtcompile.node_info import layer_name
from trtcompile.partition import judge
from trtcompile.ptq.placement import Placement, place
from trtcompile.settings import CompileSpec


@dataclass(frozen=True)
class Placed:
    """A placement in words.

    Attributes:
        readers: quantized value -> who reads it through Q/DQ.
        shared: groups of more than one value with one scale.
        skipped: weighted operator in floating point -> why.
        weight_axes: weighted operator in INT8 -> axis of its weight's scales.
        graph_module: the lowered graph, without Q/DQ.
        placement: what the rest was read from.
    """

    readers: dict[str, list[str]]
    shared: list[tuple[str, ...]]
    skipped: dict[str, str]
    weight_axes: dict[str, int]
    graph_module: GraphModule
    placement: Placement


def placed(model: nn.Module, inputs: Sequence[Any], **options: Any) -> Placed:
    """Captures, lowers and places; ``options`` are settings that decide what TensorRT takes."""
    graph_module = capture_for_test(model, inputs).graph_module
    spec = CompileSpec(**options)
    lower(graph_module, spec)
    taken = {node for node, reason in judge(graph_module, spec).items() if reason is None}
    placement = place(graph_module, taken, spec)
    return Placed(
        readers={
            layer_name(value): [layer_name(reader) for reader in readers]
            for value, readers in placement.readers.items()
        },
        shared=[tuple(map(layer_name, group)) for group in placement.groups if len(group) > 1],
        skipped={layer_name(node): decision.why for node, decision in placement.skipped.items()},
        weight_axes={layer_name(w.node): w.weight_axis for w in placement.weighted},
        graph_module=graph_module,
        placement=placement,
    )


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size of its input."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def image(channels: int = 8, size: int = 8) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
