"""Copies of a graph to run and to add nodes to, on any device, while the graph itself stays as it is."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.lowering.retarget import set_device

_Nodes = dict[fx.Node, fx.Node]


def copied_graph(graph_module: fx.GraphModule) -> tuple[fx.GraphModule, _Nodes]:
    """A copy of the nodes that shares weights and submodules, and for each node its copy."""
    copied = fx.GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    # Otherwise the two keep each other, and weights on a GPU, until the garbage collector runs.
    copied.graph.owning_module = None
    return copied, dict(zip(graph_module.graph.nodes, copied.graph.nodes, strict=True))


def copied_to(graph_module: fx.GraphModule, device: torch.device) -> tuple[fx.GraphModule, _Nodes]:
    """The same, to run on a device: what is elsewhere is copied there.

    Tensors that the graph creates are created there as well.
    """
    copied, nodes = copied_graph(graph_module)
    moved = set()
    for node in copied.graph.nodes:
        if node.op in ("get_attr", "call_module") and node.target not in moved:
            moved.add(node.target)
            _move(copied, str(node.target), device)
    set_device(copied, device)  # of branches as well: by now they are copies
    copied.recompile()
    return copied, nodes


def _move(graph_module: fx.GraphModule, target: str, device: torch.device) -> None:
    path, _, name = target.rpartition(".")
    owner = graph_module.get_submodule(path)
    value = getattr(owner, name)
    moved = on_device(value, device)
    if moved is value:
        return
    if isinstance(value, Tensor):
        delattr(owner, name)
        owner.register_buffer(name, moved)
    else:
        setattr(owner, name, moved)


def on_device(value: Any, device: torch.device) -> Any:
    """A weight or submodule itself if it is on the device, and otherwise a copy there.

    A graph, such as a branch of ``torch.cond``, is always copied, to create its tensors on the device.
    """
    if isinstance(value, Tensor):
        return value if value.device == device else value.detach().to(device)
    if isinstance(value, fx.GraphModule):
        moved = copy.deepcopy(value).to(device)
        set_device(moved, device)
        return moved
    if isinstance(value, torch.nn.Module):
        tensors = itertools.chain(value.parameters(), value.buffers())
        if any(tensor.device != device for tensor in tensors):
            return copy.deepcopy(value).to(device)
    return value
