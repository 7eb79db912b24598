"""Copies of a graph to run and to add nodes to, on any device, while the graph itself stays as it is."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, fx

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
        elif node.op == "call_function" and node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": device}
    copied.recompile()
    return copied, nodes


def _move(graph_module: fx.GraphModule, target: str, device: torch.device) -> None:
    path, _, name = target.rpartition(".")
    owner = graph_module.get_submodule(path)
    value = getattr(owner, name)
    if isinstance(value, Tensor) and value.device != device:
        delattr(owner, name)
        owner.register_buffer(name, value.detach().to(device))
    elif isinstance(value, torch.nn.Module) and _elsewhere(value, device):
        setattr(owner, name, copy.deepcopy(value).to(device))


def _elsewhere(module: torch.nn.Module, device: torch.device) -> bool:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(tensor.device != device for tensor in tensors)
