"""Copies of a graph to run and to add nodes to, on any device, while the graph itself stays as it is."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.lowering.retarget import set_device
from trtcompile.ptq.channels_last import weights_with_channels_last
from trtcompile.ptq.pinned_upload import PinnedUpload

_Nodes = dict[fx.Node, fx.Node]


def copied_graph(graph_module: fx.GraphModule) -> tuple[fx.GraphModule, _Nodes]:
    """A copy of the nodes that shares weights and submodules, and for each node its copy."""
    copied = fx.GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    # Otherwise the two keep each other, and weights on a GPU, until the garbage collector runs.
    copied.graph.owning_module = None
    return copied, dict(zip(graph_module.graph.nodes, copied.graph.nodes, strict=True))


def copied_to(
    graph_module: fx.GraphModule,
    device: torch.device,
    beside: Mapping[fx.Node, Callable[[Any], None]] | None = None,
) -> tuple[fx.GraphModule, _Nodes]:
    """The same, to run on a device: what is elsewhere is copied there.

    Tensors that the graph creates are created there as well. On a CUDA device, weights may have
    another memory format.

    Args:
        graph_module: the graph.
        device: where the copy runs.
        beside: nodes of the graph -> functions that the copy calls with their values.
    """
    graph = copy.deepcopy(graph_module.graph)
    nodes = dict(zip(graph_module.graph.nodes, graph.nodes, strict=True))
    targets = {
        node.target: _attribute(graph_module, node.target)
        for node in graph.nodes
        if node.op in ("get_attr", "call_module")
    }
    if device.type == "cuda":
        targets.update(_uploaded(targets, device))
        for target in weights_with_channels_last(graph_module):
            targets[target] = targets[target].contiguous(memory_format=torch.channels_last)
    targets = {target: on_device(value, device) for target, value in targets.items()}
    for node, function in (beside or {}).items():
        with graph.inserting_after(nodes[node]):
            graph.call_function(function, (nodes[node],))
    # With everything in place, because generating the code takes most of the time.
    copied = fx.GraphModule(targets, graph)
    copied.graph.owning_module = None  # as above
    copied.training = graph_module.training
    set_device(
        copied, device
    )  # of branches as well, which are copies; it generates code where it has to
    return copied, nodes


def _uploaded(targets: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Copies of those targets that are tensors on the CPU."""
    upload = PinnedUpload(device)
    return {
        target: upload.copy(value)
        for target, value in targets.items()
        if isinstance(value, Tensor) and value.device.type == "cpu"
    }


def _attribute(module: torch.nn.Module, target: str) -> Any:
    path, _, name = target.rpartition(".")
    return getattr(module.get_submodule(path), name)


def on_device(value: Any, device: torch.device) -> Any:
    """A weight or submodule itself if it is on the device, and otherwise a copy there.

    A graph, such as a branch of ``torch.cond``, is always copied, to create its tensors on the device.
    """
    if isinstance(value, Tensor):
        to_gpu = device.type == "cuda"  # the host need not wait; the other way it must
        return value if value.device == device else value.detach().to(device, non_blocking=to_gpu)
    if isinstance(value, fx.GraphModule):
        moved = copy.deepcopy(value).to(device)
        set_device(moved, device)
        return moved
    if isinstance(value, torch.nn.Module):
        tensors = itertools.chain(value.parameters(), value.buffers())
        if any(tensor.device != device for tensor in tensors):
            return copy.deepcopy(value).to(device)
    return value
